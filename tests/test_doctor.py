"""What the doctor makes of what Slurm says; it asks a real one in tests/slurm."""

import re
import subprocess

import pytest
import yte

from semisup.questions import doctor
from semisup.site import Nodes, Site
from small import ROOT


def remedies(findings: object) -> list[str]:
    return [finding.remedy for finding in findings]  # type: ignore[attr-defined]


def test_the_longest_jobs_are_those_of_the_profile() -> None:
    profile = yte.process_yaml((ROOT / "profiles/slurm/profile.v9+.yaml").read_text())
    found = {"cpu_partition": 0, "gpu_partition": 0}
    for own in profile["set-resources"].values():
        partition = "gpu_partition" if "slurm_partition" in own else "cpu_partition"
        minutes = str(own.get("runtime", profile["default-resources"]["runtime"]))
        tries = profile["retries"] + 1 if minutes.endswith(" * attempt") else 1
        if "ranks" not in own:
            found[partition] = max(found[partition], int(minutes.split()[0]) * tries)
    assert found == doctor.LONGEST


def test_the_largest_jobs_are_those_of_the_profile() -> None:
    profile = yte.process_yaml((ROOT / "profiles/slurm/profile.v9+.yaml").read_text())
    cpus, memory = dict[str, int](), dict[str, int]()
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for text in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            rule, threads = text.split(":")[0], re.search(r"^    threads: (\d+)", text, re.M)
            own = profile["default-resources"] | profile["set-resources"].get(rule, {})
            if "gpu" not in own["slurm_partition"]:
                cpus[rule] = profile["set-threads"].get(rule, int(threads[1]) if threads else 1)
                memory[rule] = int(own["mem_mb"].removesuffix(" * attempt"))
    for most, all_rules in ((doctor.MOST_CPUS, cpus), (doctor.MOST_MEMORY, memory)):
        assert most == (most[0], max(all_rules.values())) == (most[0], all_rules[most[0]])
    assert profile["retries"] + 1 == doctor.TRIES


OTHER = "Set gpu_partition in site.yaml to one that allows "


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        (None, []),
        (72, []),
        (12, ["Set train.hours in site.yaml to 12; "]),
        (2, [f"{OTHER}more, ", "Set train.hours in site.yaml to 2; "]),
        (0.5, [f"{OTHER}more, "] + 3 * [f"{OTHER}an hour at least."]),
    ],
)
def test_a_partition_must_allow_what_is_asked_for(hours: float | None, wanted: list[str]) -> None:
    limits = {"cpu_partition": None, "gpu_partition": hours and hours * 3600}
    short = Nodes(hours=1)
    found = remedies(doctor.check_time(Site(pretrain=short, finetune=short), limits))
    assert [said[: len(start)] for said, start in zip(found, wanted, strict=True)] == wanted


def test_of_several_partitions_the_longest_counts() -> None:
    short, long = "PartitionName=a MaxTime=02:00:00", "PartitionName=b MaxTime=1-00:00:00"
    assert doctor.longest_time([short, long]) == 86_400
    assert doctor.longest_time([short, "PartitionName=c MaxTime=UNLIMITED"]) is None


@pytest.mark.parametrize(
    ("gpu", "said", "number"),
    [
        ("gpu", "gpu:2\n(null)\n", 2),
        ("gpu", "gpu:a100-80gb:4(S:0-1),shard:8\ngpu:v100:2\n", 4),
        ("gpu:v100", "gpu:a100:4(S:0-1)\nshard:8,gpu:v100:2\n", 2),
        ("gpu:h100", "gpu:a100:4\n", 0),
        ("gpu", "(null)\n", 0),
    ],
)
def test_gpus_are_counted_as_sinfo_lists_them(gpu: str, said: str, number: int) -> None:
    assert doctor.most_gpus(said, gpu) == number


def test_more_gpus_than_a_node_has_are_found() -> None:
    site = Site(pretrain=Nodes(gpus=8))
    assert remedies(doctor.check_nodes(site, 4, 2)) == [
        "Lower pretrain.gpus in site.yaml, and raise pretrain.nodes for as many in all."
    ]
    assert remedies(doctor.check_nodes(site, 4, None)) == []
    assert remedies(doctor.check_nodes(site, 4, 0))[0].startswith("Set gpu in site.yaml to what")


CPU_NODES = "64 256000 (null)"
GPU_NODES = "64 256000 gpu:2"
LIMIT = "Set memory_per_{}_node in site.yaml to {}: no job asks for more."


def sizes(cpu_nodes: str = CPU_NODES, gpu_nodes: str = GPU_NODES, **own: object) -> list[str]:
    """What to change on a site that asks for no more than 1 GB, but for ``own``."""
    site = Site.model_validate({"memory_per_cpu_node": 1_000, "memory_per_gpu_node": 1_000} | own)
    said = {"cpu_partition": cpu_nodes, "gpu_partition": gpu_nodes}
    nodes = {key: doctor.read_nodes(text, site.gpu) for key, text in said.items()}
    return remedies(doctor.check_sizes(site, nodes))


def test_more_cpus_than_a_node_has_are_found() -> None:
    remedy = "Set cpus_per_gpu in site.yaml to {}."
    assert sizes(cpus_per_gpu=64) == []
    assert sizes(cpus_per_gpu=65) == [remedy.format(32)]
    assert sizes(cpus_per_gpu=33, finetune={"gpus": 2}) == [remedy.format(32)]
    assert sizes(gpu_nodes="6 256000 (null)", gpu=None, train={"gpus": 2}) == [remedy.format(3)]
    (said,) = sizes("4 256000 (null)")
    assert said.startswith("Set cpu_partition in site.yaml to one of larger nodes, or lower ")


def test_more_memory_than_a_node_has_is_found_for_every_try() -> None:
    assert sizes(memory_per_cpu_node=None) == []
    assert sizes("64 190000 (null)", memory_per_cpu_node=None) == [LIMIT.format("cpu", 190_000)]
    assert sizes("64 190000 (null)", memory_per_cpu_node=190_000) == []
    gpus: dict[str, object] = {"train": {"gpus": 2}, "memory_per_gpu_node": None}
    assert sizes(memory_per_gpu=42_000, **gpus) == []
    assert sizes(memory_per_gpu=43_000, **gpus) == [LIMIT.format("gpu", 256_000)]
    both = ["Set memory_per_gpu in site.yaml to 128000.", LIMIT.format("gpu", 256_000)]
    assert sizes(memory_per_gpu=129_000, **gpus) == both
    for limit, remedy in ((256_000, []), (256_001, both)):
        gpus["memory_per_gpu_node"] = limit
        assert sizes(memory_per_gpu=129_000, **gpus) == remedy


def test_only_nodes_with_enough_gpus_count() -> None:
    nodes = f"{CPU_NODES}\n128 999000 gpu:a100:1\n64 256000 gpu:a100:4"
    own: dict[str, object] = {"gpu": "gpu:a100", "memory_per_gpu_node": None}
    assert sizes(gpu_nodes=nodes, memory_per_gpu=300_000, **own) == []
    of_four = {"train": {"gpus": 4}, "pretrain": {"gpus": 8}}  # check_nodes says there are no 8
    assert sizes(gpu_nodes=nodes, memory_per_gpu=30_000, **own, **of_four) == [
        LIMIT.format("gpu", 256_000)
    ]
    assert sizes(gpu_nodes=CPU_NODES, memory_per_gpu=300_000, **own) == []


def test_nodes_of_unknown_memory_are_found() -> None:
    remedy = "It refuses every job: ask its administrator to set RealMemory in slurm.conf."
    assert sizes("64 1 (null)", "") == [remedy, remedy]


def test_a_job_that_fails_without_a_word_is_no_success(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    silent = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: silent)
    (finding,) = doctor.run_job(Site(), "cpu_partition", 1)
    assert "It said nothing and ended with 1" in finding.remedy

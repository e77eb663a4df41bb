"""What the doctor makes of what Slurm says; it asks a real one in tests/slurm."""

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


def test_a_job_that_fails_without_a_word_is_no_success(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    silent = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: silent)
    (finding,) = doctor.run_job(Site(), "cpu_partition", 1)
    assert "It said nothing and ended with 1" in finding.remedy

"""What differs from cluster to cluster."""

import os
import re
import subprocess
from pathlib import Path
from unittest import mock

import pytest
import yaml
import yte

from semisup import site
from semisup.config import Config
from semisup.site import Nodes, Site
from small import ROOT
from snakemakes import snakemake


def read(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    path = folder / "site.yaml"
    path.write_text(text)
    monkeypatch.setenv(site.VARIABLE, str(path))
    return site.read_site()


def test_one_node_needs_neither_srun_nor_tasks() -> None:
    resources = Site(train=Nodes(gpus=8)).training("train")
    assert resources == {
        "slurm_partition": "'gpu'",
        "gres": "'gpu:8'",
        "runtime": 24 * 60,
        "mem_mb": "256000 * attempt",
        "ranks": 8,
    }


@pytest.mark.parametrize(
    ("node", "asked"), [(None, [256_000, 512_000, 768_000]), (500_000, [256_000] + 2 * [500_000])]
)
def test_no_try_asks_for_more_memory_than_a_node_has(node: int | None, asked: list[int]) -> None:
    own = Site(train=Nodes(gpus=8), memory_per_gpu_node=node, memory_per_cpu_node=node)
    for said in (own.training("train")["mem_mb"], own.cpu_memory(256_000)):
        assert [eval(said, {"attempt": attempt}) for attempt in (1, 2, 3)] == asked


def test_several_nodes_are_one_setting() -> None:
    resources = Site(pretrain=Nodes(nodes=4, gpus=8)).training("pretrain")
    assert resources["nodes"] == resources["tasks"] == 4
    assert resources["mpi"] == "srun"
    assert resources["slurm_extra"] == "--ntasks-per-node=1 --exclusive"
    assert resources["tasks_per_gpu"] == 0


def test_a_cpu_job_is_charged_to_the_account() -> None:
    given = Site(account="vision", qos="high", cpu_partition="batch")
    assert given.defaults() == {
        "slurm_partition": "'batch'",
        "slurm_account": "'vision'",
        "qos": "'high'",
    }


def test_a_cluster_without_gpus_asks_for_none() -> None:
    assert "gres" not in Site(gpu=None).gpu_job(60)


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(site.VARIABLE, raising=False)
    assert site.read_site() == Site()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partition: a100", "partition: unknown key; did you mean gpu_partition? known here: "),
        ("train: {nodes: two}", "train.nodes: 'two' must be a whole number; "),
        ("train: {node: 2}", "train.node: unknown key; did you mean nodes? "),
        ("train: [", " is no YAML: "),
        ("gpu: gpu\nqos: a\ngpu: null", "gpu: stands 2 times in "),
        ("gpu: gpu:a100-sxm4-80gb", "not 'gpu:a100-sxm4-80gb'; name such GPUs by `constraint`"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_key(tmp_path, monkeypatch, text, message) -> None:
    with pytest.raises(SystemExit) as stopped:
        read(tmp_path, text, monkeypatch)
    assert message in str(stopped.value)


def test_a_file_in_another_encoding_is_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "site.yaml").write_bytes("account: müller".encode("latin-1"))
    monkeypatch.setenv(site.VARIABLE, str(tmp_path / "site.yaml"))
    with pytest.raises(SystemExit, match=r"site.yaml is not in UTF-8 .* Save it as such\."):
        site.read_site()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo a", "a job"),
        ("echo b\necho a # last\n", "b a job"),
        ("echo a; false", "a"),
        ("", "job"),
    ],
)
def test_what_runs_before_a_job_is_part_of_its_line(text: str, said: str) -> None:
    before = Site(before_job=text).precommand()
    command = f"{before} && echo job" if before else "echo job"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stdout.split() == said.split()


def test_a_file_that_is_named_but_not_there_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv(site.VARIABLE, "/nowhere/site.yaml")
    with pytest.raises(SystemExit, match=r"No such file or directory\. Correct SEMISUP_SITE"):
        site.read_site()


def test_nothing_of_a_site_is_in_the_configuration() -> None:
    assert not Site.model_fields.keys() & Config.model_fields.keys()


def plan(folder: Path, **values: object) -> dict[str, str]:
    """What Snakemake says of a job of each rule, on a site with these values."""
    (folder / "site.yaml").write_text(yaml.safe_dump(values))
    options = ["--profile", "slurm", "--dry-run", "--configfile", "tests/tiny.yaml"]
    with mock.patch.dict(os.environ, {site.VARIABLE: str(folder / "site.yaml")}):
        said = snakemake(folder, *options)
    return dict(re.findall(r"^rule (\w+):\n((?:    .*\n)+)", said, re.M))


def test_the_profile_gives_every_rule_what_the_site_says(tmp_path) -> None:
    nodes = {"nodes": 2, "gpus": 4, "hours": 3}
    rules = plan(tmp_path, gpu_partition="a100", gpu="gpu:a100", pretrain=nodes)
    for wanted in ("slurm_partition=a100", "gres=gpu:a100:4", "nodes=2", "ranks=4", "runtime=180"):
        assert wanted in rules["pretrain"]
    assert "slurm_extra=--ntasks-per-node=1 --exclusive" in rules["pretrain"]
    assert "slurm_partition=cpu" in rules["select"]
    assert "gres" not in rules["select"]
    assert all(
        "disk_mb=1000," in said for said in rules.values()
    )  # it would ask for each file's size


def test_the_profile_asks_for_no_more_memory_than_nodes_have(tmp_path) -> None:
    rules = plan(tmp_path, memory_per_gpu_node=5_000, memory_per_cpu_node=3_000)
    asked = {rule: re.findall(r"mem_mb=(\d+)", said) for rule, said in rules.items()}
    assert {asked[rule][0] for rule in ("train", "pretrain", "evaluate", "score_and_describe")} == {
        "5000"
    }
    on_cpus = ("select", "pack_selection", "find_copies", "index_shards")
    assert {asked[rule][0] for rule in on_cpus} == {"3000"}


def test_names_of_a_site_that_are_python_are_names(tmp_path) -> None:
    own = {"cpu_partition": "all", "gpu_partition": "2080", "account": "input", "constraint": "a&b"}
    rules = plan(tmp_path, **own)
    for wanted in ("slurm_partition=2080", "slurm_account=input", "constraint=a&b"):
        assert wanted in rules["train"]
    assert "slurm_partition=all" in rules["select"]


def test_what_is_tried_again_gets_more_time_unless_it_goes_on_where_it_was() -> None:
    loaded = yte.process_yaml((ROOT / "profiles/slurm/profile.v9+.yaml").read_text())
    goes_on = {"score_shards", "score_and_describe", "extract_features"}
    goes_on |= {"train", "pretrain", "finetune", "finetune_candidate"}
    for rule, own in loaded["set-resources"].items():
        runtime = own.get("runtime", loaded["default-resources"]["runtime"])
        assert ("attempt" in str(runtime)) == (rule not in goes_on), rule
        assert "attempt" in own["mem_mb"]

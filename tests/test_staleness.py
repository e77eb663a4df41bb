"""Dry-runs of a configuration that has every rule, after one thing has changed."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.settings.types import ResourceSettings

from dry_runs import Job, dry_run, touch
from semisup import settings, tars
from semisup.checks import load_config
from semisup.plan import Plan
from semisup.steps import index_shards
from small import ROOT
from staleness import CONFIG, EVERYTHING, ROWS, SELECT, UNLABELED, Row, list_keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is done: the index is real, other results are empty files."""
    folder = tmp_path_factory.mktemp("stale")
    names = ["labeled", "held-out", "test", *(f"unlabeled-{i}" for i in range(6))]
    for name in names:
        samples = [(f"{name}-{i}", {"jpg": b"x", "cls": b"1"}) for i in range(3)]
        tars.write_tar(folder / "data" / f"{name}.tar", samples)
    for name in ("given.pt", "other.pt", "reviewed.csv"):
        (folder / "data" / name).write_bytes(b"x")
    classes = {"photos": "ant bee cow", "other": "ant bee cow", "renamed": "ant bee dog"}
    for photos, names_ in classes.items():
        for name in names_.split():
            (folder / photos / name).mkdir(parents=True)
    config = yaml.safe_load(CONFIG)
    for job in dry_run(folder, config):
        for output in job.outputs:
            path = folder / output
            is_file = bool(path.suffix)
            (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
            if is_file:
                path.touch()
    index_own_tars(folder, config)
    touch(folder, config)
    assert dry_run(folder, config) == []
    return folder


def index_own_tars(folder: Path, config: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = Plan(load_config(config))
        for name in ("labeled", "held_out", "test", "unlabeled"):
            for part, manifest in enumerate(plan.manifests(name)):
                job = SimpleNamespace(dataset=name, part=f"{part:05d}")
                made = settings.IndexShards.model_validate_json(plan.index_shards(job))
                samples = Path(manifest.replace("manifest", "samples")).with_suffix(".parquet")
                index_shards.main(made, Path(manifest), samples)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    config = yaml.safe_load(CONFIG)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        if value is None:
            del section[last]
        else:
            section[last] = value
    return config


def rules(jobs: list[Job]) -> set[str]:
    return {job.rule for job in jobs}


def test_every_key_of_the_configuration_has_a_row() -> None:
    assert {row.key for row in ROWS} == set(list_keys())


def test_of_one_more_shard_of_u_its_part_alone_is_made(folder: Path) -> None:
    jobs = dry_run(folder, changed({"datasets.unlabeled.shards": "data/unlabeled-{0..5}.tar"}))
    for rule in ("index_shards", "extract_features", "find_duplicates", "score_shards"):
        parts = {job.wildcards["part"] for job in jobs if job.rule == rule}
        assert parts == {"00002"}, rule


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.key} {row.what}".strip())
def test_only_what_depends_on_a_key_runs_again(folder: Path, row: Row) -> None:
    jobs = dry_run(folder, changed(row.change))
    assert rules(jobs) == set(row.stale.split())
    for wildcard, names in row.only.items():
        found = {job.wildcards[wildcard] for job in jobs if wildcard in job.wildcards}
        assert found <= set(names.split()), wildcard


@pytest.fixture
def second_tar(folder: Path) -> Any:
    """A tar of the middle part of U, put back afterwards."""
    path = folder / "data/unlabeled-2.tar"
    content, stat = path.read_bytes(), path.stat()
    yield path
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_other_bytes_in_a_source_tar_make_its_part_stale_and_what_follows(
    folder: Path, second_tar: Path
) -> None:
    content = second_tar.read_bytes()
    second_tar.write_bytes(content.replace(b"unlabeled-2", b"unlabeled-9"))
    os.utime(second_tar, ns=(1, 10**18))
    jobs = dry_run(folder, changed({}))
    assert rules(jobs) == set(UNLABELED.split())
    indexed = [job.wildcards for job in jobs if job.rule in ("index_shards", "score_shards")]
    assert {job["part"] for job in indexed} == {"00001"}


def test_touched_source_tars_make_nothing_stale(folder: Path, second_tar: Path) -> None:
    os.utime(second_tar, ns=(1, 10**18))
    assert dry_run(folder, changed({})) == []


def test_touched_indexes_make_nothing_stale(folder: Path) -> None:
    for path in (folder / "results/datasets").rglob("manifest-*.json"):
        path.touch()
    assert dry_run(folder, changed({})) == []


def test_how_and_where_a_job_runs_makes_nothing_stale(folder: Path) -> None:
    """Everything a profile says of the rules: workers, nodes, GPUs, partitions, memory, time."""
    profiles = [yaml.safe_load(p.read_text()) for p in ROOT.glob("profiles/*/profile.v9+.yaml")]
    named = [name for profile in profiles for name in profile.get("set-resources", {})]
    how: dict[str, Any] = {"nodes": 4, "ranks": 8, "gres": "gpu:8", "slurm_partition": "large"}
    how |= {"mem_mb": 1234, "runtime": 5, "tasks": 4, "slurm_extra": "--exclusive", "mpi": "srun"}
    rules = {*named, *EVERYTHING.split()}
    resources = ResourceSettings(
        cores=99,
        overwrite_threads=dict.fromkeys(rules, 7),
        overwrite_resources=dict.fromkeys(rules, how),
    )
    assert dry_run(folder, changed({}), resources) == []


def test_paths_of_logs_and_benchmarks_make_nothing_stale(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for path in (tmp_path / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        text = text.replace("<results>/logs/", "<results>/journal/")
        path.write_text(text.replace("<results>/benchmarks/", "<results>/times/"))
    assert dry_run(folder, changed({}), snakefile=tmp_path / "Snakefile") == []


def test_another_version_of_a_step_makes_it_stale_and_what_follows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.Select, "canonical", lambda self: '{"version": 999}')
    assert rules(dry_run(folder, changed({}))) == set(SELECT.split())


def test_the_reason_of_a_job_names_the_key_and_both_values(folder: Path) -> None:
    jobs = dry_run(folder, changed({"selections.top.images_per_class": 8}))
    (reason,) = (job.reason for job in jobs if job.rule == "select")
    assert reason == "Params have changed since last execution: images_per_class: 9 → 8"

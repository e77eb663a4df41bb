"""Jobs that a killed Snakemake has left behind; the real ones are in tests/slurm."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

from semisup import orphans
from small import ROOT
from snakemakes import snakemake

MANIFEST = "results/datasets/labeled/manifest-00000.json"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lock, and a queue of a job of this folder and one of another."""
    lines = f"7|RUNNING|{tmp_path}|rule_train_wildcards_teacher\n8|PENDING|/elsewhere|a|b"
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\necho '{lines}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").touch()
    return tmp_path


def run_of(*numbers: str) -> SimpleNamespace:
    """A run that would make what these jobs were submitted for."""
    dag = SimpleNamespace(needrun_jobs=lambda: numbers)
    return SimpleNamespace(
        dag=dag, persistence=SimpleNamespace(external_jobids=lambda job: [job] if job else [])
    )


def test_the_jobs_of_a_locked_folder_are_named(queue: Path) -> None:
    said = orphans.left_behind(str(queue))
    assert "in the queue:\n  7 RUNNING rule_train_wildcards_teacher\nIf" in said
    assert "`scancel 7`, then `snakemake --unlock`, and start again." in said


def test_a_folder_without_a_lock_has_no_run(queue: Path) -> None:
    (queue / ".snakemake" / "locks" / "0.input.lock").unlink()
    assert orphans.left_behind(str(queue)) == ""


def test_a_run_that_would_double_a_job_is_refused(queue: Path) -> None:
    with pytest.raises(WorkflowError, match=r"  7 RUNNING rule_train_.*\n.*`scancel 7`; then"):
        orphans.refuse_doubles(run_of("7", "6", ""))


def test_a_run_whose_jobs_have_ended_or_never_were_goes_on(queue: Path) -> None:
    orphans.refuse_doubles(run_of("6"))
    orphans.refuse_doubles(run_of(""))


def test_what_a_job_made_without_its_snakemake_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is written by the Snakemake that submitted it: without, no change would be seen."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    config = ["--configfile", str(ROOT / "tests/tiny.yaml")]

    def run(*arguments: str) -> str:
        return snakemake(tmp_path, *config, *arguments, "--", MANIFEST)

    run("--mode", "remote", "--nolock")  # as the job itself runs it
    assert (tmp_path / MANIFEST).exists()
    marks = FilePersistence(path=tmp_path / ".snakemake")
    assert marks._get_external_jobids([MANIFEST]) == {"7"}
    assert "rule index_shards:" in run("--dry-run", "--rerun-incomplete")
    run("--rerun-incomplete")
    assert "Nothing to be done" in run("--dry-run")

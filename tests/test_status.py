"""Where a run is, read from its files."""

import os
import time
from pathlib import Path

import pytest
from snakemake.persistence.file import FilePersistence

from semisup.questions import status
from semisup.questions.status import Found, Job
from small import ROOT

SUMMARY = """output_file\tdate\trule\tlog-file(s)\tstatus\tplan
scores/part-0\tMon\tscore_shards\tlogs/0.log\tok\tno update
scores/images-0\tMon\tscore_shards\tlogs/0.log\tok\tno update
scores/part-1\t-\tscore_shards\t-\tmissing\tupdate pending
""".splitlines()

PLAN = """
[Sat Nov 21 13:00:00 2026]
rule score_shards:
    input: a, b
    output: scores/part-1, scores/images-1
    log: logs/1.log
    jobid: 3

rule all:
    input: scores/part-1
""".splitlines()

LINE = "13:02:20 score 7,296/40,000 images  18%  1,436 images/s  23 s left  loss 0.016"


def look(folder: Path, text: str, job: Job | None = None, age: float = 0) -> Found:
    log = folder / "job.log"
    log.write_text(text)
    os.utime(log, (time.time() - age,) * 2)
    return status.look(job or Job("score_shards", "job.log", False, False), folder, time.time())


def test_a_job_with_several_outputs_is_one_job() -> None:
    assert status.finished_jobs(SUMMARY) == [Job("score_shards", "logs/0.log", True, True)]


def test_a_job_of_a_dry_run_is_to_be_done(tmp_path) -> None:
    assert status.jobs_to_run(PLAN, tmp_path) == [Job("score_shards", "logs/1.log", False, False)]


def test_a_job_that_says_something_is_running(tmp_path) -> None:
    assert look(tmp_path, LINE) == Found("running", 7296, 40_000, 1436.0)


def test_a_job_without_a_log_waits(tmp_path) -> None:
    assert status.look(Job("select", "no.log", False, False), tmp_path, 0.0) == Found("waiting")


def test_a_job_whose_results_are_stale_waits(tmp_path) -> None:
    assert look(tmp_path, LINE, Job("score_shards", "job.log", False, True)).state == "waiting"


def test_an_error_is_shown_with_its_remedy(tmp_path) -> None:
    found = look(tmp_path, f"{LINE}\nerror: a.tar: it is gone.\nRestore it.\n")
    assert (found.state, found.error) == ("failed", "a.tar: it is gone. Restore it.")


def test_of_a_traceback_the_last_line_is_shown(tmp_path) -> None:
    found = look(tmp_path, "Traceback (most recent call last):\n  File\nMemoryError: 3 GB")
    assert (found.state, found.error) == ("failed", "MemoryError: 3 GB")


TORCHRUN = """E1121 20:06:49 torch/distributed/elastic/api.py:1002] failed (exitcode: 1) local_rank: 1
Traceback (most recent call last):
  File "torch/distributed/run.py", line 1129, in run
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""
"""What it says when a rank has failed."""


def test_of_several_ranks_the_one_that_failed_is_quoted(tmp_path) -> None:
    ranks = f"[default0]:{LINE}\n[default1]:error: a.tar: it is gone.\n[default0]:{LINE}\n"
    found = look(tmp_path, f"{ranks}[default1]:Restore it.\n{TORCHRUN}")
    assert (found.state, found.error) == ("failed", "a.tar: it is gone. Restore it.")


def test_of_several_ranks_the_traceback_is_not_that_of_torchrun(tmp_path) -> None:
    said = ["Traceback (most recent call last):", "  File", "MemoryError: 3 GB"]
    rank = "".join(f"[default3]:[rank3]: {line}\n" for line in said)
    found = look(tmp_path, f"[default0]:{LINE}\n{rank}[default3]:{LINE}\n{TORCHRUN}")
    assert (found.state, found.error) == ("failed", "MemoryError: 3 GB")


def test_a_job_that_is_silent_may_still_run(tmp_path) -> None:
    found = look(tmp_path, LINE, age=3600)
    assert found.state == "silent"
    assert found.error.startswith("silent for 60 minutes; the last was: 13:02:20 score 7,296")


SUBMITTED = """[Sat Nov 21 20:17:43 2026]
rule train:
    input: a, b
    output: weights
    log: logs/train.log
"""
FAILED = f"""[Sat Nov 21 20:18:03 2026]
Error in rule train:
    message: SLURM-job '4' failed, SLURM status is: 'OUT_OF_MEMORY'. Detailed failure reason unavailable
    input: a, b
    log: logs/train.log, /slurm_logs/4.log (check log file(s) for error details)
Logfile /slurm_logs/4.log:
{status.QUOTE}
{SUBMITTED}
Error in rule train:
    message: None
    log: logs/train.log (check log file(s) for error details)
{status.QUOTE}
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SUBMITTED, ""),
        (SUBMITTED + FAILED, "SLURM-job '4' failed, SLURM status is: 'OUT_OF_MEMORY'."),
        (SUBMITTED + FAILED + SUBMITTED, ""),
    ],
)
def test_what_slurm_ended_is_known_from_snakemakes_log(tmp_path, text: str, error: str) -> None:
    logs = tmp_path / ".snakemake" / "log"
    logs.mkdir(parents=True)
    (logs / "2026-11-20T201642.923797.snakemake.log").write_text(FAILED.replace("'4'", "'3'"))
    (logs / "2026-11-21T201642.923797.snakemake.log").write_text(text)
    assert status.read_errors(tmp_path) == {"logs/train.log": error}


def test_a_job_that_slurm_refused_failed_without_a_log(tmp_path) -> None:
    found = status.look(Job("train", "no.log", False, False), tmp_path, 0.0, "sbatch failed")
    assert found == Found("failed", error="sbatch failed")


def test_a_job_between_its_first_output_and_its_end_is_to_be_done(tmp_path, monkeypatch) -> None:
    """Snakemake has marked what it makes as incomplete, and refuses to plan with it."""
    monkeypatch.chdir(ROOT)
    output = "results/datasets/labeled/manifest-00000.json"
    (tmp_path / output).parent.mkdir(parents=True)
    (tmp_path / output).write_text("{}")
    FilePersistence(path=tmp_path / ".snakemake")._mark_incomplete(output, "7")
    jobs = status.ask_snakemake("tests/tiny.yaml", str(tmp_path))
    log = "results/logs/index_shards/labeled/00000.log"
    assert [job.done for job in jobs if job.log == log] == [False]


def test_the_table_sums_parts_and_tells_the_time_left() -> None:
    jobs = [Job("score_shards", "", done, done) for done in (True, False, False)]
    found = [Found("done", 100, 100), Found("running", 20, 100, 10.0), Found("waiting")]
    line = status.table(jobs, found).splitlines()[1].split()
    assert line == ["score_shards", "1", "1", "0", "0", "1", "120/~300", "10", "18", "s"]


@pytest.mark.parametrize("failed", [1, 25])
def test_failures_are_listed_and_the_rest_counted(failed: int) -> None:
    said = status.failures(
        [Job("train", f"logs/{i}.log", False, False) for i in range(failed)],
        [Found("failed", error="loss is nan")] * failed,
    )
    assert "train: loss is nan\n  logs/0.log\n" in said
    assert ("and 5 more failed or silent jobs" in said) == (failed == 25)

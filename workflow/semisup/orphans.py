"""Slurm jobs that a killed Snakemake has left behind: no other may double them, or trust what they made.

Snakemake knows neither of them (snakemake-executor-plugin-slurm issue 109) nor of what becomes of them.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

from semisup import slurm

MAX_LISTED = 20

Waiting = dict[str, tuple[str, str, str]]
"""Jobs in the queue, by number: state, folder, and what they make."""


def leave_marks() -> None:
    """Let a job's own Snakemake leave the mark that its outputs are incomplete, with the job's number.

    It would forget the number (Snakemake issue 762), and remove the mark without a record of how they were
    made, for the Snakemake that submitted it to write. Where that one is gone, results without a record
    would count as up to date for ever. With the mark they are made again, from what the job has left.
    """
    mark = FilePersistence._mark_incomplete
    number = slurm.job_id() or None
    FilePersistence._mark_incomplete = lambda self, key, _: mark(self, key, number)
    FilePersistence._unmark_incomplete = lambda self, key: None


def left_behind(folder: str) -> str:
    """What to do about the jobs of the run that holds this folder; empty where there are none.

    Snakemake says only that the folder is locked.
    """
    if not any(Path(folder, ".snakemake", "locks").glob("*")):
        return ""
    here = os.path.realpath(folder)
    jobs = {number: job for number, job in waiting().items() if os.path.realpath(job[1]) == here}
    if not jobs:
        return ""
    return (
        f"A run holds this folder, with these jobs in the queue:\n{_list(jobs)}"
        f"If that run was killed: `{_cancel(jobs)}, then `snakemake --unlock`, and start again. "
        "Trainings go on at their checkpoints."
    )


def refuse_doubles(workflow: Any) -> None:
    """Raises WorkflowError while jobs of a killed run make what this one would."""
    numbers = {
        number
        for job in workflow.dag.needrun_jobs()
        for number in workflow.persistence.external_jobids(job)
    }
    queue = waiting() if numbers else {}
    jobs = {number: job for number, job in queue.items() if number in numbers}
    if jobs:
        raise WorkflowError(
            f"Jobs of a run that was killed are in the queue, and make what this one would:\n{_list(jobs)}"
            f"Let them end, or `{_cancel(jobs)}; then start again. Nothing they made is lost."
        )


def waiting() -> Waiting:
    """This user's jobs that run or wait."""
    if not shutil.which("squeue"):
        return {}
    try:
        said = slurm.ask("squeue", "--me", "-h", "-t", "PD,R,CF,S", "-o", "%i|%T|%Z|%k")
    except slurm.SlurmError:
        return {}
    jobs = [line.split("|", 3) for line in said.splitlines()]
    return {number: (state, where, what) for number, state, where, what in jobs}


def _list(jobs: Waiting) -> str:
    shown = list(jobs.items())[:MAX_LISTED]
    return "".join(f"  {number} {state} {what}\n" for number, (state, _, what) in shown)


def _cancel(jobs: Waiting) -> str:
    more = f" and {len(jobs) - MAX_LISTED} more" if len(jobs) > MAX_LISTED else ""
    return f"scancel {' '.join(list(jobs)[:MAX_LISTED])}`{more}"

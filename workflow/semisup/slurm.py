"""The Slurm job this process runs in, if any: its nodes, its time, its place in the queue.

Slurm is asked, as the executor removes the variables that would tell.
"""

import os
import re
import subprocess


class SlurmError(Exception):
    """Slurm refused, in its own words."""


def job_id() -> str:
    """Empty outside of a job."""
    return os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often this job was queued again under its number; 0 outside of a job or if Slurm is silent."""
    if not job_id():
        return 0
    try:
        found = re.search(r"\bRestarts=(\d+)", ask("scontrol", "show", "job", "-o", job_id()))
    except SlurmError:
        return 0
    return int(found[1]) if found else 0


def node_names() -> list[str]:
    """The nodes of this job, first the one its script runs on. Raises SlurmError."""
    return ask(
        "scontrol", "show", "hostnames", ask("squeue", "-h", "-j", job_id(), "-o", "%N")
    ).split()


def seconds_left() -> float | None:
    """Until the time limit of this job; None outside of a job or without a limit."""
    if not job_id():
        return None
    try:
        return parse_time(ask("squeue", "-h", "-j", job_id(), "-o", "%L"))
    except SlurmError:
        return None


def parse_time(text: str) -> float | None:
    """Seconds of Slurm's `days-hours:minutes:seconds`; None of `UNLIMITED`, `NOT_SET`."""
    if not (match := re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)):
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def requeue() -> None:
    """End this job and queue it again under the same number. Raises SlurmError."""
    ask("scontrol", "requeue", job_id())


def ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not there") from None
    if done.returncode:
        raise SlurmError(f"{' '.join(command)} says: {done.stderr.strip()}")
    return done.stdout.strip()

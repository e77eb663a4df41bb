"""Where a run is: `make status`. Read from the files alone, while Snakemake runs and after."""

import argparse
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from semisup.progress import duration

SILENT_SECONDS = 600
"""A log that says nothing for so long is that of a job that was killed."""

TAIL = 65_536
RANK = re.compile(r"(?:\[\w+?\d+\]: ?)+")
"""What torchrun puts before each line of a rank, and PyTorch before those of a traceback."""

MAX_FAILURES = 20
PROGRESS = re.compile(r" ([\d,]+)/([\d,]+) images .*? ([\d,]+) images/s")
STATES = ("done", "running", "failed", "waiting")


class Job(NamedTuple):
    """What Snakemake says of a job. ``present``: it has results; they are stale if it is not done."""

    rule: str
    log: str
    done: bool
    present: bool


class Found(NamedTuple):
    """What a log says. ``images``: of ``total``, at ``rate`` a second; all 0 where there are none."""

    state: str
    images: int = 0
    total: int = 0
    rate: float = 0.0
    error: str = ""


def main(configfile: str, folder: str) -> None:
    jobs = ask_snakemake(configfile, folder)
    found = [look(job, Path(folder), time.time()) for job in jobs]
    print(table(jobs, found))
    print(failures(jobs, found), end="")


def ask_snakemake(configfile: str, folder: str) -> list[Job]:
    """All jobs of the configuration. Ends the program if it is wrong."""
    where = ["--configfile", configfile, "--directory", folder]
    asked = [
        subprocess.Popen(
            ["snakemake", how, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for how in ("--summary", "--dry-run")
    ]
    (summary, _), (plan, problem) = [each.communicate() for each in asked]
    if any(each.returncode for each in asked):
        sys.exit(problem.strip())
    return [*finished_jobs(summary.splitlines()), *jobs_to_run(plan.splitlines(), Path(folder))]


def finished_jobs(summary: list[str]) -> list[Job]:
    """Of a summary, which has a line for each output file, the jobs that need not run."""
    lines = [line.split("\t") for line in summary[1:]]
    done = dict.fromkeys((rule, log) for _, _, rule, log, _, plan in lines if plan == "no update")
    return [Job(rule, log, True, True) for rule, log in done]


def jobs_to_run(plan: list[str], folder: Path) -> list[Job]:
    """Of a dry-run, its jobs."""
    jobs, rule, outputs = [], "", list[str]()
    for line in plan:
        if match := re.fullmatch(r"rule (\w+):", line):
            rule = match[1]
        elif line.startswith("    output: "):
            outputs = line.removeprefix("    output: ").split(", ")
        elif line.startswith("    log: ") and rule:
            present = all((folder / path).exists() for path in outputs)
            jobs.append(Job(rule, line.removeprefix("    log: "), False, present))
    return jobs


def look(job: Job, folder: Path, now: float) -> Found:
    """The state of a job and how far it is, from its log."""
    path = folder / job.log
    try:
        modified = path.stat().st_mtime
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - TAIL, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return Found("done" if job.done else "waiting")
    numbers = [match.groups() for line in lines if (match := PROGRESS.search(line))]
    images, total, rate = (int(n.replace(",", "")) for n in (numbers or [("0", "0", "0")])[-1])
    if job.done:
        return Found("done", images, total)
    if job.present:
        return Found("waiting", 0, total)  # there is a result, but another one is wanted
    if error := find_error(lines):
        return Found("failed", images, total, error=error)
    if now - modified > SILENT_SECONDS:
        last = lines[-1] if lines else "nothing"
        return Found("failed", images, total, error=f"ended without a word; the last was: {last}")
    return Found("running", images, total, rate)


def find_error(lines: list[str]) -> str:
    """The message of a step that failed, or the last line of a traceback; empty if there is none.

    Of several ranks, their own words: torchrun, which has the last one, does not know why they ended.
    """
    of_ranks = defaultdict[str, list[str]](list)
    for line in lines:
        rank = match[0] if (match := RANK.match(line)) else ""
        of_ranks[rank.strip()].append(line.removeprefix(rank))
    torchrun_last = [own for _, own in sorted(of_ranks.items(), key=lambda item: not item[0])]
    for own in torchrun_last:
        if starts := [i for i, line in enumerate(own) if line.startswith("error: ")]:
            return " ".join(own[starts[-1] :]).removeprefix("error: ")
    for own in torchrun_last:
        if any(line.startswith("Traceback ") for line in own):
            return own[-1]
    return ""


def table(jobs: list[Job], found: list[Found]) -> str:
    """A line for each rule: jobs by state, images, images a second, time left."""
    by_rule = defaultdict(list)
    for job, each in zip(jobs, found, strict=True):
        by_rule[job.rule].append(each)
    head = (
        f"{'':20}" + "".join(f"{state:>9}" for state in STATES) + f"{'images':>28}{'images/s':>10}"
    )
    lines = [f"{head}  left"]
    for rule, own in by_rule.items():
        counts = "".join(f"{sum(each.state == state for each in own):9,}" for state in STATES)
        lines.append(f"{rule:20}{counts}{_images(own)}".rstrip())
    return "\n".join(lines)


def _images(own: list[Found]) -> str:
    known = [each.total for each in own if each.total]
    if not known:
        return ""
    images, rate = sum(each.images for each in own), sum(each.rate for each in own)
    total = round(sum(known) / len(known) * len(own))  # of jobs that wait, none has counted
    about = "~" if len(known) < len(own) else ""
    text = f"{f'{images:,}/{about}{total:,}':>28}"
    return text + (f"{rate:10,.0f}  {duration((total - images) / rate)}" if rate else "")


def failures(jobs: list[Job], found: list[Found]) -> str:
    """What each failed job said last, and where it says more."""
    failed = [(j, f) for j, f in zip(jobs, found, strict=True) if f.state == "failed"]
    lines = [f"\n{job.rule}: {each.error}\n  {job.log}\n" for job, each in failed[:MAX_FAILURES]]
    more = len(failed) - MAX_FAILURES
    return "".join(lines) + (f"\nand {more:,} more failed jobs\n" if more > 0 else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", default="config.yaml")
    parser.add_argument("--directory", default=".")
    given = parser.parse_args()
    main(given.configfile, given.directory)

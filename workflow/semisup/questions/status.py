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
"""A log that says nothing for so long is worth a look: nobody may be left to write it."""

TAIL = 65_536
RANK = re.compile(r"(?:\[\w+?\d+\]: ?)+")
"""What torchrun puts before each line of a rank, and PyTorch before those of a traceback."""

MAX_FAILURES = 20
PROGRESS = re.compile(r" ([\d,]+)/([\d,]+) images .*? ([\d,]+) images/s")
STATES = ("done", "running", "silent", "failed", "waiting")
QUOTE = "=" * 80
"""Around a log that Snakemake's own quotes."""


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
    errors = read_errors(Path(folder))
    found = [look(job, Path(folder), time.time(), errors.get(job.log, "")) for job in jobs]
    print(table(jobs, found))
    print(failures(jobs, found), end="")


def ask_snakemake(configfile: str, folder: str) -> list[Job]:
    """All jobs of the configuration. Ends the program if it is wrong."""
    where = ["--configfile", configfile, "--directory", folder]
    asked = [
        subprocess.Popen(
            ["snakemake", *how, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for how in (["--summary"], ["--dry-run", "--rerun-incomplete"])
    ]
    (summary, _), (plan, problem) = [each.communicate() for each in asked]
    if any(each.returncode for each in asked):
        sys.exit(problem.strip())
    to_run = jobs_to_run(plan.splitlines(), Path(folder))
    wanted = {(job.rule, job.log) for job in to_run}  # some have outputs, which are incomplete
    finished = finished_jobs(summary.splitlines())
    return [*(job for job in finished if (job.rule, job.log) not in wanted), *to_run]


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


def read_errors(folder: Path) -> dict[str, str]:
    """Why jobs failed that were not started again, by their log, as the newest run of Snakemake says.

    It knows of those that Slurm refused or ended, of which their own logs say nothing.
    """
    logs = sorted(folder.glob(".snakemake/log/*.snakemake.log"))
    errors, message, quoted = dict[str, str](), "", False
    for line in logs[-1].read_text(errors="replace").splitlines() if logs else []:
        quoted ^= line == QUOTE
        if quoted:
            continue
        if re.match(r"(local)?rule \w+:|Error in rule", line):
            message = ""
        elif line.startswith("    message: "):
            message = line.removeprefix("    message: ").split("Detailed failure reason")[0].strip()
        elif line.startswith("    log: "):
            log = re.split(", | \\(check log", line.removeprefix("    log: "))[0]
            errors[log] = message  # empty where the job has been started
    return errors


def look(job: Job, folder: Path, now: float, error: str = "") -> Found:
    """The state of a job and how far it is, from its log. ``error``: what Snakemake says of it."""
    path = folder / job.log
    try:
        modified = path.stat().st_mtime
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - TAIL, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        state = "done" if job.done else "failed" if error else "waiting"
        return Found(state, error=error)
    numbers = [match.groups() for line in lines if (match := PROGRESS.search(line))]
    images, total, rate = (int(n.replace(",", "")) for n in (numbers or [("0", "0", "0")])[-1])
    if job.done:
        return Found("done", images, total)
    if job.present:
        return Found("waiting", 0, total)  # there is a result, but another one is wanted
    if error := find_error(lines) or error:
        return Found("failed", images, total, error=error)
    if (silent := now - modified) > SILENT_SECONDS:
        last = lines[-1] if lines else "nothing"
        note = f"silent for {silent // 60:.0f} minutes; the last was: {last}"
        return Found("silent", images, total, error=note)
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
    """What each job that failed or is silent said last, and where it says more."""
    told = [(j, f) for j, f in zip(jobs, found, strict=True) if f.state in ("failed", "silent")]
    lines = [f"\n{job.rule}: {each.error}\n  {job.log}\n" for job, each in told[:MAX_FAILURES]]
    more = len(told) - MAX_FAILURES
    return "".join(lines) + (f"\nand {more:,} more failed or silent jobs\n" if more > 0 else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", default="config.yaml")
    parser.add_argument("--directory", default=".")
    given = parser.parse_args()
    main(given.configfile, given.directory)

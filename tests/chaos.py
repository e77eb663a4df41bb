"""Kill processes at random moments and compare the end with a calm run: `make chaos`.

    python tests/chaos.py FOLDER [--config FILE] [--kills 30] [--seed 0] [--short]

Every stage in turn is waited for, and at a random moment of the time it took in the calm run SIGKILL
goes to one of: the step, one of its workers (of a loader or of packing) or ranks where the calm run
had any, Snakemake alone (its jobs go on as orphans), everything. Then Snakemake is started again.
With root, the disk is also full in stage after stage (a small tmpfs that grows), and folders become
read-only while something is written there. In the end every table, tar and weight must have the
bytes of the calm run, and no temporary file may be left. The seed chooses stages' victims and
moments; what a moment meets is up to the machine.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

ROOT = Path(__file__).parents[1]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
VICTIMS = ["step", "worker", "snakemake", "everything"]
UNCOMPARED = {"logs", "benchmarks", "checkpoints", "work"}
LONGEST_RUN = 1800.0
SHORT = ["train", "score_shards", "select", "pack_selection", "pretrain", "finetune"]
"""The stages of the short form."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Kill(NamedTuple):
    stage: str
    victim: str
    outcome: str


class Found(NamedTuple):
    """A process of a step: the step itself, or its worker or rank."""

    process: psutil.Process
    stage: str
    role: str


Seconds = dict[tuple[str, str], float]
"""How long processes of a stage and role lived, at most."""


def command(*options: str) -> list[str]:
    own = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--nolock"]
    how = ["--cores", "2", "--rerun-incomplete", "--set-resources", "pretrain:ranks=2"]
    return [SNAKEMAKE, *own, *how, *options]


def start(folder: Path, *options: str) -> psutil.Popen:
    """Snakemake on the configuration in a folder, as the leader of a session of its own."""
    with open(folder.with_suffix(".log"), "a") as log:
        return psutil.Popen(
            command(*options), stdout=log, stderr=log, start_new_session=True, cwd=folder,
            env=ENVIRONMENT,
        )  # fmt: skip


def finish(folder: Path) -> int:
    process = start(folder)
    return int(process.wait(LONGEST_RUN))


def watch(folder: Path) -> tuple[int, Seconds]:
    """Run to the end; the exit code, and how long processes of each stage and role lived."""
    snakemake = start(folder)
    seconds: Seconds = {}
    while (code := snakemake.poll()) is None:
        for process, stage, role in processes(folder):
            with contextlib.suppress(psutil.Error):
                age = time.time() - process.create_time()
                seconds[stage, role] = max(age, seconds.get((stage, role), 0.0))
        time.sleep(0.05)
    return code, seconds


def processes(folder: Path) -> list[Found]:
    """The processes of steps that run in a folder, orphans too."""
    stages: dict[psutil.Process, str] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and (stage := stage_of(process.cmdline())):
                stages[process] = stage
    return [Found(process, stage, role(process, stages)) for process, stage in stages.items()]


def role(process: psutil.Process, steps: Container[psutil.Process | None]) -> str:
    """A child of a step is a worker, or a rank if the step is its launcher."""
    with contextlib.suppress(psutil.Error):
        return "worker" if process.parent() in steps else "step"
    return "step"


def stage_of(command: list[str]) -> str:
    """The rule of a step's command; empty when it is none."""
    steps = [word for word in command if word.startswith("semisup.steps.")]
    if not steps or "-c" in command:
        return ""
    step = steps[0].removeprefix("semisup.steps.")
    options = dict(itertools.pairwise(command))
    if step == "train":
        folder = Path(options["--weights"]).parent
        return "finetune_candidate" if folder.name.startswith("base_lr") else folder.name
    if step == "evaluate" and "models" in Path(options["--evaluations"]).parts:
        return "evaluate_candidate"
    return step


def strike(folder: Path, stage: str, victim: str, delay: float, *options: str) -> Kill:
    """Start Snakemake, wait for the victim, then for a moment; kill; wait until Snakemake has ended."""
    awaited = "worker" if victim == "worker" else "step"
    snakemake = start(folder, *options)
    while not (here := of_stage(folder, stage, awaited)) and snakemake.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    here = of_stage(folder, stage, awaited)
    if not here:
        stage, victim = "between stages", "everything"
    if victim == "everything":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(snakemake.pid, signal.SIGKILL)
        end(folder)
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice([snakemake] if victim == "snakemake" else here).kill()
    return Kill(stage, victim, "killed" if snakemake.wait(LONGEST_RUN) else "had ended")


def of_stage(folder: Path, stage: str, role: str) -> list[psutil.Process]:
    found = processes(folder)
    return [each.process for each in found if (each.stage, each.role) == (stage, role)]


def end(folder: Path) -> None:
    for found in processes(folder):
        with contextlib.suppress(psutil.Error):
            found.process.kill()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be created, renamed or removed in it, even by root where chattr works."""
    folder.chmod(0o555)
    locked = os.geteuid() == 0 and subprocess.run(["chattr", "+i", folder]).returncode == 0
    yield
    if locked:
        subprocess.run(["chattr", "-i", folder], check=True)
    folder.chmod(0o755)


def lock_folders(folder: Path, kills: list[Kill], stages: list[str]) -> None:
    """The output of some stages becomes read-only while they run."""
    (scoring,) = (stage for stage in stages if stage.startswith("score_"))
    for stage, output in ((scoring, "scores/teacher/unlabeled"), ("select", "selections/top")):
        results = folder / "results" / output
        for path in [p for p in results.glob("*") if p.is_file()]:
            path.unlink()
        snakemake = start(folder)
        while snakemake.poll() is None and not of_stage(folder, stage, "step"):
            time.sleep(0.05)
        with read_only(results):
            code = snakemake.wait(LONGEST_RUN)
        kills.append(Kill(stage, "read-only", "failed" if code else "passed over"))
        print(*kills[-1], flush=True)


def fill_disk(folder: Path, kills: list[Kill]) -> None:
    """The folder is a tmpfs that is full, in stage after stage, until it is large enough."""
    calm = folder.parent / "calm"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "chaos", folder], check=True)
    (folder / "config.yaml").write_bytes((calm / "config.yaml").read_bytes())
    whole = sum(path.stat().st_size for path in calm.rglob("*") if path.is_file()) // 1024
    for share in (0.3, 0.8, 0.9, 1.0, 1.1, 10):  # a file takes whole pages
        kilobytes = round(share * whole)
        remount = ["mount", "-o", f"remount,size={kilobytes}k", folder]
        subprocess.run(remount, check=True)
        log = folder.with_suffix(".log")
        log.touch()
        offset = len(log.read_text())
        code = finish(folder)
        said = log.read_text()[offset:]
        rules = re.findall(r"^Error in rule (\w+)", said, re.M)
        stage = rules[-1] if rules else "the end"
        kills.append(Kill(stage, f"full at {share:.0%}", "failed" if code else "done"))
        print(*kills[-1], flush=True)


def digests(folder: Path) -> dict[str, str]:
    """Of everything produced but logs, times and what only speeds up a second run."""
    results = folder / "results"
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.is_file() and not UNCOMPARED & set(path.relative_to(results).parts)
        and path.name not in ("report.html", "last.parquet", "changes.parquet")
        and "logs" not in path.parent.parts
    }  # fmt: skip


def compare(calm: dict[str, str], folder: Path) -> list[str]:
    """What differs from the calm run, and temporary files."""
    found = digests(folder)
    wrong = [f"{name}: differs" for name in calm if name in found and found[name] != calm[name]]
    wrong += [f"{name}: missing" for name in calm.keys() - found.keys()]
    wrong += [f"{name}: not in the calm run" for name in found.keys() - calm.keys()]
    return wrong + [f"{path}: left over" for path in (folder / "results").rglob("*.tmp")]


def short(config: dict[str, Any]) -> dict[str, Any]:
    """Without what makes the run long: duplicates, the baseline, the sweep, parts of U."""
    del config["duplicates"], config["models"]["baseline"]
    del config["models"]["student"]["finetune"]["sweep"], config["datasets"]["validation"]
    config["datasets"]["unlabeled"]["shards_per_part"] = 10
    return config


def storm(
    folder: Path, num_kills: int, stages: list[str], seconds: Seconds, seed: int
) -> list[Kill]:
    """At least ``num_kills`` kills, as evenly over the stages as they can be met.

    ``seconds``: of the calm run. Stages run beside each other, and some are over soon: those that
    were not met run again, the last ones first.
    """
    chance = random.Random(seed)
    kills: list[Kill] = []

    def strike_at(stage: str, attempt: int, *options: str) -> None:
        struck = Counter(kill.victim for kill in kills)
        victims = [v for v in VICTIMS if v != "worker" or (stage, v) in seconds]
        victim = min(victims, key=lambda each: (struck[each], chance.random()))
        lived = seconds.get((stage, "worker" if victim == "worker" else "step"), 1.0)
        delay = chance.uniform(0, lived / 2**attempt)  # what was missed was over sooner
        kills.append(strike(folder, stage, victim, delay, *options))
        print(*kills[-1], flush=True)

    def num_killed(stage: str | None = None) -> int:
        return sum(kill.outcome == "killed" and stage in (None, kill.stage) for kill in kills)

    for place, stage in enumerate(stages):
        wanted = -(-max(num_kills - num_killed(), 0) // (len(stages) - place))
        for _ in range(wanted):
            if stage in pending(folder):
                strike_at(stage, 0)
    for stage in reversed(stages):
        for attempt in range(4):
            missed = num_kills > len(stages) and not num_killed(stage)
            if missed or num_killed() < num_kills:
                strike_at(stage, attempt, "--forcerun", stage)
    return kills


def pending(folder: Path) -> list[str]:
    """The rules that Snakemake would run, in their order."""
    done = subprocess.run(command("-n"), cwd=folder, capture_output=True, text=True, check=True)
    rules = re.findall(r"^(\w+) +\d+$", done.stdout, re.M)
    return [rule for rule in dict.fromkeys(rules) if rule not in ("all", "total")]


def table(kills: list[Kill]) -> str:
    counts = Counter((kill.stage, kill.victim, kill.outcome) for kill in kills)
    lines = [
        f"{stage:20} {victim:18} {outcome:16} {n}" for (stage, victim, outcome), n in counts.items()
    ]
    return "\n".join([f"{'stage':20} {'what happened':18} {'outcome':16} times", *lines])


def main(folder: Path, config: Path, num_kills: int, seed: int, is_short: bool) -> list[str]:
    """Calm, storm, full disk; prints the table and returns what is wrong."""
    folder = folder.resolve()
    random.seed(seed)
    raw = yaml.safe_load(config.read_text())
    raw = short(raw) if is_short else raw
    for name in ("calm", "storm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.yaml").write_text(yaml.safe_dump(raw))
    print("the calm run", flush=True)
    code, seconds = watch(folder / "calm")
    if code:
        return [f"the calm run failed: see {folder / 'calm.log'}"]
    calm = digests(folder / "calm")
    stages = SHORT if is_short else pending(folder / "storm")
    kills = storm(folder / "storm", num_kills, stages, seconds, seed)
    killed = sum(kill.outcome == "killed" for kill in kills)
    if not is_short:
        lock_folders(folder / "storm", kills, stages)
    wrong = [] if finish(folder / "storm") == 0 else ["the last run failed"]
    wrong += compare(calm, folder / "storm")
    if not is_short and os.geteuid() == 0:
        try:
            fill_disk(folder / "full", kills)
            wrong += [f"full disk: {each}" for each in compare(calm, folder / "full")]
        finally:
            subprocess.run(["umount", "--lazy", folder / "full"])
    print(table(kills))
    print(f"seed {seed}: {killed} kills, {len(calm)} files compared, {len(wrong)} wrong")
    return wrong + ([f"only {killed} kills"] if killed < num_kills else [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if problems := main(given.folder, given.config, given.kills, given.seed, given.short):
        sys.exit("\n".join(problems))

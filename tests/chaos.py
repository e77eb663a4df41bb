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
import fcntl
import hashlib
import itertools
import os
import random
import re
import signal
import struct
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
GET_FLAGS, SET_FLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IMMUTABLE_FL of Linux."""
SHORT = ["train", "score_shards", "select", "pack_selection", "pretrain"]
"""The stages of the short form, which ends with the last of them."""
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


def finish(folder: Path, *options: str) -> int:
    process = start(folder, *options)
    return int(process.wait(LONGEST_RUN))


def watch(folder: Path, *options: str) -> tuple[int, Seconds]:
    """Run to the end; the exit code, and how long processes of each stage and role lived."""
    snakemake = start(folder, *options)
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


def strike(folder: Path, snakemake: psutil.Popen, stage: str, victim: str, delay: float) -> str:
    """Wait for the victim, then for a moment; kill. Else the victim was ``gone``, or ``never`` there."""
    role = "worker" if victim == "worker" else "step"
    while not (here := of_stage(folder, stage, role)) and of_stage(folder, stage, "step"):
        time.sleep(0.02)
    if not here:
        return "never"
    time.sleep(delay)
    here = of_stage(folder, stage, role)
    if not here:
        return "gone"
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if victim == "everything":
            os.killpg(snakemake.pid, signal.SIGKILL)
            end(folder)
        else:
            random.choice([snakemake] if victim == "snakemake" else here).kill()
    return "struck"


def of_stage(folder: Path, stage: str, role: str) -> list[psutil.Process]:
    found = processes(folder)
    return [each.process for each in found if (each.stage, each.role) == (stage, role)]


def end(folder: Path) -> None:
    for found in processes(folder):
        with contextlib.suppress(psutil.Error):
            found.process.kill()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be created, renamed or removed in it, even by root where the file system can."""
    locked = os.geteuid() == 0 and set_immutable(folder, True)
    if not locked:
        folder.chmod(0o555)
    yield
    if locked:
        set_immutable(folder, False)
    folder.chmod(0o755)


def set_immutable(folder: Path, on: bool) -> bool:
    """What chattr does, without the time to start it: a write may be over by then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8)))
        flags = flags | IMMUTABLE if on else flags & ~IMMUTABLE
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("l", flags))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def lock_folders(folder: Path, kills: list[Kill], stages: list[str]) -> None:
    """The output of some stages becomes read-only in the middle of a write."""
    (scoring,) = (stage for stage in stages if stage.startswith("score_"))
    for stage, output in ((scoring, "scores/teacher/unlabeled"), ("select", "selections/top")):
        results = folder / "results" / output
        for _ in range(5):
            for path in [p for p in results.glob("*") if p.is_file()]:
                path.unlink()
            snakemake = start(folder, "--forcerun", stage)  # later ones may have all they need
            while snakemake.poll() is None and not list(results.glob(".*.tmp")):
                time.sleep(0.001)
            with read_only(results):
                code = snakemake.wait(LONGEST_RUN)
            kills.append(Kill(stage, "read-only", "failed" if code else "passed over"))
            print(*kills[-1], flush=True)
            if code:
                break


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
    folder: Path, num_kills: int, stages: list[str], seconds: Seconds, seed: int, *options: str
) -> list[Kill]:
    """At least ``num_kills`` kills, as many in every stage; ``seconds``: of the calm run.

    Whatever stage runs and was not struck often enough is struck. Stages run beside each other, and
    some are over soon: at the end those that were missed run again, one by one, the last first.
    """
    chance, seconds = random.Random(seed), dict(seconds)
    kills: list[Kill] = []
    wanted = -(-num_kills // len(stages))
    is_through = False

    def lacking() -> list[str]:
        done = Counter(kill.stage for kill in kills if kill.outcome == "killed")
        return [stage for stage in stages if done[stage] < wanted]

    def choose(stage: str) -> tuple[str, str]:
        """A victim, of those that were chosen least, and its role."""
        chosen = Counter(kill.victim for kill in kills)
        victims = [v for v in VICTIMS if v != "worker" or (stage, v) in seconds]
        victim = min(victims, key=lambda each: (chosen[each], chance.random()))
        return victim, "worker" if victim == "worker" else "step"

    for _ in range(5 * num_kills):
        if not (missed := lacking()):
            break
        again = ["--forcerun", missed[-1], "--until", missed[-1]] if is_through else options
        snakemake, struck = start(folder, *again), False
        while not struck and snakemake.poll() is None:
            running = {f.stage for f in processes(folder) if f.role == "step"} & {*lacking()}
            for stage in sorted(running)[:1]:
                victim, role = choose(stage)
                delay = chance.uniform(0, seconds.get((stage, role), 1.0))
                there = strike(folder, snakemake, stage, victim, delay)
                struck = there == "struck"
                if there == "gone":  # it was over sooner, as it took over what it had made
                    seconds[stage, role] = delay / 2
                if there == "never" and role == "worker":
                    del seconds[stage, role]  # it needs none any more
            time.sleep(0.02)
        code = snakemake.wait(LONGEST_RUN)
        if struck:
            kills.append(Kill(stage, victim, "killed" if code else "had ended"))
            print(*kills[-1], flush=True)
        is_through |= not struck
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
    until = ["--until", *SHORT[-1:]] if is_short else []
    code, seconds = watch(folder / "calm", *until)
    if code:
        return [f"the calm run failed: see {folder / 'calm.log'}"]
    calm = digests(folder / "calm")
    stages = SHORT if is_short else pending(folder / "storm")
    kills = storm(folder / "storm", num_kills, stages, seconds, seed, *until)
    killed = Counter(kill.stage for kill in kills if kill.outcome == "killed")
    wrong = [f"{stage}: never struck" for stage in stages if not killed[stage]]
    if not is_short:
        lock_folders(folder / "storm", kills, stages)
        failed = {kill.stage for kill in kills if kill[1:] == ("read-only", "failed")}
        wrong += [] if len(failed) == 2 else [f"read-only in the middle of a write: only {failed}"]
    code = finish(folder / "storm", *until)
    if any(each.endswith(": missing") for each in compare(calm, folder / "storm")):
        # Snakemake makes no file again that a killed job of its lost and nobody needs any more.
        code = finish(folder / "storm", "--forcerun", stages[0], *until)
    wrong += [] if code == 0 else ["the last run failed"]
    wrong += compare(calm, folder / "storm")
    if os.geteuid():
        print("the disk was not filled: that needs root")
    elif not is_short:
        try:
            fill_disk(folder / "full", kills)
            wrong += [f"full disk: {each}" for each in compare(calm, folder / "full")]
        finally:
            subprocess.run(["umount", "--lazy", folder / "full"])
    print(table(kills))
    total = killed.total()
    print(f"seed {seed}: {total} kills, {len(calm)} files compared, {len(wrong)} wrong")
    return wrong + ([f"only {total} kills"] if total < num_kills else [])


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

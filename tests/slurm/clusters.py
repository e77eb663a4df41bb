"""Running the pipeline on a cluster of its own, and disturbing it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from slurmbox import Box

from chaos import compare, digests, short
from small import ROOT

FAST = """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, _: None)
from snakemake.cli import main
main()
"""
"""Snakemake, which asks for the state of its jobs every second, where it would wait longer and longer."""

SNAKEMAKE = [sys.executable, "-c", FAST]

WEIGHTS = "results/models/teacher/train/weights.pt"
SITE = {"cpus_per_gpu": 1, "memory_per_gpu": 2000}
"""As small as this machine."""


def training(images: int) -> dict[str, Any]:
    """A configuration of which only the teacher is wanted, and takes long enough to be disturbed."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
    config["recipes"]["short"]["images"] = images
    return config


class Run:
    """A folder to run the pipeline in, on a cluster, up to a ``target``."""

    target = WEIGHTS

    def __init__(self, box: Box, folder: Path, train: dict[str, int] | None = None) -> None:
        self.box, self.folder = box, folder
        folder.mkdir(exist_ok=True)
        self.config = training(3_000)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        self.site = folder / "site.yaml"
        self.site.write_text(yaml.safe_dump(SITE | {"train": train or {}}))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Snakemake, from the root of the repository."""
        command = [
            "env", "--default-signal=INT", *SNAKEMAKE, "--profile", "slurm",
            "--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml"),
            *arguments, "--", self.target,
        ]  # fmt: skip
        with open(self.folder / "snakemake.log", "a") as output:
            return subprocess.Popen(
                self.box.command(*command, directory=str(ROOT)), text=True, stdout=output,
                stderr=output, env=environment() | {"SEMISUP_SITE": str(self.site)},
                start_new_session=True,
            )  # fmt: skip

    def configure(self, **values: Any) -> None:
        self.config |= values
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def change_recipe(self, **values: Any) -> None:
        self.config["recipes"]["short"] |= values
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def finish(self, snakemake: "subprocess.Popen[str] | None" = None, status: int = 0) -> str:
        """Wait for the end; returns what Snakemake has said so far."""
        found = (snakemake or self.start()).wait(timeout=150)
        said = (self.folder / "snakemake.log").read_text()
        assert found == status, said[-6000:]
        return said

    def finish_here(self) -> None:
        """Without the cluster, which changes no byte."""
        command = [*SNAKEMAKE, "--cores", "2", "--directory", str(self.folder)]
        command += ["--configfile", str(self.folder / "config.yaml"), "--", self.target]
        subprocess.run(command, env=environment(), cwd=ROOT, check=True, capture_output=True)

    def wait_for_checkpoint(self) -> str:
        """Returns the Slurm job that trains, once it has something to lose."""
        self.wait(lambda: next(self.checkpoints(), None))
        return self.box.say("squeue", "-h", "-t", "R", "-o", "%i")

    def checkpoints(self) -> Any:
        return self.folder.glob("results/models/teacher/train/checkpoints/*/step-*.pt")

    def trainers(self) -> list[int]:
        """Processes of this cluster that train."""
        found = self.box.run("pgrep", "-f", "semisup.steps.train").stdout.split()
        return [int(pid) for pid in found]

    def wait(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, (self.folder / "snakemake.log").read_text()[-6000:]
            time.sleep(0.2)
        return value

    def queue(self) -> str:
        return self.box.say("squeue", "-h", "-t", "PD,R,CF,S", "-o", "%i %T %k")

    def status(self) -> str:
        """What `make status` says."""
        command = [sys.executable, "-m", "semisup.questions.status", "--configfile"]
        done = subprocess.run(
            [*command, str(self.folder / "config.yaml"), "--directory", str(self.folder)],
            env=environment() | {"PYTHONPATH": str(ROOT / "workflow")},
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def check_end(self, calm: Path) -> None:
        """Every table, tar and weight is that of a calm run; nothing runs, waits or is left over."""
        assert compare(digests(calm), self.folder) == []
        assert not self.queue()
        assert not self.trainers()
        assert not list(self.folder.glob(".snakemake/locks/*"))


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}


def interrupt(snakemake: "subprocess.Popen[str]", box: Box, number: signal.Signals) -> None:
    """Send a signal to Snakemake itself, which is nsenter's and env's child."""
    pid = box.say("pgrep", "-o", "-f", "next_seconds_between_status_checks")
    box.say("kill", f"-{number.value}", pid)


def literal_command(
    box: Box, folder: Path, *options: str, nodes: int = 2, gpus: int = 2
) -> "subprocess.Popen[str]":
    """`snakemake --profile slurm` in a clone, with trainings on so many nodes of so many GPUs."""
    if not (folder / "Snakefile").exists():
        copy_repository(folder)
        config = short(yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text()))
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = f'true\necho "$(hostname)" >> {folder}/before_job # on every node\n'
    own = {"train": {"nodes": nodes, "gpus": gpus}, "before_job": before}
    (folder / "site.yaml").write_text(yaml.safe_dump(SITE | own))
    command = ["env", "--default-signal=INT", *SNAKEMAKE, "--profile", "slurm", *options]
    with open(folder / "snakemake.log", "w") as log:
        return subprocess.Popen(
            box.command(*command, directory=str(folder)), env=environment(),
            stdout=log, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip


def finish(snakemake: "subprocess.Popen[str]", folder: Path) -> None:
    assert snakemake.wait(timeout=420) == 0, (folder / "snakemake.log").read_text()[-6000:]
    assert (folder / "results" / "report.html").exists()


def copy_repository(folder: Path) -> None:
    """What a user clones, as far as it runs."""
    for name in ("Snakefile", "slurm", "profiles", "workflow", "envs"):
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            ignore = shutil.ignore_patterns("__pycache__", ".mypy_cache")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy2(source, folder / name, follow_symlinks=False)

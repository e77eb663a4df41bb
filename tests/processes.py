"""Processes that start at once: forked from one that has imported what they need.

Else each would import for seconds, and there are dozens. What a process is they are: its memory,
signals and end are its own. How steps and Snakemake really start is tested by the pipelines,
test_launch.py and test_snakefile.py.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from small import ROOT

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "snakemakes",
        "snakemake.cli",
        "semisup.plan",
        "semisup.steps.train",
        "torch._dynamo",
        "torch.distributed.launcher.api",
    ]
)
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT}/workflow:{ROOT}/tests",
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class Process:
    """A call of a function in a session of its own. What it says stands in a file."""

    def __init__(
        self, said: Path, function: Callable[..., None], *arguments: Any, folder: Path = ROOT
    ) -> None:
        environment = os.environ | ENVIRONMENT
        with mock.patch.dict(os.environ, environment):
            forkserver.ensure_running()
        self.file = said
        self.own: ForkServerProcess = FORKS.Process(
            target=_call, args=(said, folder, environment, function, arguments)
        )
        self.own.start()

    @property
    def pid(self) -> int:
        assert self.own.pid is not None
        return self.own.pid

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def is_running(self) -> bool:
        return self.own.is_alive()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 100) -> int:
        """The exit status; that of a signal is negative."""
        self.own.join(seconds)
        assert self.own.exitcode is not None, f"it still runs: {self.said()}"
        return self.own.exitcode

    def said(self) -> str:
        return self.file.read_text()


def _call(
    said: Path,
    folder: Path,
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    multiprocessing.set_start_method(None, force=True)  # the usual one, not this one's
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    function(*arguments)

"""Trainings as processes of their own that start at once: forked from one which has imported all.

Else each would import for seconds, and there are dozens. Ranks are forked by the agent of torchrun,
which can do that too. How a step really starts is tested in test_launch.py and by the pipelines.
"""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

import psutil

from small import ROOT

TRAIN = "from semisup.steps import status_of, train\nsys.exit(status_of(train.main))"
"""The program of a process, before which some write what goes wrong in it."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["semisup.steps.train", "torch._dynamo", "torch.distributed.launcher.api"]
)
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT}/workflow:{ROOT}/tests",
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class Process:
    """A process and, if it is an agent, the ranks it started. What they say stands in a file."""

    def __init__(self, program: str, arguments: list[str], said: Path, ranks: int = 1) -> None:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            forkserver.ensure_running()
        self.file = said
        self.own: ForkServerProcess = FORKS.Process(
            target=_run, args=(program, arguments, said, ranks)
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

    def wait(self) -> int:
        """The exit status; that of a signal is negative."""
        self.own.join(100)
        assert self.own.exitcode is not None, f"it still runs: {self.said()}"
        return self.own.exitcode

    def said(self) -> str:
        return self.file.read_text()


def _run(program: str, arguments: list[str], said: Path, ranks: int) -> None:
    multiprocessing.set_start_method(None, force=True)  # the usual one, not this one's
    os.setsid()
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    sys.argv[1:] = arguments
    if ranks == 1:
        _execute(program)
    else:
        _launch(program, ranks)


def _execute(program: str) -> None:
    exec(program, {"__name__": "__main__", "sys": sys})


def _launch(program: str, ranks: int) -> None:
    from torch.distributed.launcher import api

    config = api.LaunchConfig(
        1, 1, ranks, run_id="ranks", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork",
    )  # fmt: skip
    api.elastic_launch(config, _execute)(program)

"""The ranks of a training: processes started by torchrun, each with a device of its own, or just one."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from semisup import devices, slurm
from semisup.launch import TORCHRUN

TIMEOUT = timedelta(minutes=10)
"""After which a rank that waits for another one fails."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

PATIENCE = 10.0
"""Seconds in which a signal that comes again is the same request: Slurm and torchrun both send it."""

MARGIN = 300.0
"""Seconds before the time limit of a Slurm job at which it stops; a tenth of what is left, if less."""


class Ranks(NamedTuple):
    rank: int
    num_ranks: int
    device: torch.device

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in their order, to all of them."""
        if self.num_ranks == 1:
            return [value]
        values = [None] * self.num_ranks
        dist.all_gather_object(values, value)
        return values


def this_rank() -> Ranks:
    """Which of torchrun's ranks this process is, or that it is alone; see joined."""
    num_ranks, device = int(os.environ.get("WORLD_SIZE", 1)), devices.choose_device()
    if num_ranks == 1:
        return Ranks(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return Ranks(int(os.environ["RANK"]), num_ranks, device)


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Connect this rank to the others, until the end; after an error they stay connected.

    Fork before, never after: the threads of gloo run Python now and then, and what is forked while
    one starts to hangs, https://github.com/python/cpython/issues/112275.
    """
    if ranks.num_ranks == 1:
        yield
        return
    _end_with_parent()
    backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    yield
    dist.destroy_process_group()  # not after an error: others may be waiting, torchrun ends them


def _end_with_parent() -> None:
    """A rank whose torchrun was killed would train on, beside those started in its place."""
    parent = int(os.environ.get(TORCHRUN, os.getppid()))  # it may be gone before we are here

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class StopRequest:
    """Whether SIGTERM, SIGUSR1 or Ctrl-C asked any rank to stop: all know at the same step. So they do
    whether a checkpoint is due, which is a matter of time.

    The time limit of a Slurm job does so too, as SIGUSR1. A signal that comes again later has its usual
    effect.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.num_ranks, self.is_first = ranks.num_ranks, ranks.rank == 0
        left = slurm.seconds_left() if ranks.rank == 0 else None
        self.end = time.monotonic() + left - min(MARGIN, left / 10) if left else math.inf
        self.signal, self._asked = 0, -math.inf
        self._vote: tuple[torch.Tensor, dist.Work] | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {each: signal.signal(each, self._ask) for each in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._asked = number, time.monotonic()
        elif time.monotonic() - self._asked > PATIENCE:
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)

    def heard(self, due: bool = False) -> tuple[int, bool]:
        """The number of the signal, or 0, and whether a checkpoint is ``due``, as the first rank says.

        Called by every rank at every step. The answer is what ranks knew a step ago, so that none waits
        for the others.
        """
        if time.monotonic() > self.end:
            self.signal = signal.SIGUSR1
        if self.num_ranks == 1:
            return self.signal, due
        answer, was_due = 0, False
        if self._vote:
            votes, work = self._vote
            work.wait()
            answer, was_due = int(votes[0]), bool(votes[1])
        # What is heard now is answered by the caller: it need not be said again.
        votes = torch.tensor([self.signal, int(due and self.is_first and not was_due)])
        self._vote = votes, dist.all_reduce(votes, dist.ReduceOp.MAX, async_op=True)
        return answer, was_due

"""A training of a few steps, in the process of the tests or in others."""

import sys
import time
import traceback
from pathlib import Path

import torch

from conftest import make_jpeg
from processes import Process
from semisup import models, settings
from semisup.config import Recipe
from semisup.steps import train
from small import square

RECIPE = Recipe(images=100, global_batch_size=8, base_lr=0.5, crop="padded", cpu_threads=1)
SHARDS = [
    [(f"{s}-{i}", {"jpg": make_jpeg(9 * s + i), "cls": b"%d" % (i % 2)}) for i in range(9)]
    for s in range(2)
]
TRAIN = "from semisup.steps import status_of, train\nsys.exit(status_of(train.main))"
"""The program of a process, before which others write what goes wrong in it."""

OFTEN = f"from semisup import training\ntraining._is_due = lambda *_: True\n{TRAIN}"
"""A checkpoint after every step."""

SLOW = f"""
import time
from semisup import optim
set_learning_rate = optim.set_learning_rate
def slowly(*of):
    time.sleep(0.1)
    return set_learning_rate(*of)
optim.set_learning_rate = slowly
{OFTEN}
"""
"""A tenth of a second more for each step, and a checkpoint after it."""


def make_settings(recipe: Recipe = RECIPE, seed: int = 0) -> settings.Train:
    return settings.Train(
        arch="cifar_resnet8_w4",
        preprocessing=square(12),
        classes=["no", "yes"],
        recipe=recipe,
        seed=seed,
    )


def run(
    folder: Path,
    manifests: list[Path],
    settings: settings.Train | None = None,
    init: list[Path] | None = None,
    workers: int = 0,
) -> Path:
    stage = folder / "model" / "train"
    train.main(
        settings or make_settings(),
        manifests,
        init or [],
        stage / "checkpoints",
        stage / "weights.pt",
        stage / "classes.txt",
        stage / "metrics.parquet",
        workers,
    )
    return stage


class Training:
    """One that other processes begin or end."""

    def __init__(
        self, folder: Path, manifests: list[Path], settings: settings.Train, program: str = TRAIN
    ) -> None:
        self.folder, self.manifests, self.settings = folder, manifests, settings
        self.program, self.stage = program, folder / "model" / "train"

    def start(self, ranks: int = 1) -> Process:
        self.folder.mkdir(exist_ok=True)
        options = [
            "--settings", self.settings.canonical(), "--manifests", *map(str, self.manifests),
            "--init", "--checkpoints", str(self.stage / "checkpoints"),
            "--weights", str(self.stage / "weights.pt"),
            "--classes", str(self.stage / "classes.txt"),
            "--metrics", str(self.stage / "metrics.parquet"), "--workers", "2",
        ]  # fmt: skip
        return Process(self.folder / "said", _train, self.program, options, ranks)

    def finish(self, ranks: int = 1) -> "Training":
        process = self.start(ranks)
        assert process.wait() == 0, process.said()
        return self

    def finish_here(self) -> "Training":
        run(self.folder, self.manifests, self.settings, workers=2)
        return self

    def wait_for_checkpoint(self, process: Process) -> None:
        while not self.checkpoints() and process.is_running():
            time.sleep(0.02)

    def checkpoints(self) -> list[Path]:
        return sorted(self.stage.glob("checkpoints/*/step-*.pt"))

    def outputs(self) -> list[bytes]:
        return [(self.stage / name).read_bytes() for name in ("weights.pt", "metrics.parquet")]

    def weights(self) -> dict[str, torch.Tensor]:
        state = models.load(self.stage / "weights.pt").state
        return {
            name: state[name] for name in state if "running" not in name and "tracked" not in name
        }


def _train(program: str, options: list[str], ranks: int) -> None:
    sys.argv[1:] = options
    if ranks == 1:
        _execute(program)
    else:
        _launch(program, ranks)


def _execute(program: str) -> None:
    """As Python does: the agent would tell the error of one rank only."""
    try:
        exec(program, {"__name__": "__main__", "sys": sys})
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _launch(program: str, ranks: int) -> None:
    """By the agent that torchrun is, which can fork the ranks too."""
    from torch.distributed.launcher import api

    config = api.LaunchConfig(
        1, 1, ranks, run_id="ranks", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork",
    )  # fmt: skip
    api.elastic_launch(config, _execute)(program)

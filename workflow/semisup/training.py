"""The one training loop: supervised training, pretraining and finetuning differ by data and recipe."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.deterministic
from torch import nn

from semisup import checkpoint, distributed, flops, loader, optim, transforms
from semisup.config import Recipe
from semisup.distributed import Ranks, StopRequest
from semisup.learner import Learner, Pass
from semisup.order import TrainingOrder
from semisup.progress import Progress
from semisup.samples import Samples, labelled_rows
from semisup.settings import Preprocessing
from semisup.tables import DataError
from semisup.tracking import Tracker

log = logging.getLogger("semisup")

METRIC_ROWS = 200
MAX_STEPS_PER_ROW = 500
CHECKPOINT_SECONDS = 60.0
FIRST_CHECKPOINT_SECONDS = 1.0
CHECKPOINT_SHARE = 0.05
"""Of the time of a training, at most, goes to its checkpoints, however large and however slow the disk."""

Metrics = list[dict[str, float]]


class Diverged(DataError):
    """The loss is no number any more. ``metrics``: the rows so far, and one that says so."""

    def __init__(self, message: str, metrics: Metrics) -> None:
        super().__init__(message)
        self.metrics = metrics


class Interrupted(Exception):
    """A signal, or the end of its time, asked the training to stop; its checkpoint is written."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class Trained(NamedTuple):
    state: dict[str, torch.Tensor]
    metrics: Metrics


def train(
    what: str,
    model: nn.Module,
    num_classes: int,
    samples: Samples,
    recipe: Recipe,
    preprocessing: Preprocessing,
    seed: int,
    checkpoints: Path,
    ranks: Ranks,
    workers: int,
    tracker: Tracker,
) -> Trained:
    """Train for ``recipe.images`` images, going on from the newest checkpoint in ``checkpoints``.

    The result is that of an uninterrupted run: a checkpoint holds the whole state, and every random
    choice follows from seed and position. Ranks share each global batch; an image that cannot be
    decoded adds nothing to it, is counted and logged. Raises Diverged when the loss is not finite,
    Interrupted after a signal; either on all ranks. Any other error has a note of rank and step.
    """
    is_first = ranks.rank == 0
    _set_up(ranks.device, recipe.cpu_threads)
    rows = labelled_rows(samples)
    order = TrainingOrder(
        rows, seed, recipe.images, recipe.global_batch_size, recipe.device_batch_size
    )
    owner = checkpoint.claim(checkpoints) if is_first else ""
    state = checkpoint.load(checkpoints)
    step = state["step"] if state else 0
    batches = loader.training_batches(
        samples, order, transforms.training_transform(recipe, preprocessing),
        preprocessing.image_size, step, ranks.rank, ranks.num_ranks, workers,
    )  # fmt: skip

    def place() -> str:
        return f"{what}: rank {ranks.rank} of {ranks.num_ranks}, in step {step + 1}"

    with (
        _noted(place), closing(batches), distributed.joined(ranks), StopRequest(ranks) as stop,
    ):  # fmt: skip
        labels = torch.from_numpy(samples.table["label"].fill_null(-1).to_numpy().astype(np.int64))
        learner = Learner(model, num_classes, labels, recipe, seed, ranks)
        metrics, passes = Metrics(), list[Pass]()
        if state:
            learner.restore(state)
            metrics, passes = state["metrics"], _share(state["passes"], ranks)
            state = None  # a second copy of weights and momentum
        if len(started := set(ranks.gather(step))) > 1:
            raise DataError(
                f"{checkpoints}: ranks see different checkpoints, {started}. Run again."
            )
        if is_first:
            log.info(
                "%s: %d images to learn from, %d to process in %d steps of %d, by %d x %s%s",
                what, len(rows), recipe.images, order.num_steps, order.batch_size, ranks.num_ranks,
                ranks.device.type, f", going on after step {step}" if step else "",
            )  # fmt: skip
        done = min(step * order.batch_size, order.images)
        operations = flops.of_training(learner.model, preprocessing.image_size)
        peak = flops.peak(ranks.device, recipe.precision)
        progress = Progress(
            what, order.images, done, flops=operations, peak=peak and peak * ranks.num_ranks
        )
        every = min(max(order.num_steps // METRIC_ROWS, 1), MAX_STEPS_PER_ROW)
        began = saved = time.monotonic()
        took = 0.0
        while step < order.num_steps:
            learnt, lr = learner.learn(order, step, batches)
            passes += learnt
            step += 1
            done = min(step * order.batch_size, order.images)
            rest = order.images - done
            # The last row takes what is too little for one of its own: its loss would be noise.
            is_row = rest == 0 or (step % every == 0 and rest >= every * order.batch_size / 2)
            signal, due = stop.heard(_is_due(began, saved, took))
            due |= rest == 0 or signal > 0
            if not (is_row or due):
                continue
            of_all = ranks.gather([each.read() for each in passes])
            everything = [each for of_rank in of_all for each in of_rank]
            row = _row(everything, metrics, step, done, lr) | {"samples": len(rows)}
            _check_finite(what, everything, recipe, [*metrics, row])
            if is_row:
                metrics.append(row)
                passes, of_all = [], [[] for _ in of_all]
                if is_first:
                    tracker.add(metrics[-1], progress.rate(done))
            if is_first:
                loss = f"loss {metrics[-1]['loss']:.3f}  " if metrics else ""
                progress.update(done, f"{loss}lr {lr:.4f}")
            if due:
                saving = time.monotonic()
                if is_first:
                    so_far = {"metrics": metrics, "passes": [[*map(tuple, p)] for p in of_all]}
                    checkpoint.check_claim(checkpoints, owner)
                    checkpoint.save(checkpoints, step, learner.state() | {"step": step} | so_far)
                saved = time.monotonic()
                took = saved - saving
            if signal and rest:
                raise Interrupted(
                    f"{what}: {Signals(signal).name}; a checkpoint after {done:,} of "
                    f"{order.images:,} images is written. Run again to go on.",
                    signal,
                )
    if is_first:
        checkpoint.check_claim(checkpoints, owner)
    _check_books(what, metrics[-1], order.images)
    return Trained(learner.result(), metrics)


def _set_up(device: torch.device, cpu_threads: int) -> None:
    torch.set_num_threads(cpu_threads)
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _is_due(began: float, saved: float, took: float) -> bool:
    """Whether a checkpoint is: soon after the start, as jobs die young, then less and less often.

    ``took``: seconds that the last one did, at ``saved``.
    """
    now = time.monotonic()
    usual = min(CHECKPOINT_SECONDS, FIRST_CHECKPOINT_SECONDS + (now - began) / 4)
    return now - saved > max(usual, took / CHECKPOINT_SHARE)


@contextmanager
def _noted(place: Callable[[], str]) -> Iterator[None]:
    """An error that does not say where it happened gets to."""
    try:
        yield
    except (Diverged, Interrupted):
        raise
    except Exception as error:
        error.add_note(place())
        raise


def _share(of_ranks: list[list[Any]], ranks: Ranks) -> list[Pass]:
    """The passes since the last row of metrics: to each rank its own, to the first those of others."""
    if len(of_ranks) != ranks.num_ranks:
        of_ranks = [[each for of_rank in of_ranks for each in of_rank]]
    mine = of_ranks[ranks.rank] if ranks.rank < len(of_ranks) else []
    return [Pass(*each) for each in mine]


def _check_finite(what: str, passes: list[Pass], recipe: Recipe, metrics: Metrics) -> None:
    wrong = [each for each in passes if not math.isfinite(each.loss)]
    if wrong:
        first = min(wrong, key=lambda each: each.step)
        images = first.step * recipe.global_batch_size
        lr = optim.learning_rate(recipe, images)
        raise Diverged(
            f"{what}: the loss is {first.loss} in step {first.step + 1}, after {images:,} images at "
            f"learning rate {lr:g}. Lower base_lr of the recipe or lengthen its warm-up.",
            metrics,
        )


def _check_books(what: str, last: dict[str, float], images: int) -> None:
    if last["loaded"] + last["failed"] != images:
        raise DataError(
            f"{what}: the loader gave {last['loaded']:,} images and left out {last['failed']:,}, "
            f"together not the {images:,} of the recipe; this is a bug."
        )
    if not last["loaded"]:
        raise DataError(
            f"{what}: none of {images:,} images could be decoded. See the log for the reasons, and mend "
            "or leave out the tars."
        )


def _row(passes: list[Pass], before: Metrics, step: int, done: int, lr: float) -> dict[str, float]:
    total = max(sum(each.images for each in passes), 1)
    return {
        "step": step,
        "images": done,
        "lr": lr,
        "loss": sum(each.loss * each.images for each in passes) / total,
        "top1": sum(each.correct for each in passes) / total,
        "loaded": sum(each.images for each in passes) + (before[-1]["loaded"] if before else 0),
        "failed": sum(each.failed for each in passes) + (before[-1]["failed"] if before else 0),
    }

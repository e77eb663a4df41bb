"""The one training loop: supervised training, pretraining and finetuning differ by data and recipe."""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.deterministic
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from semisup import checkpoint, flops, loader, models, optim, transforms
from semisup.config import Recipe
from semisup.distributed import Ranks, StopRequest
from semisup.order import TrainingOrder
from semisup.progress import Progress
from semisup.samples import Samples, labelled_rows
from semisup.tables import DataError
from semisup.tracking import Tracker

log = logging.getLogger("semisup")

METRIC_ROWS = 200
MAX_STEPS_PER_ROW = 500
CHECKPOINT_SECONDS = 60.0

Metrics = list[dict[str, float]]


class Interrupted(Exception):
    """A signal asked the training to stop; its checkpoint is written."""


class Trained(NamedTuple):
    state: dict[str, torch.Tensor]
    metrics: Metrics


class Pass(NamedTuple):
    """What one rank saw in one forward pass. ``loss``: the mean; on the device until it is read."""

    step: int
    loss: Any
    correct: Any
    images: int
    failed: int

    def read(self) -> "Pass":
        return self._replace(loss=float(self.loss), correct=int(self.correct))


def train(
    what: str,
    model: nn.Module,
    num_classes: int,
    samples: Samples,
    recipe: Recipe,
    image_size: int,
    seed: int,
    checkpoints: Path,
    ranks: Ranks,
    workers: int,
    tracker: Tracker,
) -> Trained:
    """Train for ``recipe.images`` images, going on from the newest checkpoint in ``checkpoints``.

    The result is that of an uninterrupted run: a checkpoint holds the whole state, and every random
    choice follows from seed and position. Ranks share each global batch; an image that cannot be
    decoded adds nothing to it, is counted and logged. Raises DataError when the loss is not finite,
    Interrupted after a signal; either on all ranks.
    """
    device, is_first = ranks.device, ranks.rank == 0
    _set_up(device, workers)
    rows = labelled_rows(samples)
    labels = torch.from_numpy(samples.table["label"].fill_null(-1).to_numpy().astype(np.int64))
    order = TrainingOrder(
        rows, seed, recipe.images, recipe.global_batch_size, recipe.device_batch_size
    )
    model = optim.place(model, recipe, ranks)
    optimizer = optim.make_optimizer(model, recipe)
    average = optim.make_average(model, recipe)
    step, metrics, passes = 0, Metrics(), list[Pass]()
    if state := checkpoint.load(checkpoints):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.load_state_dict(state["average"])
        step, metrics = state["step"], state["metrics"]
        passes = _share(state["passes"], ranks)
    if len(started := set(ranks.gather(step))) > 1:
        raise DataError(f"{checkpoints}: ranks see different checkpoints, {started}. Run again.")
    if is_first:
        log.info(
            "%s: %d images to learn from, %d to process in %d steps of %d, by %d x %s%s",
            what, len(rows), recipe.images, order.num_steps, order.batch_size, ranks.num_ranks,
            device.type, f", going on after step {step}" if step else "",
        )  # fmt: skip

    network, layout = _wrap(model, recipe, ranks), models.layout(model)
    transform = transforms.training_transform(recipe, image_size)
    mixing = transforms.mixing(recipe, num_classes)
    batches = loader.training_batches(
        samples, order, transform, image_size, step, ranks.rank, ranks.num_ranks, workers
    )
    done = min(step * order.batch_size, order.images)
    progress = Progress(what, order.images, done, flops=flops.of_training(model, image_size))
    every = min(max(order.num_steps // METRIC_ROWS, 1), MAX_STEPS_PER_ROW)
    saved = time.monotonic()

    def one_pass(batch: loader.Batch, forward_pass: int) -> Pass:
        """Add the gradients of a micro-batch."""
        for row, kind, reason in batch.failures:
            log.warning("image left out: row %d, %s: %s", row, kind, reason)
        number = forward_pass * ranks.num_ranks + ranks.rank
        torch.manual_seed(seed + step + (number << 40))  # of dropout and mixing
        images, targets = (
            transforms.normalize(batch.images_NCHW, device, layout),
            labels[batch.rows],
        )
        targets = targets.to(device, non_blocking=True)
        if not len(batch.rows):
            if ranks.num_ranks > 1:
                _take_part(network, batch.images_NCHW.shape, recipe.sync_batchnorm, device)
            return Pass(step, 0.0, 0, 0, len(batch.failures))
        mixed, soft = mixing(images, targets) if mixing else (images, targets)
        with _autocast(recipe, device):
            logits = network(mixed)
        loss = nn.functional.cross_entropy(
            logits.float(), soft, label_smoothing=recipe.label_smoothing, reduction="sum"
        )
        share = loss / order.num_images(step)
        (share * ranks.num_ranks).backward()  # type: ignore[no-untyped-call]  # DDP divides by it
        correct = (logits.detach().argmax(1) == targets).sum()
        mean = loss.detach() / len(batch.rows)
        return Pass(step, mean, correct, len(batch.rows), len(batch.failures))

    try:
        with StopRequest(ranks) as stop:
            while step < order.num_steps:
                lr = optim.set_learning_rate(optimizer, recipe, step * order.batch_size)
                optimizer.zero_grad(set_to_none=True)
                num_passes = order.num_passes(step, ranks.num_ranks)
                for forward_pass in range(num_passes):
                    with _gradients_stay(network, forward_pass < num_passes - 1):
                        passes.append(one_pass(next(batches), forward_pass))
                optimizer.step()
                if average:
                    average.update_parameters(model)
                step += 1
                done = min(step * order.batch_size, order.images)
                rest = order.images - done
                # The last row takes what is too little for one of its own: its loss would be noise.
                is_row = rest == 0 or (step % every == 0 and rest >= every * order.batch_size / 2)
                signal = stop.heard()
                if not (is_row or signal):
                    continue
                due = rest == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS
                of_all = ranks.gather(([each.read() for each in passes], due))
                everything = [each for of_rank, _ in of_all for each in of_rank]
                _check_finite(what, everything, recipe)
                if is_row:
                    metrics.append(_row(everything, metrics, step, done, lr))
                    passes, of_all = [], [([], due) for _, due in of_all]
                    if is_first:
                        progress.update(done, f"loss {metrics[-1]['loss']:.3f}  lr {lr:.4f}")
                        tracker.add(metrics[-1], progress.rate(done))
                if signal or of_all[0][1]:
                    state = {
                        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "average": average.state_dict() if average else None, "step": step,
                        "metrics": metrics, "passes": [[*map(tuple, p)] for p, _ in of_all],
                    }  # fmt: skip
                    if is_first:
                        checkpoint.save(checkpoints, step, state)
                    saved = time.monotonic()
                if signal and rest:
                    raise Interrupted(
                        f"{what}: signal {signal}; a checkpoint after {done:,} of {order.images:,} "
                        "images is written. Run again to go on."
                    )
    finally:
        del batches  # its workers wait for more, and no signal ends them
    _check_books(what, metrics[-1], order.images)
    return Trained((average.module if average else model).state_dict(), metrics)


def _set_up(device: torch.device, workers: int) -> None:
    torch.set_num_threads(max(workers, 1))
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _share(of_ranks: list[list[Any]], ranks: Ranks) -> list[Pass]:
    """The passes since the last row of metrics: to each rank its own, to the first those of others."""
    if len(of_ranks) != ranks.num_ranks:
        of_ranks = [[each for of_rank in of_ranks for each in of_rank]]
    mine = of_ranks[ranks.rank] if ranks.rank < len(of_ranks) else []
    return [Pass(*each) for each in mine]


def _wrap(model: nn.Module, recipe: Recipe, ranks: Ranks) -> nn.Module:
    network: nn.Module = torch.compile(model) if recipe.compile else model  # type: ignore[assignment]
    if ranks.num_ranks == 1:
        return network
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def _gradients_stay(network: nn.Module, stay: bool) -> contextlib.AbstractContextManager[Any]:
    """Ranks exchange gradients in the last pass of a step only."""
    if stay and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


def _take_part(
    network: nn.Module, shape: torch.Size, sync_batchnorm: bool, device: torch.device
) -> None:
    """A rank without an image: others wait for its gradients, which are zero, and its statistics."""
    network.train(sync_batchnorm)  # else statistics would change
    images = torch.zeros(0 if sync_batchnorm else 1, *shape[1:], device=device)
    (network(images).sum() * 0).backward()
    network.train()


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled=models.is_bfloat16(recipe.precision, device)
    )


def _check_finite(what: str, passes: list[Pass], recipe: Recipe) -> None:
    wrong = [each for each in passes if not math.isfinite(each.loss)]
    if wrong:
        first = min(wrong, key=lambda each: each.step)
        images = first.step * recipe.global_batch_size
        lr = optim.learning_rate(recipe, images)
        raise DataError(
            f"{what}: the loss is {first.loss} in step {first.step + 1}, after {images:,} images at "
            f"learning rate {lr:g}. Lower base_lr of the recipe or lengthen its warm-up."
        )


def _check_books(what: str, last: dict[str, float], images: int) -> None:
    if last["loaded"] + last["failed"] != images:
        raise DataError(
            f"{what}: the loader gave {last['loaded']:,} images and left out {last['failed']:,}, "
            f"together not the {images:,} of the recipe; this is a bug."
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

"""The one training loop: supervised training, pretraining and finetuning differ by data and recipe."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.utils.deterministic
from torch import nn

from semisup import checkpoint, loader, models, optim, transforms
from semisup.config import Recipe
from semisup.loader import TrainingOrder
from semisup.progress import Progress
from semisup.samples import Samples, labelled_rows
from semisup.tables import DataError

log = logging.getLogger("semisup")

METRIC_ROWS = 200
MAX_STEPS_PER_ROW = 500
CHECKPOINT_SECONDS = 60.0

Metrics = list[dict[str, float]]


class Trained(NamedTuple):
    model: nn.Module
    metrics: Metrics


def train(
    what: str,
    model: nn.Module,
    samples: Samples,
    recipe: Recipe,
    image_size: int,
    seed: int,
    checkpoints: Path,
    workers: int,
) -> Trained:
    """Train for ``recipe.images`` images, going on from the newest checkpoint in ``checkpoints``.

    The result is that of an uninterrupted run: the state of a checkpoint is the whole state, and
    every random choice follows from seed and position. An image that cannot be decoded is left out
    of its batch, counted and logged. Raises DataError when the loss is not finite.
    """
    device = models.choose_device()
    torch.set_num_threads(max(workers, 1))
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    rows = labelled_rows(samples)
    labels = torch.from_numpy(samples.table["label"].fill_null(-1).to_numpy().astype(np.int64))
    order = TrainingOrder(rows, seed, recipe.images, recipe.global_batch_size)
    transform = transforms.training_transform(recipe, image_size)

    model.to(device).train()
    optimizer = optim.make_optimizer(model, recipe)
    step, failed, metrics = 0, 0, []
    if state := checkpoint.load(checkpoints):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, failed, metrics = state["step"], state["failed"], state["metrics"]
        log.info("going on after step %d of %d", step, order.num_steps)
    log.info(
        "%s: %d images to learn from, %d images to process in %d steps of %d on %s",
        what, len(rows), recipe.images, order.num_steps, recipe.global_batch_size, device,
    )  # fmt: skip

    progress = Progress(what, recipe.images, start=step * recipe.global_batch_size)
    every = min(max(order.num_steps // METRIC_ROWS, 1), MAX_STEPS_PER_ROW)
    window = _Window()
    saved = time.monotonic()
    batches = loader.training_batches(samples, order, transform, image_size, step, workers)
    for batch in batches:
        done = min((step + 1) * recipe.global_batch_size, recipe.images)
        lr = optim.learning_rate(recipe, step * recipe.global_batch_size)
        for row, kind, reason in batch.failures:
            log.warning("image left out: row %d, %s: %s", row, kind, reason)
        failed += len(batch.failures)
        if len(batch.rows):
            torch.manual_seed(seed + step)  # of dropout, so that a resumed run repeats it
            loss, correct = _step(model, optimizer, recipe, lr, batch, labels[batch.rows], device)
            window.add(loss, correct, len(batch.rows))
        step += 1
        # The last row takes what is too little for one of its own: its loss would be noise.
        rest = recipe.images - done
        if rest == 0 or (step % every == 0 and rest >= every * recipe.global_batch_size / 2):
            row_of_metrics = window.close(step, done, lr, failed)
            if not np.isfinite(row_of_metrics["loss"]):
                raise DataError(
                    f"{what}: the loss is {row_of_metrics['loss']} after {done:,} images at learning "
                    f"rate {lr:g}. Lower base_lr of the recipe or lengthen its warm-up."
                )
            metrics.append(row_of_metrics)
            progress.update(done, f"loss {row_of_metrics['loss']:.3f}  lr {lr:.4f}")
            # Only here, where the window is empty: nothing but these values is the state.
            if rest == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS:
                state = {
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "step": step, "failed": failed, "metrics": metrics,
                }  # fmt: skip
                checkpoint.save(checkpoints, step, state)
                saved = time.monotonic()
    return Trained(model, metrics)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    lr: float,
    batch: loader.Batch,
    labels_N: torch.Tensor,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimiser step; loss and number of correct predictions stay on the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    labels_N = labels_N.to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = model(transforms.normalize(batch.images_NCHW, device))
    loss = nn.functional.cross_entropy(
        logits.float(), labels_N, label_smoothing=recipe.label_smoothing
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == labels_N).sum()


class _Window:
    """Sums since the last row of metrics, read from the device only when the row is made."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.correct: list[torch.Tensor] = []
        self.images: list[int] = []

    def add(self, loss: torch.Tensor, correct: torch.Tensor, images: int) -> None:
        self.losses.append(loss)
        self.correct.append(correct)
        self.images.append(images)

    def close(self, step: int, images: int, lr: float, failed: int) -> dict[str, float]:
        total = max(sum(self.images), 1)
        loss = sum(float(x) * n for x, n in zip(self.losses, self.images, strict=True)) / total
        top1 = sum(int(x) for x in self.correct) / total
        self.__init__()  # type: ignore[misc]
        return {
            "step": step, "images": images, "lr": lr, "loss": loss, "top1": top1, "failed": failed,
        }  # fmt: skip

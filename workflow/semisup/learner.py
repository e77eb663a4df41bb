"""What learns: a network on its device, its optimiser and its average, a global step at a time."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from semisup import devices, models, optim, transforms
from semisup.config import Recipe
from semisup.distributed import Ranks
from semisup.loader import Batch, refuse_unread
from semisup.order import TrainingOrder

log = logging.getLogger("semisup")


class Pass(NamedTuple):
    """What one rank saw in one forward pass. ``loss``: the mean; on the device until it is read."""

    step: int
    loss: Any
    correct: Any
    images: int
    failed: int

    def read(self) -> "Pass":
        return self._replace(loss=float(self.loss), correct=int(self.correct))


class Learner:
    """One rank's copy of the network. All ranks do the same steps, each with its share of the images.

    ``labels``: the class of each row of the samples.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        labels: torch.Tensor,
        recipe: Recipe,
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.labels, self.recipe, self.seed, self.ranks = labels, recipe, seed, ranks
        self.layout = models.layout(model, recipe.channels_last)
        self.model = optim.place(model.to(memory_format=self.layout), recipe, ranks)
        self.optimizer = optim.make_optimizer(self.model, recipe)
        self.average = optim.make_average(self.model, recipe)
        self.mixing = transforms.mixing(recipe, num_classes)
        self.network = _wrap(self.model, recipe, ranks)

    def learn(
        self, order: TrainingOrder, step: int, batches: Iterator[Batch]
    ) -> tuple[list[Pass], float]:
        """Take this rank's micro-batches of a step, then update the weights; returns the rate too."""
        lr = optim.set_learning_rate(self.optimizer, self.recipe, step * order.batch_size)
        self.optimizer.zero_grad(set_to_none=True)
        num_passes, passes = order.num_passes(step, self.ranks.num_ranks), []
        for forward_pass in range(num_passes):
            with _gradients_stay(self.network, forward_pass < num_passes - 1):
                passes.append(
                    self._add_gradients(next(batches), step, forward_pass, order.num_images(step))
                )
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)
        return passes, lr

    def _add_gradients(self, batch: Batch, step: int, forward_pass: int, num_images: int) -> Pass:
        """Those of a micro-batch. ``num_images``: of the global batch, over which the loss is a mean."""
        for row, kind, reason in batch.failures:
            log.warning("image left out: row %d, %s: %s", row, kind, reason)
        refuse_unread(batch)
        ranks, recipe = self.ranks, self.recipe
        number = forward_pass * ranks.num_ranks + ranks.rank
        torch.manual_seed(noise_seed(self.seed, step, number))
        if not len(batch.rows):
            if ranks.num_ranks > 1:
                self._take_part(batch.images_NCHW.shape)
            return Pass(step, 0.0, 0, 0, len(batch.failures))
        images = transforms.normalize(batch.images_NCHW, ranks.device, self.layout)
        targets = self.labels[batch.rows].to(ranks.device, non_blocking=True)
        mixed, soft = self.mixing(images, targets) if self.mixing else (images, targets)
        alone = len(mixed) == 1  # BatchNorm needs two values: the image and itself, half each
        if alone:
            mixed, soft = (torch.cat([each, each]) for each in (mixed, soft))
        with _autocast(recipe, ranks.device):
            logits = self.network(mixed)
        loss = nn.functional.cross_entropy(
            logits.float(), soft, label_smoothing=recipe.label_smoothing, reduction="sum"
        ) / (2 if alone else 1)
        share = loss / num_images
        (share * ranks.num_ranks).backward()  # type: ignore[no-untyped-call]  # DDP divides by it
        correct = (logits.detach()[: len(targets)].argmax(1) == targets).sum()
        return Pass(
            step, loss.detach() / len(batch.rows), correct, len(batch.rows), len(batch.failures)
        )

    def _take_part(self, shape: torch.Size) -> None:
        """Without an image: others wait for this rank's gradients, which are zero, and statistics."""
        sync_batchnorm = self.recipe.sync_batchnorm
        self.network.train(sync_batchnorm)  # else statistics would change
        images = torch.zeros(0 if sync_batchnorm else 1, *shape[1:], device=self.ranks.device)
        (self.network(images).sum() * 0).backward()
        self.network.train()

    def state(self) -> dict[str, Any]:
        """All that a step changes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])

    def result(self) -> dict[str, torch.Tensor]:
        """The weights to use: the average where there is one."""
        return (self.average.module if self.average else self.model).state_dict()


def noise_seed(seed: int, step: int, number: int) -> int:
    """Of dropout and mixing in a pass: 32 bits, as the generator of a CPU takes no more."""
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0])


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


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled=devices.is_bfloat16(recipe.precision, device)
    )

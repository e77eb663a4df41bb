"""Learning rates as functions of images processed, and the optimiser they drive."""

import math
from typing import Any

import torch
import torch._dynamo  # its optimisers do, later, when Python looks for garbage while it imports
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from semisup.config import Recipe
from semisup.distributed import Ranks
from semisup.tables import DataError


def learning_rate(recipe: Recipe, images: int) -> float:
    """The rate in force after ``images`` images, the same however they were batched.

    The full rate is ``base_lr`` times ``global_batch_size / 256`` (paper, section 4.1, after Goyal
    et al., 2017). The warm-up rises linearly to it from the rate of a batch of 256. ``step`` cuts
    ``num_decays`` times at equally spaced points of the budget; ``cosine`` falls to zero.
    """
    scale = recipe.global_batch_size / 256
    full = recipe.base_lr * scale
    if images < recipe.warmup_images:
        start = min(recipe.base_lr, full)
        return start + (full - start) * images / recipe.warmup_images
    if recipe.schedule == "constant":
        return full
    if recipe.schedule == "step":
        cuts = images * (recipe.num_decays + 1) // recipe.images
        return full * recipe.decay_factor ** min(cuts, recipe.num_decays)
    span = max(recipe.images - recipe.warmup_images, 1)
    progress = min((images - recipe.warmup_images) / span, 1.0)
    return full * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, images: int) -> float:
    lr = learning_rate(recipe, images)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def place(model: nn.Module, recipe: Recipe, ranks: Ranks) -> nn.Module:
    """The model on its device, ready to learn. Raises DataError where sync-BN cannot work."""
    if recipe.sync_batchnorm and ranks.num_ranks > 1:
        if ranks.device.type != "cuda":
            raise DataError(
                "sync_batchnorm: true works on GPUs only, and this training has "
                f"{ranks.num_ranks} ranks without. Set it to false, or train with one rank."
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model.to(ranks.device).train()


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD; with ``weight_decay_on: weights``, biases and parameters of norms do not decay."""
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if recipe.weight_decay_on == "weights":
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        matrices = [p for p in model.parameters() if p.ndim > 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(
        groups,
        lr=recipe.base_lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def make_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The exponential moving average of weights and statistics over about ``ema_images``."""
    if recipe.ema_images is None:
        return None
    decay = math.exp(-recipe.global_batch_size / recipe.ema_images)
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)

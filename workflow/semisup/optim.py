"""Learning rates as functions of images processed, and the optimiser they drive."""

import math

import torch
from torch import nn

from semisup.config import Recipe


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


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.base_lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )

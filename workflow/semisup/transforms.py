"""From decoded pixels to what a network sees."""

import functools

import numpy as np
import torch

from semisup.config import Recipe
from semisup.settings import Preprocessing
from semisup.vision import v2

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (height, width, 3) to uint8 (3, height, width)."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def evaluation_transform(how: Preprocessing) -> v2.Transform:
    """uint8 (3, h, w) to uint8 (3, image_size, image_size): resize, central crop."""
    mode = v2.InterpolationMode(how.interpolation)
    return v2.Compose([v2.Resize(how.resize, mode), v2.CenterCrop(how.image_size)])


def training_transform(recipe: Recipe, how: Preprocessing) -> v2.Transform:
    """What a recipe does to each image; randomness is torch's global generator."""
    size, mode = how.image_size, v2.InterpolationMode(how.interpolation)
    crops = {
        "random_resized": [v2.RandomResizedCrop(size, interpolation=mode)],
        "padded": [v2.Resize((size, size), mode), v2.RandomCrop(size, padding=size // 8)],
        "none": [v2.Resize(size, mode), v2.CenterCrop(size)],
    }
    changes: list[v2.Transform] = [*crops[recipe.crop]]
    if recipe.flip:
        changes.append(v2.RandomHorizontalFlip())
    if recipe.rand_augment:
        bilinear = v2.InterpolationMode.BILINEAR
        changes.append(v2.RandAugment(magnitude=recipe.rand_augment, interpolation=bilinear))
    if recipe.random_erasing:
        # The mean, which is 0 once normalised, as where erasing comes last.
        mean = [float(round(255 * value)) for value in MEAN]
        changes.append(v2.RandomErasing(recipe.random_erasing, value=mean))
    return v2.Compose(changes)


def mixing(recipe: Recipe, num_classes: int) -> v2.Transform | None:
    """Mixup and CutMix of a batch and its labels, which become shares of classes; one at a time."""
    ways = [
        way(alpha=alpha, num_classes=num_classes)
        for way, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha
    ]
    return v2.RandomChoice(ways) if ways else None


def normalize(
    images_NCHW: torch.Tensor,
    device: torch.device,
    layout: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """uint8 pixels to normalised float32 on the device, in the layout the network has."""
    pixels = images_NCHW.to(device, non_blocking=True).float().div_(255)
    mean, std = _mean_and_std(device)
    return pixels.sub_(mean).div_(std).contiguous(memory_format=layout)


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """On the device once: each copy to a GPU would wait for all it has to do."""
    with torch.inference_mode(mode=False):  # a training may use them too
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
        return mean, std

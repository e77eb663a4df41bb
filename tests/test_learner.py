import numpy as np
import pytest
import torch
from torch import nn

from semisup import models
from semisup.config import Recipe
from semisup.distributed import Ranks
from semisup.learner import Learner
from semisup.loader import Batch
from semisup.order import TrainingOrder

NUM_IMAGES = 8


def learn(arch: str, **keys: object) -> tuple[nn.Module, list[torch.Tensor], float]:
    """A network after one step, the images it was shown, and their loss."""
    recipe = Recipe.model_validate({"images": 8, "global_batch_size": 8, **keys})
    torch.manual_seed(0)
    model = models.build(arch, 2, image_size=64)
    shown = list[torch.Tensor]()
    model.register_forward_pre_hook(lambda _, images: shown.extend(images))
    labels = torch.arange(NUM_IMAGES) % 2
    learner = Learner(model, 2, labels, recipe, 0, Ranks(0, 1, torch.device("cpu")))
    rows = np.arange(NUM_IMAGES)
    pixels = torch.randint(256, (NUM_IMAGES, 3, 64, 64), dtype=torch.uint8)
    order = TrainingOrder(rows, 0, 8, 8)
    (done,), _ = learner.learn(order, 0, iter([Batch(rows, pixels, [])]))
    return learner.model, shown, float(done.loss)


def is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wanted", [True, False])
def test_images_and_weights_have_channels_last_where_the_recipe_says_so(wanted: bool) -> None:
    model, (images,), _ = learn("resnet18", channels_last=wanted)
    assert is_channels_last(images) is wanted
    assert is_channels_last(model.get_submodule("layer1.0.conv1").weight) is wanted


def test_a_narrow_network_never_has_channels_last() -> None:
    _, (images,), _ = learn("cifar_resnet8_w8", channels_last=True)
    assert not is_channels_last(images)


def test_the_layout_changes_no_loss() -> None:
    assert learn("resnet18", channels_last=True)[2] == pytest.approx(
        learn("resnet18", channels_last=False)[2], rel=1e-4
    )

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from semisup.planted import KINDS, plant


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_another_picture_and_the_same_each_time(kind) -> None:
    pixels = load_sample_images().images[0][::3, ::3]
    made = plant(kind, pixels)
    assert made.dtype == np.uint8
    assert made.ndim == 3
    assert made.shape != pixels.shape or (made != pixels).any()
    assert np.array_equal(made, plant(kind, pixels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (8, 8)])
def test_small_pictures_can_be_changed_too(kind, shape) -> None:
    assert min(plant(kind, np.full((*shape, 3), 100, np.uint8)).shape) >= 1

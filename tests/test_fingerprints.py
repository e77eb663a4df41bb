import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from conftest import make_jpeg
from semisup import loader
from semisup.fingerprints import fingerprint, perceptual_hash, pixel_hash
from small import encode


def photograph(number: int = 0) -> torch.Tensor:
    return torch.from_numpy(load_sample_images().images[number].transpose(2, 0, 1).copy())


def encoded(pixels: torch.Tensor, **options) -> torch.Tensor:
    image = Image.fromarray(pixels.numpy().transpose(1, 2, 0))
    image.save(buffer := io.BytesIO(), "JPEG", **options)
    return loader.decode(buffer.getvalue())


def bits(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def test_the_same_pixels_in_other_files_have_the_same_hash() -> None:
    pixels = loader.decode(make_jpeg(1))
    as_png = loader.decode(encode(pixels.numpy().transpose(1, 2, 0)))
    assert pixel_hash(as_png) == pixel_hash(pixels)
    assert len(pixel_hash(pixels)) == 16


def test_one_grey_level_or_another_shape_is_another_hash() -> None:
    pixels = torch.zeros(3, 4, 6, dtype=torch.uint8)
    changed = pixels.clone()
    changed[1, 2, 3] = 1
    hashes = {pixel_hash(p) for p in (pixels, changed, pixels.reshape(3, 6, 4))}
    assert len(hashes) == 3


@pytest.mark.parametrize("change", ["jpeg", "small", "darker"])
def test_the_perceptual_hash_hardly_changes_with_a_near_duplicate(change) -> None:
    pixels = photograph()
    changed = {
        "jpeg": lambda: encoded(pixels, quality=30),
        "small": lambda: torch.nn.functional.interpolate(
            pixels[None].float(), scale_factor=0.3, mode="area"
        )[0].to(torch.uint8),
        "darker": lambda: (pixels.float() * 0.8).to(torch.uint8),
    }[change]()
    assert bits(perceptual_hash(pixels), perceptual_hash(changed)) <= 4


def test_the_perceptual_hashes_of_different_pictures_are_far_apart() -> None:
    assert bits(perceptual_hash(photograph(0)), perceptual_hash(photograph(1))) > 16


def test_flat_pictures_of_any_grey_have_one_perceptual_hash() -> None:
    flat = {perceptual_hash(torch.full((3, 37, 53), grey, dtype=torch.uint8)) for grey in (9, 200)}
    assert len(flat) == 1


def test_a_fingerprint_holds_both_hashes() -> None:
    pixels = loader.decode(make_jpeg(2))
    made = fingerprint(pixels)
    assert made.dtype == torch.int64
    assert made[:2].numpy().tobytes() == pixel_hash(pixels)
    assert int(made[2]) == perceptual_hash(pixels)
    assert np.iinfo(np.int64).min <= int(made[2]) <= np.iinfo(np.int64).max

"""Decoding for networks: torchvision's decoder where it gives Pillow's pixels, never another verdict."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Dataset, make_jpeg
from semisup import images, loader, tars, transforms
from semisup.samples import read_samples
from semisup.tables import DataError
from small import encode, square


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def jpeg(pixels: np.ndarray, mode: str, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (33, 17), (64, 100)])
def test_jpegs_have_the_pixels_of_pillow(mode: str, size: tuple[int, int]) -> None:
    for sampling, progressive, quality in itertools.product(
        (0, 1, 2), (False, True), (30, 75, 100)
    ):
        options = {"subsampling": sampling, "progressive": progressive, "quality": quality}
        content = jpeg(noise(*size, 3, quality), mode, **options)
        expected = transforms.to_tensor(images.decode(content))
        assert torch.equal(loader.decode(content), expected), options


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_have_the_pixels_of_pillow(format: str) -> None:
    content = encode(noise(20, 30, 3), format)
    assert torch.equal(loader.decode(content), transforms.to_tensor(images.decode(content)))


def test_damaged_jpegs_have_the_verdict_of_pillow() -> None:
    whole = jpeg(noise(64, 64, 3), "RGB")
    for length in (0, 10, 100, 400, len(whole) // 2, len(whole) - 2):
        with pytest.raises(images.ImageError) as expected:
            images.decode(whole[:length])
        with pytest.raises(images.ImageError) as found:
            loader.decode(whole[:length])
        assert (found.value.kind, str(found.value)) == (expected.value.kind, str(expected.value))


def test_an_image_that_cannot_be_read_is_no_image_to_leave_out() -> None:
    empty = torch.empty(0, 3, 8, 8)
    corrupt = (3, "truncated_image", "cut")
    loader.refuse_unread(loader.Batch(np.empty(0), empty, [corrupt]))
    with pytest.raises(
        DataError, match=r"1 images of a batch cannot be read any more: a\.tar: gone"
    ):
        unread = (4, tars.READ_ERROR, "a.tar: gone")
        loader.refuse_unread(loader.Batch(np.empty(0), empty, [corrupt, unread]))


def test_an_image_that_changed_since_it_was_indexed_is_not_learned(make_dataset: Dataset) -> None:
    contents = [make_jpeg(i) for i in range(4)]
    shards = [[(str(i), {"jpg": contents[i]})] for i in range(4)]
    samples = read_samples(make_dataset(shards, None, shards_per_part=2))
    path = Path(samples.shard_paths[2])
    other = contents[2][:-40] + bytes(10) + contents[2][-30:]
    path.write_bytes(path.read_bytes().replace(contents[2], other))
    rows = np.arange(4)
    batches = list(loader.evaluation_batches(samples, rows, square(8), batch_size=1, workers=0))
    assert [len(batch.rows) for batch in batches] == [1, 1, 0, 1]
    with pytest.raises(DataError, match="the tar has changed since it was indexed"):
        loader.refuse_unread(batches[2])


def test_a_jpeg_that_claims_gigapixels_is_refused_from_its_header() -> None:
    content = bytearray(jpeg(noise(16, 16, 3), "RGB"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(images.ImageError) as caught:
        loader.decode(bytes(content))
    assert caught.value.kind == "too_many_pixels"

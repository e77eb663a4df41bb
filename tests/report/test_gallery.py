import base64
import io

import pytest
from PIL import Image

from semisup.report.gallery import LARGEST_SIDE, thumbnail


def encode(width: int, height: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return buffer.getvalue()


def size_of(uri: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).size


@pytest.mark.parametrize("size", [(32, 32), (1, 5), (LARGEST_SIDE, 3)])
def test_a_small_image_keeps_its_pixels(size: tuple[int, int]) -> None:
    picture = thumbnail(encode(*size))
    assert picture.src.startswith("data:image/png;base64,")
    assert size_of(picture.src) == size


@pytest.mark.parametrize("size", [(500, 300), (20, 1900)])
def test_a_large_image_becomes_small(size: tuple[int, int]) -> None:
    picture = thumbnail(encode(*size))
    assert picture.src.startswith("data:image/jpeg;base64,")
    assert max(size_of(picture.src)) == LARGEST_SIDE


def test_what_is_no_image_becomes_its_problem() -> None:
    picture = thumbnail(b"<svg onload=alert(1)>")
    assert picture.src == ""
    assert picture.problem

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from semisup import images
from semisup.images import ImageError, decode
from small import encode, make_jpeg

sides = st.tuples(st.integers(1, 12), st.integers(1, 12))
pixels_of = hnp.arrays(np.uint8, sides.map(lambda side: (*side, 3)))


def kind(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content)
    assert str(caught.value)
    return caught.value.kind


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# --- what can be used ----------------------------------------------------------------------


@given(pixels_of, st.sampled_from(["PNG", "BMP", "PPM", "TIFF"]))
def test_lossless_formats_give_exactly_their_pixels(pixels: np.ndarray, format: str) -> None:
    assert np.array_equal(decode(encode(pixels, format)), pixels)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF"])
def test_every_format_becomes_rgb_of_the_size_of_the_image(format: str) -> None:
    flat = np.full((20, 30, 3), 128, np.uint8)
    decoded = decode(encode(flat, format))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded.astype(int) - 128).max() <= 3


@given(hnp.arrays(np.uint8, sides))
def test_grey_becomes_three_equal_channels(grey: np.ndarray) -> None:
    assert np.array_equal(decode(encode(grey)), np.repeat(grey[..., None], 3, axis=2))


@given(hnp.arrays(np.uint16, sides), st.sampled_from(["PNG", "TIFF"]))
def test_grey_of_16_bits_keeps_its_upper_byte(grey: np.ndarray, format: str) -> None:
    decoded = decode(encode(grey, format))
    assert np.array_equal(decoded[..., 0], grey >> 8)


def test_bilevel_becomes_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    assert decode(encode(bits))[..., 0].tolist() == [[255, 0], [0, 255]]


def test_a_palette_becomes_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(save(image, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparency_is_dropped_and_the_colours_stay() -> None:
    pixels = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], np.uint8)
    assert decode(encode(pixels)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_palette_with_transparent_colours_is_read_without_a_warning() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    content = save(image, "PNG", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content).tolist() == [[[10, 20, 30], [10, 20, 30]]]


def test_cmyk_becomes_its_colours() -> None:
    red = save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(decode(red).astype(int) - [255, 0, 0]).max() <= 10


def test_the_first_picture_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    content = save(first, "GIF", save_all=True, append_images=[second])
    assert decode(content)[0, 0].tolist() == [255, 0, 0]


# --- what cannot ---------------------------------------------------------------------------


def test_no_bytes() -> None:
    assert kind(b"") == "empty"


@pytest.mark.parametrize(
    "content",
    [b"hello", b"<html></html>", b"\xff\xd8", bytes(1000), b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0"],
)
def test_what_is_no_image(content: bytes) -> None:
    assert kind(content) == "not_an_image"


def test_formats_that_call_other_programs_are_no_images() -> None:
    assert kind(save(Image.new("RGB", (4, 4)), "EPS")) == "not_an_image"


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_image_cut_in_the_middle(format: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encode(pixels, format)
    assert kind(content[: len(content) // 2]) == "truncated_image"


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (10_000, 9_000)])
def test_an_image_that_claims_too_many_pixels_is_refused_by_its_header(
    size: tuple[int, int],
) -> None:
    assert kind(png_header(*size)) == "too_many_pixels"


def test_the_reason_names_the_size() -> None:
    with pytest.raises(ImageError, match=r"10000 x 9000 is more than 89,478,485 pixels"):
        decode(png_header(10_000, 9_000))


@pytest.mark.parametrize("size", [(1, 101), (505, 5)])
def test_an_image_that_is_too_thin_is_refused(size: tuple[int, int]) -> None:
    assert kind(save(Image.new("L", size), "PNG")) == "too_thin"


@pytest.mark.parametrize("size", [(1, 100), (500, 5), (1, 1)])
def test_an_image_may_be_a_hundred_times_longer_than_wide(size: tuple[int, int]) -> None:
    assert decode(save(Image.new("L", size), "PNG")).shape == (size[1], size[0], 3)


def test_pixels_that_are_no_colours_are_refused() -> None:
    assert kind(save(Image.new("F", (4, 4)), "TIFF")) == "unsupported_mode"
    assert kind(save(Image.new("LAB", (4, 4)), "TIFF")) == "unsupported_mode"


def test_the_limit_of_pixels_may_be_another() -> None:
    content = encode(np.zeros((5, 4, 3), np.uint8))
    assert decode(content, max_pixels=20).shape == (5, 4, 3)
    with pytest.raises(ImageError, match="4 x 5 is more than 19 pixels"):
        decode(content, max_pixels=19)


def test_a_jpeg_of_hundreds_of_scans_is_refused() -> None:
    """Fourteen bytes of one cost as much as decoding the image."""
    content = encode(np.zeros((64, 64, 3), np.uint8), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    some = content[:-2] + 20 * last + b"\xff\xd9"
    assert decode(some).shape == (64, 64, 3)
    assert kind(content[:-2] + 200 * last + b"\xff\xd9") == "too_many_scans"


KINDS = {
    "unsupported_mode",
    "not_an_image",
    "truncated_image",
    "decode_error",
    "too_many_pixels",
    "too_thin",
    "too_many_scans",
    "empty",
}


def decodes_or_says_why(content: bytes) -> None:
    try:
        decoded = decode(content)
    except ImageError as error:
        assert error.kind in KINDS
        assert str(error)
    else:
        assert decoded.ndim == 3
        assert decoded.shape[2] == 3
        assert decoded.dtype == np.uint8


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_say_why_not(content: bytes) -> None:
    decodes_or_says_why(content)


SEEDS = [make_jpeg(1), *(encode(np.full((9, 9, 3), 77, np.uint8), f) for f in images.FORMATS)]


@given(st.sampled_from(SEEDS), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_image_decodes_or_says_why_not(
    content: bytes, position: int, damage: bytes
) -> None:
    place = position % len(content)
    decodes_or_says_why(content[:place] + damage + content[place + len(damage) :])


@given(st.sampled_from(SEEDS), st.integers(1, 400))
def test_an_image_cut_anywhere_decodes_or_says_why_not(content: bytes, size: int) -> None:
    decodes_or_says_why(content[: size % len(content) or 1])

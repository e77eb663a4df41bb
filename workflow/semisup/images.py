"""Image bytes to pixels: one decoder for every stage, failures with a kind and a reason."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Largest image decoded, in pixels, where nobody says otherwise: Pillow's own limit."""

MAX_ASPECT = 100
"""Largest ratio of the sides: resizing the shorter one would blow a thin image up."""

MAX_SCANS = 100
"""Most scans of a progressive JPEG, which has about ten: fourteen bytes of one go over all pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What Pillow may take the bytes for; never the formats that call other programs."""


MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I"}
)
"""Pillow's names of pixels with an agreed meaning as colours; also I;16 of any byte order."""


class ImageError(Exception):
    """An image that cannot be used: ``kind`` is its status, the message the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """RGB pixels as uint8 of shape (height, width, 3).

    CMYK, palette, greyscale and alpha are converted; 16-bit grey keeps its upper byte. Raises
    ImageError with kind ``empty``, ``not_an_image``, ``too_many_pixels``, ``too_thin``,
    ``too_many_scans`` or ``unsupported_mode`` (told before anything is allocated),
    ``truncated_image`` or ``decode_error``.
    """
    with _opened(content, max_pixels) as image:
        image.load()
        return np.asarray(_to_rgb(image))


def is_plain_jpeg(content: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether this is a JPEG in colour or grey, as its header says; raises what decode raises."""
    with _opened(content, max_pixels) as image:
        return image.format == "JPEG" and image.mode in ("RGB", "L")


@contextmanager
def _opened(content: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    if not content:
        raise ImageError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(*image.size, max_pixels)
                _check_mode(image.mode)
                if "progressive" in image.info:
                    _check_scans(content)
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image", "no known image format") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except Exception as error:  # Pillow's decoders raise anything on crafted bytes
        kind = "truncated_image" if "truncated" in str(error).lower() else "decode_error"
        raise ImageError(kind, str(error) or type(error).__name__) from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            "too_many_pixels", f"{width} x {height} is more than {max_pixels:,} pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            "too_thin", f"{width} x {height}: one side is {MAX_ASPECT} times the other"
        )


def _check_scans(content: bytes) -> None:
    if (scans := content.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError("too_many_scans", f"{scans:,} scans are more than {MAX_SCANS}")


def _check_mode(mode: str) -> None:
    if mode not in MODES and not mode.startswith("I;16"):
        raise ImageError("unsupported_mode", f"pixels of mode {mode} are no colours to convert")


def _to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip everything above 255 to white
        grey = np.asarray(image) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")

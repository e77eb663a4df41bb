"""Near-duplicates made on purpose, of which the search should find every one."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Change = Callable[[Image.Image], Image.Image]


def _jpeg(image: Image.Image) -> Image.Image:
    image.save(buffer := io.BytesIO(), "JPEG", quality=40)
    with Image.open(buffer) as again:
        return again.convert("RGB")


def _half(image: Image.Image) -> Image.Image:
    return image.resize((max(image.width // 2, 1), max(image.height // 2, 1)))


def _crop(image: Image.Image) -> Image.Image:
    """Without a tenth of each side, more to the left and the top."""
    left, top = image.width // 15, image.height // 15
    right, bottom = image.width - image.width // 30, image.height - image.height // 30
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.25)


def _captioned(image: Image.Image) -> Image.Image:
    """A white strip with words over the lowest seventh."""
    made = image.copy()
    height = max(image.height // 7, 1)
    draw = ImageDraw.Draw(made)
    draw.rectangle((0, image.height - height, image.width, image.height), fill="white")
    draw.text((1, image.height - height), "photo by somebody", fill="black",
              font_size=max(height * 0.7, 1))  # fmt: skip
    return made


KINDS: dict[str, Change] = {
    "JPEG, quality 40": _jpeg,
    "half the size": _half,
    "a tenth cropped": _crop,
    "mirrored": ImageOps.mirror,
    "a quarter brighter": _brighter,
    "caption strip": _captioned,
}


def plant(kind: str, pixels: np.ndarray) -> np.ndarray:
    """The changed picture; ``pixels``: uint8 (height, width, 3)."""
    return np.asarray(KINDS[kind](Image.fromarray(pixels)))

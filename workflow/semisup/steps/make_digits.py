"""scikit-learn's handwritten digits as WebDataset tars; the unlabelled ones with realistic dirt.

Digits and photographs come with the scikit-learn package. Keys tell what a sample is, as in
``near_duplicate-of-digit-0456``; the number of a digit is its position in ``load_digits``.
"""

import io
import logging
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from semisup import tars
from semisup.datasets import DIGITS
from semisup.settings import MakeDigits
from semisup.steps import run
from semisup.tables import atomic_path

log = logging.getLogger(__name__)

SIDE = 32
PER_CLASS = {"labeled": 4, "validation": 20, "test": 50}
NO_CLASS = -1
NUM_CLUTTER = 150
NUM_NEAR_DUPLICATES = 60
NUM_COPIES = 40
NUM_PER_VARIANT = 3
PNG_SHARE = 0.15


class Sample(NamedTuple):
    """A sample of a tar: its key and the content of its members by extension."""

    key: str
    members: dict[str, bytes]


class Digits(NamedTuple):
    """Greyscale images and their classes."""

    images: list[Image.Image]
    labels: NDArray[np.int64]


def main(settings: MakeDigits, output: Path) -> None:
    """Write the digits as tars into the folder OUTPUT."""
    for split, shards in make_splits(settings.seed).items():
        for number, shard in enumerate(shards):
            path = output / f"{split}-{number:05d}.tar"
            if split == "unlabeled" and number == len(shards) - 1:
                write_cut_tar(path, shard)
            else:
                tars.write_tar(path, shard)
        kinds = Counter(sample.key.partition("-")[0] for shard in shards for sample in shard)
        summary = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        log.info("%s: %d tars, %d samples: %s", split, len(shards), kinds.total(), summary)


def write_cut_tar(path: Path, samples: list[Sample]) -> None:
    """Write a tar that ends in the middle of its last image."""
    with atomic_path(path) as temporary:
        tars.write_tar(temporary, samples)
        image = tars.read_shard(temporary, None).samples[-1]
        os.truncate(temporary, image.offset + (image.size_bytes // 2 | 1))  # odd: within a block


def make_splits(seed: int) -> dict[str, list[list[Sample]]]:
    """The samples of every shard of every split."""
    rng = np.random.default_rng(seed)
    digits = read_digits()
    splits = split_by_class(digits.labels, rng)
    shards = {
        split: into_shards([make_digit(digits, i, rng) for i in splits[split]], num_shards)
        for split, num_shards in DIGITS.num_shards.items()
        if split != "unlabeled"
    }
    return shards | {"unlabeled": make_unlabeled(digits, splits["unlabeled"], splits["test"], rng)}


def read_digits() -> Digits:
    data = load_digits()
    inks = np.pad(data.images / data.images.max(), ((0, 0), (1, 1), (1, 1)))  # a margin
    images = [Image.fromarray(np.round(ink * 255).astype(np.uint8)) for ink in inks]
    return Digits([i.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for i in images], data.target)


def split_by_class(
    labels: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Disjoint positions of the labelled splits, class-balanced, and of the rest; each shuffled."""
    chosen: dict[str, list[NDArray[np.int64]]] = {split: [] for split in [*PER_CLASS, "unlabeled"]}
    ends = np.cumsum(list(PER_CLASS.values()))
    for class_id in np.unique(labels):
        positions = rng.permutation(np.flatnonzero(labels == class_id))
        for split, part in zip(chosen, np.split(positions, ends), strict=True):
            chosen[split].append(part)
    return {split: rng.permutation(np.concatenate(parts)) for split, parts in chosen.items()}


def into_shards(samples: list[Sample], num_shards: int) -> list[list[Sample]]:
    bounds = np.linspace(0, len(samples), num_shards + 1).astype(int)
    return [samples[a:b] for a, b in pairwise(bounds)]


def make_unlabeled(
    digits: Digits,
    positions: NDArray[np.int64],
    test_positions: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[list[Sample]]:
    """Digits, clutter and dirt, shuffled; the last sample of the last shard is there to be cut."""
    remaining = iter(positions)
    variants = [
        _sample(f"{kind}-{i:04d}", extension, encode(digits.images[i]), digits.labels[i])
        for kind, (extension, encode) in VARIANTS.items()
        for i in islice(remaining, NUM_PER_VARIANT)
    ]
    to_cut = next(remaining)
    plain = [make_digit(digits, i, rng) for i in remaining] + list(make_clutter(rng))
    samples = [
        *plain,
        *variants,
        *make_near_duplicates(digits, test_positions, rng),
        *make_copies(plain, rng),
        *make_junk(),
    ]
    shuffled = [samples[i] for i in rng.permutation(len(samples))]
    shards = into_shards(shuffled, DIGITS.num_shards["unlabeled"])
    cut = _jpeg(digits.images[to_cut])
    shards[-1].append(_sample(f"cut-{to_cut:04d}", "jpg", cut, digits.labels[to_cut]))
    return shards


def make_digit(digits: Digits, position: int, rng: np.random.Generator) -> Sample:
    image = digits.images[position].convert("RGB")
    return _encoded(f"digit-{position:04d}", image, digits.labels[position], rng)


def make_clutter(rng: np.random.Generator) -> Iterator[Sample]:
    """Square crops of photographs: images of no class."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(NUM_CLUTTER):
        photograph = photographs[number % len(photographs)]
        side = int(rng.integers(SIDE, 200))
        left = int(rng.integers(photograph.width - side + 1))
        top = int(rng.integers(photograph.height - side + 1))
        crop = photograph.crop((left, top, left + side, top + side))
        image = crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield _encoded(f"clutter-{number:04d}", image, NO_CLASS, rng)


def make_near_duplicates(
    digits: Digits, positions: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[Sample]:
    """Digits shifted by a pixel, a little brighter or darker, in another JPEG quality."""
    for position in rng.choice(positions, NUM_NEAR_DUPLICATES, replace=False):
        shift = [(1, 0), (-1, 0), (0, 1), (0, -1)][rng.integers(4)]
        image = Image.new("RGB", (SIDE, SIDE))
        image.paste(digits.images[position].convert("RGB"), shift)
        image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.85, 1.15)))
        content = _jpeg(image, quality=int(rng.integers(60, 80)))
        key = f"near_duplicate-of-digit-{position:04d}"
        yield _sample(key, "jpg", content, digits.labels[position])


def make_copies(samples: list[Sample], rng: np.random.Generator) -> Iterator[Sample]:
    """The same bytes under other keys."""
    for i in rng.choice(len(samples), NUM_COPIES, replace=False):
        yield Sample(f"copy-of-{samples[i].key}", samples[i].members)


def make_junk() -> Iterator[Sample]:
    """What a crawl brings along that no decoder can use."""
    page = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n<p>The photo is gone.</p>\n"
    yield _sample("empty-0000", "jpg", b"", NO_CLASS)
    yield _sample("text-0000", "jpg", page, NO_CLASS)
    yield _sample("gigapixels-0000", "png", _png_header(60_000, 60_000), NO_CLASS)
    yield _sample("no_image-0000", "json", b'{"url": "https://example.org/gone.jpg"}', NO_CLASS)


def _encoded(key: str, image: Image.Image, label: int, rng: np.random.Generator) -> Sample:
    if rng.random() < PNG_SHARE:
        return _sample(key, "png", _png(image), label)
    return _sample(key, "jpg", _jpeg(image), label)


def _sample(key: str, extension: str, content: bytes, label: int) -> Sample:
    return Sample(key, {extension: content, "cls": str(label).encode()})


def _jpeg(image: Image.Image, quality: int = 90) -> bytes:
    image.save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with hardly any pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _cut_scan(jpeg: bytes) -> bytes:
    """The first half of the pixels of a JPEG."""
    scan = jpeg.index(b"\xff\xda")
    return jpeg[: (scan + len(jpeg)) // 2]


def _deep_grey(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def _half_transparent(image: Image.Image) -> Image.Image:
    return Image.merge("RGBA", [image] * 3 + [Image.new("L", image.size, 128)])


VARIANTS: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "truncated_jpeg": ("jpg", lambda image: _cut_scan(_jpeg(image))),
    "truncated_png": ("png", lambda image: _png(image)[:-50]),
    "cmyk": ("jpg", lambda image: _jpeg(image.convert("CMYK"))),
    "grey_jpeg": ("jpg", _jpeg),
    "grey_png": ("png", _png),
    "palette": ("png", lambda image: _png(image.quantize(32))),
    "rgba": ("png", lambda image: _png(_half_transparent(image))),
    "grey16": ("png", lambda image: _png(_deep_grey(image))),
}


if __name__ == "__main__":
    run(main)

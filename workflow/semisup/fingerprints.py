"""What is told of an image by its pixels alone, without a network."""

import functools
import math

import numpy as np
import torch
import xxhash
from torch import nn

SIDE, LOW = 32, 8
"""The perceptual hash looks at this many pixels a side, and at so many frequencies of each."""

LEVEL = 0.5
"""Frequencies are compared in steps of this many grey levels: noise of arithmetic is none."""


def fingerprint(pixels: torch.Tensor) -> torch.Tensor:
    """Three int64: the pixel hash in two halves, and the perceptual hash.

    ``pixels``: uint8 (3, height, width), as decoded.
    """
    first, second = np.frombuffer(pixel_hash(pixels), np.int64)
    return torch.tensor([first, second, perceptual_hash(pixels)])


def pixel_hash(pixels: torch.Tensor) -> bytes:
    """XXH3 of the shape and the decoded pixels, 128 bits: equal for equal pictures in other files."""
    digest = xxhash.xxh3_128(np.array(pixels.shape, np.int64).tobytes())
    digest.update(pixels.contiguous().numpy().data)
    return digest.digest()


def perceptual_hash(pixels: torch.Tensor) -> int:
    """64 bits, of which near-duplicates differ in few: each low frequency against their median.

    Grey, shrunk to 32 x 32 by averaging, a cosine transform (DCT-II), its 8 x 8 lowest frequencies
    (Zauner, 2010).
    """
    grey = pixels.float().mean(0)
    small = nn.functional.interpolate(grey[None, None], (SIDE, SIDE), mode="area")[0, 0].numpy()
    low = np.round(_cosines() @ small @ _cosines().T / LEVEL)
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">i8")[0])


@functools.cache
def _cosines() -> np.ndarray:
    """The first rows of the orthonormal DCT-II matrix, over SIDE: frequencies in grey levels."""
    k, n = np.mgrid[:LOW, :SIDE]
    rows = np.cos(math.pi * k * (2 * n + 1) / (2 * SIDE)) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows / math.sqrt(SIDE)

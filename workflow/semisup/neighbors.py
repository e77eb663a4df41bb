"""All pairs of images of U and evaluation images within a distance: exact, and streaming."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from semisup import devices

TILE = 2048
"""Images of U and evaluation images compared at a time on a CPU: their products stay in its cache."""

RECHECKED = 8192
"""Candidates whose distances are computed at a time."""

PREFIXES = (32, 64, 128, 256)


class Pairs(NamedTuple):
    """Rows of close pairs in the queries and in the index, and how far apart they are."""

    query: np.ndarray  # int64
    match: np.ndarray  # int64
    distance: np.ndarray  # float32


class Neighbors:
    """The features of the evaluation images as an index past which the images of U stream.

    The roles are the inverse of the usual: the small set is indexed, so memory does not depend on
    the size of U (paper, section 4.1, searches the same pairs). Nothing is approximate: a cheap
    bound says which pairs can be close, and their distances are computed exactly (features.py).

    The bound: rotate both sets by the principal axes of the index and cut each feature into a prefix
    and a rest. By Cauchy and Schwarz x . y is at most the product of the prefixes plus that of the
    lengths of the rests, which is one product of matrices with as many columns as the prefix and one
    more. In bfloat16, and with every rounding on the side of the candidates.
    """

    def __init__(self, vectors: np.ndarray, distance: float) -> None:
        """``vectors``: float16 (images, dimensions), at least one; pairs up to ``distance`` count."""
        self.distance = np.float32(distance)
        self.device = devices.choose_device()
        self.tile = TILE if self.device.type == "cpu" else 16 * TILE
        self.index = torch.from_numpy(vectors).to(self.device)
        self.prefix = 0
        self.dtype = torch.bfloat16 if _is_bfloat16_fast(self.device) else torch.float32
        exact = self.index.cpu().double()
        self.axes = torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1).float().to(self.device)

    def within(self, queries: np.ndarray) -> Iterator[Pairs]:
        """All pairs at most the distance apart, in blocks; rows of the index ascend for each query."""
        vectors = torch.from_numpy(queries).to(self.device)
        if not self.prefix:
            self._choose_prefix(vectors[: TILE // 4])
        for start in range(0, len(vectors), self.tile):
            block = vectors[start : start + self.tile]
            short, shortest = self._shorten(block, self.prefix)
            threshold = self._threshold(shortest, self.prefix)
            for first in range(0, len(self.index), self.tile):
                tile = self.short[first : first + self.tile]
                query, match = _above(short @ tile.T, threshold)
                yield from self._recheck(block, start, query, first + match)

    def _choose_prefix(self, sample: torch.Tensor) -> None:
        """The prefix that costs least: its product of matrices, and the distances it leaves to do.

        The weights are measured times; whatever is chosen, the pairs are the same.
        """
        costs = {}
        dimensions = self.index.shape[1]
        for prefix in [p for p in PREFIXES if p < dimensions] + [dimensions]:
            self.short, self.shortest = self._shorten(self.index, prefix)
            short, shortest = self._shorten(sample, prefix)
            threshold = self._threshold(shortest, prefix)
            left = len(_above(short @ self.short.T, threshold)[0])
            costs[prefix] = len(sample) * len(self.index) * (prefix + 40) + left * 3e6
        self.prefix = min(costs, key=costs.__getitem__)
        self.short, self.shortest = self._shorten(self.index, self.prefix)

    def _shorten(self, vectors: torch.Tensor, prefix: int) -> tuple[torch.Tensor, float]:
        """Prefix and length of the rest of each vector, and the least square of a whole length."""
        whole = vectors.float()
        first = whole @ self.axes[:, :prefix]
        squares = (whole**2).sum(1)
        # Rounding up the rest can only add candidates.
        rest = (squares - (first**2).sum(1)).clamp(min=0).add(_rounding(len(self.axes), prefix))
        short = torch.cat([first, rest.sqrt()[:, None]], 1).to(self.dtype)
        return short, float(squares.min()) if len(squares) else 0.0

    def _threshold(self, shortest: float, prefix: int) -> float:
        """What the product of two shortened features reaches if they are close enough.

        2 x . y = x.x + y.y - distance^2, minus what rounding may take: of both factors and of the
        result to 8 or 24 bits, of sums in float32, of the rotation.
        """
        unit = 2.0**-8 if self.dtype == torch.bfloat16 else 2.0**-24
        longest = 1.01  # features are L2-normalised
        rounding = 3.1 * unit * longest + _rounding(len(self.axes), prefix)
        limit = (shortest + self.shortest - float(self.distance) ** 2 * (1 + 1e-6)) / 2 - rounding
        rounded = torch.tensor(limit - abs(limit) * 2 * unit, dtype=self.dtype)
        return float(rounded)

    def _recheck(
        self, block: torch.Tensor, start: int, query: torch.Tensor, match: torch.Tensor
    ) -> Iterator[Pairs]:
        """The candidates that are close, by the exact distance."""
        bound = float(self.distance) ** 2 * (1 + 1e-6) + 2.0**-22 * len(self.axes)
        for first in range(0, len(query), RECHECKED):
            own, theirs = query[first : first + RECHECKED], match[first : first + RECHECKED]
            rough = (block[own].float() - self.index[theirs].float()).square_().sum(1)
            near = (rough <= bound).nonzero()[:, 0]
            own, theirs = own[near], theirs[near]
            squares = (block[own].double() - self.index[theirs].double()).square_().sum(1)
            distance = squares.sqrt().float()
            close = (distance <= float(self.distance)).nonzero()[:, 0]
            if len(close):
                found = (own[close] + start, theirs[close], distance[close])
                yield Pairs(*(each.cpu().numpy() for each in found))


def _rounding(dimensions: int, prefix: int) -> float:
    """What float32 may lose in the rotation of two features of length 1, and in their sums."""
    return 4 * math.sqrt(prefix + 1) * dimensions * 2.0**-24


def _above(products: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of what reaches the threshold; most rows have nothing, seen in one pass."""
    rows = (products.amax(1).float() >= threshold).nonzero()[:, 0]
    row, column = (products[rows].float() >= threshold).nonzero(as_tuple=True)
    return rows[row], column


def _is_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":  # sums in float32, as the bound assumes
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        return True
    return torch.cpu._is_avx512_bf16_supported()

"""Pairs of images of U and evaluation images within a distance: exact, and streaming."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nn

from semisup import devices

TILE = 2048
"""Images of U and evaluation images compared at a time on a CPU: their products stay in its cache."""

GROUP = 128
"""Products of one query of which the largest is looked at first: in most groups none is large."""

RECHECKED = 2**17
"""Numbers in the features whose distances a CPU computes at a time: they too stay in its cache."""

PREFIXES = (32, 64, 128, 256)

SAMPLE, CHOSEN_AGAIN = 256, 0.9
"""Images of U by which the prefix is chosen; again when pairs up to this part of the distance count."""

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Integers of the same length: they compare ten times as fast as bfloat16."""


class Pairs(NamedTuple):
    """Rows of close pairs in the queries and in the index, and how far apart they are."""

    query: np.ndarray  # int64
    match: np.ndarray  # int64
    distance: np.ndarray  # float32


class Short(NamedTuple):
    """Features cut short, see Neighbors: what bounds their products with others."""

    short: torch.Tensor  # prefix and length of the rest, of low precision
    length: torch.Tensor
    lost: torch.Tensor  # length of what low precision took from ``short``


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
        self.distance = float(np.float32(distance))
        self.device = devices.choose_device()
        larger = 1 if self.device.type == "cpu" else 16
        self.tile = TILE * larger
        self.rechecked = max(RECHECKED * larger**2 // vectors.shape[1], 1)
        padding = -len(vectors) % GROUP  # whole groups: with images that are infinitely far away
        self.index = nn.pad(torch.from_numpy(vectors).to(self.device).float(), (0, 0, 0, padding))
        self.squares = _inner(self.index, self.index)
        self.squares[len(vectors) :] = math.inf
        self.prefix, self.chosen_for = 0, math.inf
        self.dtype = torch.bfloat16 if _is_bfloat16_fast(self.device) else torch.float32
        exact = self.index.cpu().double()
        self.axes = torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1).float().to(self.device)

    def within(
        self, queries: np.ndarray, cut: Callable[[], float] | None = None
    ) -> Iterator[Pairs]:
        """All pairs at most the distance apart, in blocks.

        ``cut``: not all are wanted, only the nearest of each query, with its ties, and those up to
        what ``cut`` returns, which may fall while pairs come. A few others may be among them.
        """
        vectors = torch.from_numpy(queries).to(self.device)
        for start in range(0, len(vectors), self.tile):
            block = vectors[start : start + self.tile].float()
            wanted = self._wanted(cut)
            if wanted < CHOSEN_AGAIN * self.chosen_for:
                self._choose_prefix(block[:SAMPLE], wanted)
            for query, match, distance in self._within(block, cut):
                found = (query + start, match, distance)
                yield Pairs(*(each.cpu().numpy() for each in found))

    def _within(
        self, block: torch.Tensor, cut: Callable[[], float] | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        squares = _inner(block, block)
        own = self._shorten(block, squares, self.prefix)
        nearest = torch.full((len(block),), self.distance, device=self.device)
        for first in range(0, len(self.index), self.tile):
            products = _groups(own.short @ self.short.short[first : first + self.tile].T)
            largest = products.amax(2)
            wanted = self._wanted(cut)
            if wanted < self.distance:
                # One distance for each query says how far its nearest is at most.
                limit = nearest.clamp(min=wanted)
                query, match = _largest(products, largest, self._threshold(own, squares, limit))
                apart = self._distance(block, squares, query, first + match)
                nearest[query] = torch.minimum(nearest[query], apart)
            limit = nearest.clamp(min=wanted)
            query, match = _above(products, largest, self._threshold(own, squares, limit))
            match = first + match
            apart = self._distance(block, squares, query, match)
            close = (apart <= limit.index_select(0, query)).nonzero()[:, 0]
            if len(close):
                yield query[close], match[close], apart[close]

    def _wanted(self, cut: Callable[[], float] | None) -> float:
        """Pairs up to this distance count, whatever their query."""
        return max(min(cut(), self.distance), 0.0) if cut else self.distance

    def _choose_prefix(self, sample: torch.Tensor, wanted: float) -> None:
        """The prefix that costs least: its product of matrices, and the distances it leaves to do.

        The weights are measured times, on some of both sets; whatever is chosen, the pairs are the same.
        """
        costs, self.chosen_for = {}, wanted
        dimensions = self.index.shape[1]
        squares = _inner(sample, sample)
        limit = torch.full((len(sample),), wanted, device=self.device)
        if wanted < self.distance:
            nearest = squares + (self.squares.float() - 2 * sample @ self.index.T).amin(1)
            limit = nearest.clamp(min=0).sqrt().float().clamp(max=self.distance).clamp(min=wanted)
        some = self.index[:: math.ceil(len(self.index) / TILE)]
        some = some[: max(len(some) // GROUP, 1) * GROUP]
        for prefix in [p for p in PREFIXES if p < dimensions] + [dimensions]:
            self._use_prefix(prefix, some)
            own = self._shorten(sample, squares, prefix)
            products = _groups(own.short @ self.short.short.T)
            left = int((products >= self._threshold(own, squares, limit)[:, None, None]).sum())
            costs[prefix] = len(sample) * len(some) * (prefix + 40) + left * 4e4
        self._use_prefix(min(costs, key=costs.__getitem__), self.index)

    def _use_prefix(self, prefix: int, index: torch.Tensor) -> None:
        self.prefix = prefix
        self.short = self._shorten(index, _inner(index, index), prefix)
        self.longest, self.most_lost = float(self.short.length.max()), float(self.short.lost.max())

    def _shorten(self, vectors: torch.Tensor, squares: torch.Tensor, prefix: int) -> Short:
        first = vectors @ self.axes[:, :prefix]
        # Rounding up the rest can only add candidates.
        rest = (squares.float() - _inner(first, first).float()).clamp(min=0)
        rest += _rounding(len(self.axes), prefix) * squares.float()
        exact = torch.cat([first, rest.sqrt()[:, None]], 1)
        short = exact.to(self.dtype)
        up = 1 + 1e-3  # far more than float32 may lose in a length
        lost = torch.linalg.vector_norm(short.float() - exact, dim=1) * up
        return Short(short, torch.linalg.vector_norm(exact, dim=1) * up, lost)

    def _threshold(self, own: Short, squares: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        """What the product of two shortened features reaches if they are this close, as bits.

        2 x . y = x.x + y.y - distance^2, minus what rounding may take: of both factors, of sums in
        float32, of the rotation. Rounding of the product itself keeps order.
        """
        least = (squares + self.squares.min() - limit.double() ** 2 * (1 + 1e-6)) / 2
        least -= own.lost * (self.longest + self.most_lost) + own.length * self.most_lost
        least -= _rounding(len(self.axes), self.prefix) * own.length * self.longest
        bits = BITS[self.dtype]
        return torch.where(least > 0, least.to(self.dtype).view(bits), torch.iinfo(bits).min)

    def _distance(
        self, block: torch.Tensor, squares: torch.Tensor, query: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """How far apart some pairs are, rounded once."""
        inner = torch.empty(len(query), dtype=torch.float64, device=self.device)
        for first in range(0, len(query), self.rechecked):
            here = slice(first, first + self.rechecked)
            own, theirs = (
                block.index_select(0, query[here]),
                self.index.index_select(0, match[here]),
            )
            inner[here] = _inner(own, theirs)
        both = squares.index_select(0, query) + self.squares.index_select(0, match)
        return (both - 2 * inner).sqrt().float()


def _rounding(dimensions: int, prefix: int) -> float:
    """What float32 may lose in the rotation of two features of length 1, and in their sums."""
    return 4 * math.sqrt(prefix + 1) * dimensions * 2.0**-24


def _inner(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Inner products of rows, exact for float16: a float32 holds each product, a float64 the sum."""
    return (some * others).sum(1, dtype=torch.float64)


def _groups(products: torch.Tensor) -> torch.Tensor:
    """The products of each query in groups, as bits: these have their order where it is positive."""
    return products.view(BITS[products.dtype]).view(len(products), -1, GROUP)


def _largest(
    products: torch.Tensor, largest: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of the largest product of each row that has one which reaches its threshold."""
    most, group = largest.max(1)
    row = (most >= threshold).nonzero()[:, 0]
    group = group[row]
    return row, group * GROUP + products[row, group].argmax(1)


def _above(
    products: torch.Tensor, largest: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of what reaches the threshold of its row."""
    row, group = (largest >= threshold[:, None]).nonzero(as_tuple=True)
    # A copy of whole groups: index_select is several times as fast as indexing.
    some = products.view(-1, GROUP).index_select(0, row * largest.shape[1] + group)
    which, column = (some >= threshold.index_select(0, row)[:, None]).nonzero(as_tuple=True)
    return row.index_select(0, which), group.index_select(0, which) * GROUP + column


def _is_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":  # sums in float32, as the bound assumes
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        return True
    return torch.cpu._is_avx512_bf16_supported()

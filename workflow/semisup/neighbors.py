"""Pairs of images of U and evaluation images within a distance: exact, and streaming."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nn

from semisup import devices

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")

QUERIES, TILE = 1024, 12_288
"""Images of U and evaluation images compared at a time on a CPU: their bounds stay in its cache."""

GROUP = 64
"""Bounds of one query of which the smallest is looked at first: in most groups none is small."""

WIDTHS = (32, 64, 128, 256)
"""Columns of shortened features, of which five are no coordinates: a product likes whole blocks."""

SAMPLE, CHOSEN_AGAIN = 64, 0.6
"""Images of U by which the width is chosen; again when pairs up to this part of the distance count."""

OTHERS = 5
"""Columns of shortened features that are no coordinates."""

SOME = 1024
"""Images of the index by which the width is chosen."""

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Integers of the same length: they compare ten times as fast as bfloat16."""


class Pairs(NamedTuple):
    """Rows of close pairs in the queries and in the index, and how far apart they are."""

    query: np.ndarray  # int64
    match: np.ndarray  # int64
    distance: np.ndarray  # float32


class Cut(NamedTuple):
    """Features cut short, and lengths, rounded up, of what was lost."""

    prefix: torch.Tensor  # of low precision
    rest: torch.Tensor  # what is not in the prefix
    lost: torch.Tensor  # what low precision took from it
    length: torch.Tensor  # of the prefix


class Neighbors:
    """The features of the evaluation images as an index past which the images of U stream.

    The roles are the inverse of the usual: the small set is indexed, so memory does not depend on
    the size of U (paper, section 4.1, searches the same pairs). Nothing is approximate: a cheap
    bound says which pairs can be close, and their distances are computed exactly (features.py).

    The bound: rotate both sets by the principal axes of the index and cut each feature into a prefix
    and a rest. By Cauchy and Schwarz x . y is at most the product of the prefixes plus that of the
    lengths of the rests. Half the squared distance, (x . x + y . y) / 2 - x . y, is then at least one
    product of matrices, in which low precision is accounted for by columns of its own. As it is near
    zero for the pairs that matter, bfloat16 is precise where it has to be.
    """

    def __init__(self, vectors: np.ndarray, distance: float) -> None:
        """``vectors``: float16 (images, dimensions), at least one; pairs up to ``distance`` count."""
        self.distance = float(np.float32(distance))
        self.device = devices.choose_device()
        self.queries = QUERIES * (1 if self.device.type == "cpu" else 16)
        self.index = torch.from_numpy(vectors).to(self.device).double()
        self.squares = _squares(self.index)
        self.width, self.chosen_for = 0, math.inf
        self.dtype = torch.bfloat16 if _is_bfloat16_fast(self.device) else torch.float32
        axes = torch.linalg.eigh(self.index.T @ self.index).eigenvectors.flip(1)
        self.axes = axes.float()

    def within(
        self, queries: np.ndarray, cut: Callable[[], float] | None = None
    ) -> Iterator[Pairs]:
        """All pairs at most the distance apart, in blocks.

        ``cut``: not all are wanted, only the nearest of each query, with its ties, and those up to
        what ``cut`` returns, which may fall while pairs come. A few others may be among them.
        """
        vectors = torch.from_numpy(queries).to(self.device)
        for start in range(0, len(vectors), self.queries):
            block = vectors[start : start + self.queries].float()
            wanted = self._wanted(cut)
            if wanted < CHOSEN_AGAIN * self.chosen_for:
                self._choose_width(block[:SAMPLE], wanted)
            for query, match, distance in self._within(block, cut):
                found = (query + start, match, distance)
                yield Pairs(*(each.cpu().numpy() for each in found))

    def quantile(self, queries: np.ndarray, share: float) -> float:
        """About the distance up to which this share of all pairs with some queries is; else infinite."""
        vectors = torch.from_numpy(queries).to(self.device).float()
        inner = vectors @ self.index.float().T
        squares = (vectors * vectors).sum(1)[:, None] + self.squares.float() - 2 * inner
        count = math.ceil(share * squares.numel())
        if not 0 < count < squares.numel():
            return math.inf
        return math.sqrt(max(float(squares.flatten().kthvalue(count).values), 0.0))

    def _within(
        self, block: torch.Tensor, cut: Callable[[], float] | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        exact = block.double()
        squares = _squares(exact)
        own = self._shorten(block @ self.axes[:, : self.width - OTHERS], squares)
        nearest = torch.full((len(block),), self.distance, device=self.device)
        for first in range(0, len(self.short), TILE):
            bounds = _groups(own @ self.short[first : first + TILE].T)
            least = bounds.amin(2)
            wanted = self._wanted(cut)
            if wanted < self.distance:
                # One distance for each query says how far its nearest is at most.
                limit = nearest.clamp(min=wanted)
                query, match = _least(bounds, least, self._threshold(squares, limit))
                apart = self._distance(exact, squares, query, first + match)
                nearest[query] = torch.minimum(nearest[query], apart)
            limit = nearest.clamp(min=wanted)
            query, match = _below(bounds, least, self._threshold(squares, limit))
            match = first + match
            apart = self._distance(exact, squares, query, match)
            close = (apart <= limit.index_select(0, query)).nonzero()[:, 0]
            if len(close):
                yield query[close], match[close], apart[close]

    def _wanted(self, cut: Callable[[], float] | None) -> float:
        """Pairs up to this distance count, whatever their query."""
        return max(min(cut(), self.distance), 0.0) if cut else self.distance

    def _choose_width(self, sample: torch.Tensor, wanted: float) -> None:
        """The width that costs least: its product of matrices, and the distances it leaves to do.

        The weights are measured times, on some of both sets; whatever is chosen, the pairs are the same.
        """
        costs, self.chosen_for = {}, wanted
        squares = _squares(sample.double())
        limit = torch.full((len(sample),), wanted, device=self.device)
        if wanted < self.distance:
            inner = sample @ self.index.float().T
            nearest = (squares.float() + (self.squares.float() - 2 * inner).amin(1)).clamp(min=0)
            limit = nearest.sqrt().clamp(max=self.distance).clamp(min=wanted)
        every = math.ceil(len(self.index) / SOME)
        some, turned = self.index[::every].float() @ self.axes, sample @ self.axes
        whole = len(self.axes) + OTHERS
        for width in [each for each in WIDTHS if each < whole] + [whole]:
            self._use_width(width, some, self.squares[::every])
            bounds = _groups(self._shorten(turned, squares) @ self.short.T)
            left = int((bounds <= self._threshold(squares, limit)[:, None, None]).sum())
            costs[width] = len(turned) * len(some) * (width + 200) + left * 3e5
        width = min(costs, key=costs.__getitem__)
        turned = self.index.float() @ self.axes[:, : width - OTHERS]
        self._use_width(width, turned, self.squares)

    def _use_width(self, width: int, turned: torch.Tensor, squares: torch.Tensor) -> None:
        """Cut the index, or some of it, short: the second factor of the bounds."""
        self.width = width
        cut = self._cut(turned, squares)
        half = squares / 2 - 0.5
        self.most = float(squares.max()), float(half.abs().max())
        half -= half.abs() * torch.finfo(self.dtype).eps
        others = [cut.rest, _up(squares.sqrt(), self.dtype), cut.lost, half, torch.ones_like(half)]
        short = torch.cat([cut.prefix, torch.stack(others, 1).to(self.dtype)], 1)
        padding = -len(short) % GROUP  # whole groups: with images that are infinitely far away
        self.short = nn.pad(short, (0, 0, 0, padding))
        self.short[len(short) :, -2] = math.inf

    def _shorten(self, turned: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """The first factor of the bounds: what they are at least, less x . x / 2 - 1 / 2.

        With x = a + e, a what is left of x's prefix in low precision, and y = b + f, x . y is at most
        a . b + |e| |y| + |a| |f|, and the product of the rests.
        """
        cut = self._cut(turned, squares)
        ones = torch.ones_like(cut.rest)
        others = torch.stack([-cut.rest, -cut.lost, -cut.length, ones, ones], 1)
        return torch.cat([-cut.prefix, others.to(self.dtype)], 1)

    def _cut(self, turned: torch.Tensor, squares: torch.Tensor) -> Cut:
        exact = turned[:, : self.width - OTHERS].double()
        prefix = exact.to(self.dtype)
        kept = prefix.double()
        # Of a length: of each coordinate float32 may lose 2^-24 for each number of its sum.
        rounding = math.sqrt(exact.shape[1]) * (len(self.axes) + 4) * 2.0**-24
        rest = (squares - _squares(exact)).clamp(min=0) + 3 * rounding * squares
        lost = torch.linalg.vector_norm(kept - exact, dim=1) + rounding * squares.sqrt()
        lengths = rest.sqrt(), lost, torch.linalg.vector_norm(kept, dim=1)
        return Cut(prefix, *(_up(each, self.dtype) for each in lengths))

    def _threshold(self, squares: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        """What the product of two shortened features is at most if they are this close, as bits.

        With what sums in float32 may lose. Rounding of the product itself keeps order.
        """
        longest, half = self.most
        terms = 1 + half + 2 * (squares * longest).sqrt()
        most = limit.double() ** 2 * (0.5 + 1e-6) - (squares / 2 - 0.5)
        most += 2 * (self.width + 2) * 2.0**-24 * terms
        # Below zero the order of bits is another one, but all of it is below zero.
        return most.clamp(min=0).to(self.dtype).view(BITS[self.dtype])

    def _distance(
        self, block: torch.Tensor, squares: torch.Tensor, query: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """How far apart some pairs are, queries ascending, rounded once."""
        rows = torch.arange(len(block) + 1, device=self.device)
        wanted = torch.sparse_csr_tensor(
            torch.searchsorted(query, rows), match, torch.zeros_like(match, dtype=torch.float64),
            size=(len(block), len(self.index)), check_invariants=False,
        )  # fmt: skip
        # No copy of the features of each pair: a third of the time.
        inner = torch.sparse.sampled_addmm(wanted, block, self.index.T, beta=0.0).values()
        both = squares.index_select(0, query) + self.squares.index_select(0, match)
        return (both - 2 * inner).sqrt().float()


def _squares(vectors: torch.Tensor) -> torch.Tensor:
    """Exact for features: a float64 holds the sum."""
    return (vectors * vectors).sum(1)


def _up(lengths: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """More than they are, even after rounding."""
    return lengths * (1 + torch.finfo(dtype).eps)


def _groups(bounds: torch.Tensor) -> torch.Tensor:
    """The bounds of each query in groups, as bits: these have their order where it is positive."""
    return bounds.view(BITS[bounds.dtype]).view(len(bounds), -1, GROUP)


def _least(
    bounds: torch.Tensor, least: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of the least bound of each row that has one which is up to its threshold."""
    most, group = least.min(1)
    row = (most <= threshold).nonzero()[:, 0]
    group = group[row]
    return row, group * GROUP + bounds[row, group].argmin(1)


def _below(
    bounds: torch.Tensor, least: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of what is up to the threshold of its row, in that order."""
    row, group = (least <= threshold[:, None]).nonzero(as_tuple=True)
    # A copy of whole groups: index_select is several times as fast as indexing.
    some = bounds.view(-1, GROUP).index_select(0, row * least.shape[1] + group)
    which, column = (some <= threshold.index_select(0, row)[:, None]).nonzero(as_tuple=True)
    return row.index_select(0, which), group.index_select(0, which) * GROUP + column


def _is_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":  # sums in float32, as the bound assumes
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        return True
    return torch.cpu._is_avx512_bf16_supported()

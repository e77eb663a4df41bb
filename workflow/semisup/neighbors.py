"""Pairs of images of U and evaluation images within a distance: exact, and streaming."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from semisup import devices
from semisup.bounds import (
    OTHERS,
    Bound,
    all_below,
    in_groups,
    least_of_each,
    some_rows,
    squared_lengths,
)

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")

QUERIES, TILE = 1024, 12_288
"""Images of U and evaluation images compared at a time on a CPU: 25 MB of bounds in bfloat16."""

COMPARED = 2048
"""Evaluation images at a time of which all squared distances to a sample are computed."""

WIDTHS = (32, 48, 64, 96, 128, 192, 256)
"""Columns of bounds to choose from: a product likes whole blocks."""

SAMPLE, CHOSEN_AGAIN = 64, 0.6
"""Images of U by which widths are chosen; again when pairs up to this part of the distance count."""

SOME = 1024
"""Images of the index by which widths are chosen."""

TURN, PRODUCT, LOOK, LEFT, FINER, DISTANCE = 0.025, 0.011, 0.15, 150, 0.4, 0.9
"""What the widths are chosen by, measured on an EPYC. Nanoseconds for each dimension and column of
a query turned; each column, in bfloat16, of a pair, and the look at its bound; each pair that this
leaves, each column of its finer bound; each dimension of an exact distance.
"""


class Pairs(NamedTuple):
    """Rows of close pairs in the queries and in the index, and how far apart they are."""

    query: np.ndarray  # int64
    match: np.ndarray  # int64
    distance: np.ndarray  # float32


class Neighbors:
    """The features of the evaluation images as an index past which the images of U stream.

    The roles are the inverse of the usual: the small set is indexed, so memory does not depend on
    the size of U (paper, section 4.1, searches the same pairs). Nothing is approximate: a coarse
    bound of every pair says which can be close, a finer one leaves few of them, and the distances of
    these are computed exactly (features.py).
    """

    coarse: Bound
    fine: Bound | None

    def __init__(self, vectors: np.ndarray, distance: float) -> None:
        """``vectors``: float16 (images, dimensions), at least one; pairs up to ``distance`` count."""
        self.distance = float(np.float32(distance))
        self.device = devices.choose_device()
        self.queries = QUERIES * (1 if self.device.type == "cpu" else 16)
        self.index = torch.from_numpy(vectors).to(self.device).double()
        self.squares = squared_lengths(self.index)
        self.chosen_for = math.inf
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
                self._choose_bounds(block[:SAMPLE], wanted)
            for query, match, distance in self._within(block, cut):
                found = (query + start, match, distance)
                yield Pairs(*(each.cpu().numpy() for each in found))

    def quantile(self, queries: np.ndarray, share: float) -> float:
        """About the distance up to which this share of all pairs with some queries is; else infinite."""
        vectors = torch.from_numpy(queries).to(self.device).float()
        count = math.ceil(share * len(vectors) * len(self.index))
        if not 0 < count < len(vectors) * len(self.index):
            return math.inf
        least = torch.empty(0, device=self.device)
        for squares in self._squared_distances(vectors):
            least = torch.cat([least, squares.flatten()])
            least = least.topk(min(count, len(least)), largest=False).values
        return math.sqrt(max(float(least.max()), 0.0))

    def _squared_distances(self, vectors: torch.Tensor) -> Iterator[torch.Tensor]:
        """About those of all pairs, some images of the index at a time."""
        lengths = squared_lengths(vectors)[:, None]
        for first in range(0, len(self.index), COMPARED):
            index = self.index[first : first + COMPARED].float()
            yield lengths + squared_lengths(index) - 2 * vectors @ index.T

    def _within(
        self, block: torch.Tensor, cut: Callable[[], float] | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        exact = block.double()
        squares = squared_lengths(exact)
        short = self.coarse.shorten(block, squares)
        longer = self.fine.shorten(block, squares) if self.fine else None
        nearest = torch.full((len(block),), self.distance, device=self.device)
        for first in range(0, len(self.coarse.short), TILE):
            bounds = in_groups(short @ self.coarse.short[first : first + TILE].T)
            least = bounds.amin(2)
            wanted = self._wanted(cut)
            if wanted < self.distance:
                # One distance for each query says how far its nearest is at most.
                threshold = self.coarse.threshold(squares, nearest.clamp(min=wanted))
                query, match = least_of_each(bounds, least, threshold)
                apart = self._distance(exact, squares, query, first + match)
                nearest[query] = torch.minimum(nearest[query], apart)
            limit = nearest.clamp(min=wanted)
            threshold = self.coarse.threshold(squares, limit)
            for rows in some_rows(least, threshold):
                query, match = all_below(bounds[rows], least[rows], threshold[rows])
                query, match = rows.start + query, first + match
                if self.fine is not None and longer is not None:
                    most = self.fine.threshold(squares, limit).index_select(0, query)
                    finer = _products(longer, self.fine.short, query, match).view(most.dtype)
                    left = (finer <= most).nonzero()[:, 0]
                    query, match = query.index_select(0, left), match.index_select(0, left)
                apart = self._distance(exact, squares, query, match)
                close = (apart <= limit.index_select(0, query)).nonzero()[:, 0]
                if len(close):
                    yield query[close], match[close], apart[close]

    def _wanted(self, cut: Callable[[], float] | None) -> float:
        """Pairs up to this distance count, whatever their query."""
        return max(min(cut(), self.distance), 0.0) if cut else self.distance

    def _choose_bounds(self, sample: torch.Tensor, wanted: float) -> None:
        """Those that cost least, by what they leave of some of both sets.

        Whatever is chosen, the pairs are the same.
        """
        self.chosen_for = wanted
        squares = squared_lengths(sample.double())
        limit = torch.full((len(sample),), wanted, device=self.device)
        if wanted < self.distance:
            least = [apart.amin(1) for apart in self._squared_distances(sample)]
            nearest = torch.stack(least).amin(0).clamp(min=0).sqrt()
            limit = nearest.clamp(max=self.distance).clamp(min=wanted)
        every = math.ceil(len(self.index) / SOME)
        some, lengths = self.index[::every], self.squares[::every]
        whole = len(self.axes) + OTHERS
        left = {}
        for width in [each for each in WIDTHS if each < whole] + [whole]:
            bound = Bound(some, lengths, self.axes[:, : width - OTHERS], self.dtype)
            bounds = in_groups(bound.shorten(sample, squares) @ bound.short.T)
            below = bounds <= bound.threshold(squares, limit)[:, None, None]
            left[width] = int(below.sum()) / (len(sample) * len(some))
        choices = itertools.combinations_with_replacement(left, 2)
        coarse, fine = min(choices, key=lambda widths: self._cost(widths, left))
        self.coarse = self._bound(coarse, self.dtype)
        self.fine = self._bound(fine, torch.float32) if fine > coarse else None

    def _cost(self, widths: tuple[int, int], left: dict[int, float]) -> float:
        """Of a pair, if bounds of these widths leave these shares of pairs; equal: no finer one."""
        coarse, fine = widths
        has_fine = fine > coarse
        cost = TURN * len(self.axes) * (coarse + has_fine * fine) / len(self.index)
        cost += PRODUCT * torch.finfo(self.dtype).bits / 16 * coarse + LOOK
        cost += left[coarse] * (LEFT + has_fine * FINER * fine)
        return cost + left[fine] * DISTANCE * len(self.axes)

    def _bound(self, width: int, dtype: torch.dtype) -> Bound:
        return Bound(self.index, self.squares, self.axes[:, : width - OTHERS], dtype)

    def _distance(
        self, block: torch.Tensor, squares: torch.Tensor, query: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """How far apart some pairs are, queries ascending, rounded once."""
        both = squares.index_select(0, query) + self.squares.index_select(0, match)
        return (both - 2 * _products(block, self.index, query, match)).sqrt().float()


def _products(
    block: torch.Tensor, index: torch.Tensor, query: torch.Tensor, match: torch.Tensor
) -> torch.Tensor:
    """Of some pairs of rows, queries ascending."""
    rows = torch.arange(len(block) + 1, device=block.device)
    wanted = torch.sparse_csr_tensor(
        torch.searchsorted(query, rows), match, torch.zeros_like(match, dtype=block.dtype),
        size=(len(block), len(index)), check_invariants=False,
    )  # fmt: skip
    # No copy of the features of each pair: a third of the time.
    return torch.sparse.sampled_addmm(wanted, block, index.T, beta=0.0).values()


def _is_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":  # float32 is float32, and sums are, as the bound assumes
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_tf32 = False
        return True
    return torch.cpu._is_avx512_bf16_supported()

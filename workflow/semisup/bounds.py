"""Bounds of how close two features can be, which cost less than their distance."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as nn

GROUP = 64
"""Bounds of one query of which the smallest is looked at first: in most groups none is small."""

OTHERS = 5
"""Columns of shortened features that are no coordinates."""

MOST = 1 << 21
"""Bounds in groups looked at one by one at a time, as a rule."""

BLOCK = 1024
"""Images of the index shortened at a time: what this takes stays in the cache."""

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Integers of the same length: they compare ten times as fast as bfloat16."""


class Cut(NamedTuple):
    """Features cut short, and lengths, rounded up, of what was lost."""

    prefix: torch.Tensor  # of low precision
    rest: torch.Tensor  # what is not in the prefix
    lost: torch.Tensor  # what low precision took from it
    length: torch.Tensor  # of the prefix


class Bound:
    """An index cut short: a product with a query cut short says how close they can be at most.

    Rotate all features by the principal axes of the index and cut each into a prefix and a rest. By
    Cauchy and Schwarz x . y is at most the product of the prefixes plus that of the lengths of the
    rests. Half the squared distance, (x . x + y . y) / 2 - x . y, is then at least one product of
    two vectors, in which low precision is accounted for by columns of its own. As it is near zero
    for the pairs that matter, bfloat16 is precise where it has to be.
    """

    def __init__(
        self, index: torch.Tensor, squares: torch.Tensor, axes: torch.Tensor, dtype: torch.dtype
    ) -> None:
        """``index``: (images, dimensions); ``squares`` of their lengths; ``axes``: (dimensions, prefix)."""
        self.axes, self.dtype = axes, dtype
        self.most = float(squares.max()), float((squares / 2 - 0.5).abs().max())
        blocks = zip(torch.split(index, BLOCK), torch.split(squares, BLOCK), strict=True)
        short = torch.cat([self._shorten_index(*block) for block in blocks])
        padding = -len(short) % GROUP  # whole groups: with images that are infinitely far away
        self.short = nn.pad(short, (0, 0, 0, padding))
        self.short[len(short) :, -2] = math.inf

    def _shorten_index(self, index: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """The second factor of the bounds."""
        cut = self._cut(index, squares)
        half = squares / 2 - 0.5
        half -= half.abs() * torch.finfo(self.dtype).eps
        others = [cut.rest, _up(squares.sqrt(), self.dtype), cut.lost, half, torch.ones_like(half)]
        return torch.cat([cut.prefix, torch.stack(others, 1).to(self.dtype)], 1)

    def shorten(self, queries: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """The first factor of the bounds: what they are at least, less x . x / 2 - 1 / 2.

        With x = a + e, a what is left of x's prefix in low precision, and y = b + f, x . y is at most
        a . b + |e| |y| + |a| |f|, and the product of the rests.
        """
        cut = self._cut(queries, squares)
        ones = torch.ones_like(cut.rest)
        others = torch.stack([-cut.rest, -cut.lost, -cut.length, ones, ones], 1)
        return torch.cat([-cut.prefix, others.to(self.dtype)], 1)

    def threshold(self, squares: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        """What the product of two shortened features is at most if they are this close, as bits.

        With what sums in float32 may lose. Rounding of the product itself keeps order.
        """
        longest, half = self.most
        terms = 1 + half + 2 * (squares * longest).sqrt()
        most = limit.double() ** 2 * (0.5 + 1e-6) - (squares / 2 - 0.5)
        most += 2 * (self.short.shape[1] + 2) * 2.0**-24 * terms
        # Below zero the order of bits is another one, but all of it is below zero.
        return most.clamp(min=0).to(self.dtype).view(BITS[self.dtype])

    def _cut(self, vectors: torch.Tensor, squares: torch.Tensor) -> Cut:
        exact = (vectors.float() @ self.axes).double()
        prefix = exact.to(self.dtype)
        kept = prefix.double()
        # Of a length: of each coordinate float32 may lose 2^-24 for each number of its sum.
        rounding = math.sqrt(exact.shape[1]) * (len(self.axes) + 4) * 2.0**-24
        rest = (squares - squared_lengths(exact)).clamp(min=0) + 3 * rounding * squares
        lost = torch.linalg.vector_norm(kept - exact, dim=1) + rounding * squares.sqrt()
        lengths = rest.sqrt(), lost, torch.linalg.vector_norm(kept, dim=1)
        return Cut(prefix, *(_up(each, self.dtype) for each in lengths))


def squared_lengths(vectors: torch.Tensor) -> torch.Tensor:
    """Exact for features: a float64 holds the sum."""
    return (vectors * vectors).sum(1)


def _up(lengths: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """More than they are, even after rounding."""
    return lengths * (1 + torch.finfo(dtype).eps)


def in_groups(bounds: torch.Tensor) -> torch.Tensor:
    """The bounds of each query in groups, as bits: these have their order where it is positive."""
    return bounds.view(BITS[bounds.dtype]).view(len(bounds), -1, GROUP)


def least_of_each(
    bounds: torch.Tensor, least: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of the least bound of each row that has one which is up to its threshold."""
    most, group = least.min(1)
    row = (most <= threshold).nonzero()[:, 0]
    group = group[row]
    return row, group * GROUP + bounds[row, group].argmin(1)


def some_rows(least: torch.Tensor, threshold: torch.Tensor) -> Iterator[slice]:
    """All rows, so many at a time that not too many groups have bounds up to their thresholds."""
    num_bounds = int((least <= threshold[:, None]).sum()) * GROUP
    step = max(len(least) * MOST // max(num_bounds, MOST), 1)
    return (slice(first, first + step) for first in range(0, len(least), step))


def all_below(
    bounds: torch.Tensor, least: torch.Tensor, threshold: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of what is up to the threshold of its row, in that order."""
    row, group = (least <= threshold[:, None]).nonzero(as_tuple=True)
    # A copy of whole groups: index_select is several times as fast as indexing.
    some = bounds.view(-1, GROUP).index_select(0, row * least.shape[1] + group)
    which, column = (some <= threshold.index_select(0, row)[:, None]).nonzero(as_tuple=True)
    return row.index_select(0, which), group.index_select(0, which) * GROUP + column

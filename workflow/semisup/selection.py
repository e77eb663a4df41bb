"""The mathematics of the selection: pure functions from columns to columns.

The order of a selection is total: class, log-odds descending, identity. Rows are read in the order
of their identities, so a stable sort by class and log-odds is that order: of two equal rows the one
that came first wins, and identities are never compared.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

TIERS = (16, 64, 256, 1024, 4096, 16384)
"""Ranks within the class of one part at which a new tier of its scores begins."""


class Ranked(NamedTuple):
    """Scores: an image, a class it may serve, and how well."""

    class_id: np.ndarray  # int16
    log_odds: np.ndarray  # float32, finite
    identity: np.ndarray  # int64
    prediction_rank: np.ndarray  # int8, 1 = the image's best class

    def take(self, rows: np.ndarray) -> "Ranked":
        return Ranked(*(column.take(rows) for column in self))


EMPTY = Ranked(
    np.empty(0, np.int16), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int8)
)


def concatenate(blocks: list[Ranked]) -> Ranked:
    return Ranked(*map(np.concatenate, zip(EMPTY, *blocks, strict=True)))


def rank_order(class_id: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Rows by class, then log-odds descending, equal ones in the order given."""
    order = np.argsort(class_id, kind="stable")  # a radix sort, as the ids have 16 bits
    start = 0
    for end in np.unique(np.cumsum(np.bincount(class_id))).tolist():
        own = order[start:end]
        own[:] = own[best_first(log_odds[own])]
        start = end
    return order


def best_first(log_odds: np.ndarray) -> np.ndarray:
    """Positions by log-odds descending, equal ones in the order given; at most 2^32 rows.

    One integer holds score and position, so that plain values are sorted: several times faster
    than an argsort.
    """
    keys = _ascending(log_odds).astype(np.int64)
    np.negative(keys, out=keys)
    keys <<= 32
    keys += np.arange(len(keys))
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys


def _ascending(log_odds: np.ndarray) -> np.ndarray:
    """int32 that sort as the finite float32 do."""
    bits = log_odds.view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _from_ascending(ascending: np.ndarray) -> np.ndarray:
    bits = ascending.astype(np.int32)
    return (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def class_lengths(sorted_class_ids: np.ndarray, num_classes: int) -> np.ndarray:
    """How many rows each class has, for rows sorted by class: faster than a bincount, without the GIL."""
    classes = np.arange(num_classes, dtype=sorted_class_ids.dtype)
    ends = np.searchsorted(sorted_class_ids, classes, side="right")
    ends[1:] -= ends[:-1]
    return ends


def ranks_in_class(sorted_class_ids: np.ndarray) -> np.ndarray:
    """Rank from 1 of each row within its class, for rows sorted by class; int32."""
    lengths = class_lengths(sorted_class_ids, int(sorted_class_ids[-1:].sum()) + 1)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    return np.arange(1, len(sorted_class_ids) + 1, dtype=np.int32) - np.repeat(starts, lengths)


def tier_order(scores: Ranked) -> tuple[np.ndarray, list[int]]:
    """The order of a score table and the lengths of its tiers.

    Rows, given by identity, are split by their rank within the class in this part, so that the
    merge can read the best of every class first; within a tier they are in rank order.
    """
    order = rank_order(scores.class_id, scores.log_odds)
    ranks = ranks_in_class(scores.class_id[order])
    tier = np.searchsorted(TIERS, ranks - 1, side="right").astype(np.int16)
    lengths = np.bincount(tier, minlength=len(TIERS) + 1)
    return order[np.argsort(tier, kind="stable")], lengths.tolist()


class Last(NamedTuple):
    """Where each class of a selection ends."""

    lengths: np.ndarray  # rows of each class
    log_odds: np.ndarray  # float32, of its last row; infinite where it has none
    quota: np.ndarray  # rows with that score


class Cut:
    """The score of the K-th best row of each class among those offered, whatever their order.

    Rows below ``floor`` (float32, one per class) cannot change it. K is ``images_per_class``, one
    number for each class. Memory: 8 bytes for each of their sum, about twice.
    """

    def __init__(self, images_per_class: np.ndarray, min_log_odds: float = -np.inf) -> None:
        self.images_per_class = images_per_class
        self.floor = np.where(images_per_class > 0, min_log_odds, np.inf).astype(np.float32)
        # By class, then log-odds descending: the first are sorted, the others wait for it.
        self._keys = np.empty(1 << 16, np.int64)
        self._num_sorted = self._num_keys = 0

    def offer(self, class_id: np.ndarray, log_odds: np.ndarray) -> None:
        """Rows, none of them below the floor."""
        end = self._num_keys + len(class_id)
        if end > len(self._keys):
            self._keys.resize(max(end, 2 * len(self._keys)), refcheck=False)  # without a copy
        new = self._keys[self._num_keys : end]
        new[:] = class_id
        new <<= 32
        new -= _ascending(log_odds)
        self._num_keys = end
        if end - self._num_sorted > max(1_000_000, self.images_per_class.sum() // 2):
            self.settle()

    def settle(self) -> None:
        """Raise the floor to what was offered: above the K-th best of each class that has K."""
        if self._num_keys == self._num_sorted:
            return
        keys = self._keys[: self._num_keys]
        keys[self._num_sorted :].sort()
        keys.sort(kind="stable")  # merges the two sorted runs
        length = 0
        for start, end in zip(*self._bounds(keys), strict=True):
            keys[length : length + end - start] = keys[start:end]
            length += end - start
        self._num_keys = self._num_sorted = length
        starts, ends = self._bounds(keys[:length])
        full = np.flatnonzero((ends - starts == self.images_per_class) & (ends > starts))
        last = _from_ascending((full << 32) - keys[ends[full] - 1])
        self.floor[full] = np.nextafter(last, np.float32(np.inf))

    def last(self, images_per_class: np.ndarray | None = None) -> Last:
        """Where each class ends, or would with fewer ``images_per_class`` than this cut's."""
        self.settle()
        keys = self._keys[: self._num_keys]
        starts, ends = self._bounds(keys, images_per_class)
        some = np.flatnonzero(ends > starts)
        last_keys = keys[ends[some] - 1]
        last, quota = np.full(len(self.floor), np.inf, np.float32), np.zeros_like(ends)
        last[some] = _from_ascending((some << 32) - last_keys)
        quota[some] = ends[some] - np.searchsorted(keys, last_keys)
        return Last(ends - starts, last, quota)

    def close(self) -> None:
        """Forget what was offered, after the last question; ``floor`` stays."""
        del self._keys

    def _bounds(
        self, keys: np.ndarray, images_per_class: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of each class begin, and where they or its K best of them end."""
        k = self.images_per_class if images_per_class is None else images_per_class
        classes = np.arange(len(self.floor) + 1) << 32
        bounds = np.searchsorted(keys, classes - (1 << 31), side="right")
        return bounds[:-1], np.minimum(bounds[1:], bounds[:-1] + k)


class Gathered:
    """Rows on their way into rank order: how many of each class there will be is known."""

    def __init__(self, lengths: np.ndarray) -> None:
        self._ends = np.cumsum(lengths)
        self._next = self._ends - lengths
        class_id = np.repeat(np.arange(len(lengths), dtype=EMPTY.class_id.dtype), lengths)
        self._rows = Ranked(
            class_id, *(np.empty(len(class_id), column.dtype) for column in EMPTY[1:])
        )

    def add(self, rows: Ranked) -> None:
        """Rows sorted by class; equal ones of a class come in the order of their identities."""
        lengths = class_lengths(rows.class_id, len(self._next))
        starts = np.cumsum(lengths) - lengths
        place = np.arange(len(rows.class_id)) + np.repeat(self._next - starts, lengths)
        for column, new in zip(self._rows[1:], rows[1:], strict=True):
            column[place] = new
        self._next += lengths

    def ranked(self, each: Callable[..., Iterable[None]] = map) -> Ranked:
        """All rows in rank order, each class by ``each``. Raises ValueError when some are missing."""
        if not np.array_equal(self._next, self._ends):
            raise ValueError("rows are missing")

        def rank(start: int, end: int) -> None:
            own = Ranked(*(column[start:end] for column in self._rows))
            order = best_first(own.log_odds)
            for column in own[1:]:
                column[:] = column.take(order)

        ends = self._ends.tolist()
        list(each(rank, [0, *ends[:-1]], ends))
        return self._rows


def next_at_most(log_odds: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """What the rows of each class in the next tier can reach; NaN where there are none.

    For the rows of a tier of ``size`` ranks, ``lengths`` of each class: the last score of one that
    fills it.
    """
    reach = np.full(len(lengths), np.nan, np.float32)
    full = np.flatnonzero(lengths == size)
    reach[full] = log_odds[np.cumsum(lengths)[full] - 1]
    return reach


def take_ties(rows: Ranked, last: np.ndarray, quota: np.ndarray) -> Ranked:
    """All rows but those that equal the last score of their class beyond its quota.

    Rows are sorted by class, equal ones in the order of their identities; ``quota`` is reduced by
    those taken.
    """
    lengths = class_lengths(rows.class_id, len(last))
    tied = np.flatnonzero(rows.log_odds == np.repeat(last, lengths))
    own = rows.class_id[tied]
    num_tied = class_lengths(own, len(last))
    kept = np.ones(len(rows.class_id), bool)
    kept[tied] = ranks_in_class(own) <= np.repeat(quota, num_tied)
    quota -= np.minimum(quota, num_tied)
    return rows if kept.all() else rows.take(np.flatnonzero(kept))


def score_of(log_odds: np.ndarray) -> np.ndarray:
    """The softmax probability people read: 1 / (1 + exp(-log_odds)), float32."""
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-log_odds.astype(np.float64)))).astype(np.float32)


def lowest_log_odds(min_score: float) -> float:
    """The lowest float32 log-odds of a probability of at least ``min_score``, from 0 to below 1.

    Not by way of a float32 probability, which is 1 from log-odds of 17 on.
    """
    if min_score == 0:
        return -math.inf
    exact = math.log(min_score) - math.log1p(-min_score)
    nearest = np.float32(exact)
    # As Python's numbers: numpy would round the exact one to compare it.
    too_low = float(nearest) < exact
    return float(np.nextafter(nearest, np.float32(np.inf)) if too_low else nearest)


def class_sizes(variant: str, images_per_class: int, num_best: np.ndarray) -> np.ndarray:
    """K of each class, int64: the same, or by Zipf's law with the same sum.

    ``zipf``: a share of 1/r for the class that is r-th by ``num_best``, the number of images whose
    best class it is (the paper's unbalanced-ranked variant), as hashtags are distributed.
    """
    num_classes = len(num_best)
    sizes = np.full(num_classes, images_per_class, np.int64)
    if variant == "zipf":
        shares = 1 / np.arange(1, num_classes + 1)
        shares *= sizes.sum() / shares.sum()
        whole = np.floor(shares).astype(np.int64)
        missing = sizes.sum() - whole.sum()  # go to the largest remainders
        whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
        sizes[np.argsort(-num_best, kind="stable")] = whole
    return sizes


def drawn(identities: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images belong to a random share of U, each by its identity and the seed alone."""
    return random_bits(identities, seed) >> np.uint64(11) < np.uint64(fraction * 2**53)


def random_bits(identities: np.ndarray, *stream: int) -> np.ndarray:
    """64 uniform bits for each identity, by the finaliser of SplitMix64 (Steele et al., 2014)."""
    start = np.random.SeedSequence(stream).generate_state(1, np.uint64)
    mixed = identities.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each of ``values`` is one of the ``ascending``."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    first = np.searchsorted(ascending, values)
    return ascending.take(first, mode="clip") == values


def find_copies(identities: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Identities of the images whose hash stands earlier, and of the first image that has it.

    ``identities``: int64, ascending; ``hashes``: one row of two uint64 per image.
    """
    order = np.lexsort((identities, hashes[:, 1], hashes[:, 0]))
    same = np.all(hashes[order][1:] == hashes[order][:-1], axis=1)
    is_copy = np.concatenate([[False], same]) if len(order) else np.empty(0, bool)
    first_row = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(order))))
    copies, firsts = identities[order][is_copy], identities[order][first_row][is_copy]
    by_identity = np.argsort(copies)
    return copies[by_identity], firsts[by_identity]


def closest_images(
    identities: np.ndarray, distances: np.ndarray, closest: int, max_distance: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images of U to remove, by identity, with the distance to their closest evaluation image.

    Removed are the ``closest`` images, ties by identity, and all at most ``max_distance`` away
    (None: no such limit).
    """
    order = np.lexsort((identities, distances))
    found, first = np.unique(identities[order], return_index=True)
    nearest = distances[order][first]
    by_distance = np.lexsort((found, nearest))
    remove = np.zeros(len(found), bool)
    remove[by_distance[:closest]] = True
    if max_distance is not None:
        remove |= nearest <= np.float32(max_distance)
    return found[remove], nearest[remove]

"""The merge over the scores of all parts of U: the best rows of each class, tier by tier.

Also, of one image, how many rows are ahead of it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from semisup import tables
from semisup.scores import DAMAGED, Rows, ScoreTable, Tier
from semisup.selection import (
    Cut,
    Gathered,
    Ranked,
    class_lengths,
    concatenate,
    next_at_most,
    take_ties,
)
from semisup.tables import DataError

AHEAD = 2
"""Parts read ahead, for each thread."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Allowed = Callable[[Rows, np.ndarray], np.ndarray]
"""Of positions of rows, those that may be selected."""


class Part(Protocol):
    """What a merge reads: rows of one part of U, in tiers that each class fills one after the other.

    ``ordered``: what ranks them made the tiers, so the best of each class are in the first.
    """

    path: Path
    tiers: list[Tier]
    ordered: bool

    def read(self, tier: int, classes: np.ndarray | None = None) -> Rows:
        """A tier, sorted by class; with ``classes``, at least the rows of these.

        Where ``ordered``, those of a class with equal scores come in the order of identities.
        """
        ...

    def ranked(self, identity: int, stored: Ranked) -> Ranked:
        """The rows of one image, whose scores are ``stored``, whatever else they have to pass."""
        ...


OpenPart = Callable[[Path], Part]


class Wanted(NamedTuple):
    """A selection to find: how many rows of each class, and of which."""

    cut: Cut
    allowed: Allowed | None = None

    def positions(self, rows: Rows, lengths: np.ndarray, floor: np.ndarray) -> np.ndarray:
        """Positions of the rows, ``lengths`` of each class, that may be selected and reach its floor."""
        at = np.flatnonzero(rows.log_odds >= np.repeat(floor, lengths))
        return self.allowed(rows, at) if self.allowed and len(at) else at


def merge(
    paths: list[Path],
    cut: Cut,
    allowed: Allowed | None = None,
    threads: int = 2,
    open_part: OpenPart = ScoreTable,
) -> Ranked:
    """The best rows of each class over all parts, in rank order.

    The parts come in the order of their identities. First the score of the last row of each class
    is found, from scores alone, the best tiers of all parts first. Then the rows are gathered, each
    once; of those that equal the last score the first by identity.
    """
    wanted = [Wanted(cut, allowed)]
    with ThreadPoolExecutor(threads) as pool:
        parts = find(wanted, paths, pool, threads, open_part)
        lengths, last, quota = cut.last()
        cut.close()
        floor, gathered = last.copy(), Gathered(lengths)
        for (blocks,) in gather(wanted, [floor], parts, pool, threads):
            for block in blocks:
                gathered.add(take_ties(block, last, quota))
            floor[quota == 0] = np.nextafter(last[quota == 0], np.float32(np.inf))
        return gathered.ranked(pool.map)


def find(
    wanted: list[Wanted],
    paths: list[Path],
    pool: ThreadPoolExecutor,
    threads: int,
    open_part: OpenPart = ScoreTable,
) -> list[Part]:
    """Offer every cut all rows that matter, a tier of all parts after the other; return the parts."""
    parts = list(_ahead(pool, threads, open_part, paths))
    num_classes = len(wanted[0].cut.floor)
    reach = [np.full(num_classes, np.inf, np.float32) for _ in parts]

    def read(number: int, tier: int) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = parts[number].read(tier)
        class_id, log_odds = rows.class_id, rows.log_odds
        if len(class_id) and not 0 <= class_id[0] <= class_id[-1] < num_classes:
            raise DataError(
                f"{parts[number].path}: class ids {class_id[0]} to {class_id[-1]}, but the teacher has "
                f"{num_classes} classes. {DAMAGED}"
            )
        lengths = class_lengths(class_id, num_classes)
        reach[number] = _reach(parts[number], tier, log_odds, lengths)
        found = (each.positions(rows, lengths, each.cut.floor) for each in wanted)
        return [(class_id.take(at), log_odds.take(at)) for at in found]

    for tier in range(max((len(part.tiers) for part in parts), default=0)):
        floor = np.min([each.cut.floor for each in wanted], axis=0)
        deep = [i for i, best in enumerate(reach) if np.any(best >= floor)]
        for blocks in _ahead(pool, threads, partial(read, tier=tier), deep):
            for each, block in zip(wanted, blocks, strict=True):
                each.cut.offer(*block)
        for each in wanted:
            each.cut.settle()
    return parts


def gather(
    wanted: list[Wanted],
    floors: list[np.ndarray],
    parts: list[Part],
    pool: ThreadPoolExecutor,
    threads: int,
) -> Iterator[list[list[Ranked]]]:
    """Of each part, for each of ``wanted``: the rows not below the floor of their class, tier by tier.

    Of rows of a class with equal scores the first by identity comes first.
    """

    def read(part: Part) -> list[list[Ranked]]:
        blocks: list[list[Ranked]] = [[] for _ in wanted]
        for tier in range(len(part.tiers)):
            rows = part.read(tier)
            lengths = class_lengths(rows.class_id, len(floors[0]))
            for each, floor, own in zip(wanted, floors, blocks, strict=True):
                if len(at := each.positions(rows, lengths, floor)):
                    own.append(rows.take(at))
            reach = _reach(part, tier, rows.log_odds, lengths)
            if not np.any(reach >= np.min(floors, axis=0)):
                break
        return blocks if part.ordered else [[_by_identity(concatenate(own))] for own in blocks]

    return _ahead(pool, threads, read, parts)


def _reach(part: Part, tier: int, log_odds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What the rows of each class in the next tier of a part can reach; NaN where there are none."""
    at_most = next_at_most(log_odds, lengths, part.tiers[tier].size)
    return at_most if part.ordered else np.where(np.isnan(at_most), at_most, np.inf)


def _by_identity(rows: Ranked) -> Ranked:
    """Rows by class, those of a class by identity, which no two share: one sort of integers."""
    if not len(rows.class_id):
        return rows
    shard_id, sample_index = tables.split_identity(rows.identity)
    place = (shard_id - shard_id.min()) * (sample_index.max() + np.int64(1)) + sample_index
    return rows.take(np.argsort((rows.class_id.astype(np.int64) << 48) | place))


def count_ahead(
    paths: list[Path],
    own: Ranked,
    allowed: Allowed | None = None,
    threads: int = 2,
    open_part: OpenPart = ScoreTable,
) -> np.ndarray:
    """How many rows are ahead of each of ``own``, the rows of one image, in its class."""
    with ThreadPoolExecutor(threads) as pool:
        parts = _ahead(pool, threads, open_part, paths)
        counts = _ahead(pool, threads, partial(_count_in_part, own=own, allowed=allowed), parts)
        return sum(counts, np.zeros(len(own.class_id), np.int64))


def _count_in_part(part: Part, own: Ranked, allowed: Allowed | None) -> np.ndarray:
    counts = np.zeros(len(own.class_id), np.int64)
    deeper = np.ones(len(own.class_id), bool)  # whether the next tier may hold rows ahead
    for tier, (_, size) in enumerate(part.tiers):
        rows = part.read(tier, own.class_id[deeper])
        class_id, log_odds = rows.class_id, rows.log_odds
        starts, ends = (np.searchsorted(class_id, own.class_id, side) for side in ("left", "right"))
        for i in np.flatnonzero(deeper).tolist():
            scores = log_odds[starts[i] : ends[i]]
            at = starts[i] + np.flatnonzero(scores >= own.log_odds[i])
            deeper[i] = len(scores) == size and (len(at) == size or not part.ordered)
            if allowed:
                at = allowed(rows, at)
            tied = at[log_odds[at] == own.log_odds[i]]
            counts[i] += len(at) - len(tied)
            if len(tied):  # the earlier images are ahead
                counts[i] += np.sum(rows.identity(tied) < own.identity[i])
        if not deeper.any():
            break
    return counts


def _ahead(
    pool: ThreadPoolExecutor,
    threads: int,
    function: Callable[[Item], Result],
    items: Iterable[Item],
) -> Iterator[Result]:
    """Like ``map``, in order, computed ahead in the pool, a bounded number at a time."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > AHEAD * threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

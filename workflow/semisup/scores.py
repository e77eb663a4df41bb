"""The score store: one Parquet file per part of U, the best rows of each class first.

The rows of a part are split into tiers by their rank within the class (selection.TIERS), each a run
of row groups. A merge over many parts reads the first tier of each, then only where rows further
down may still enter: where images come in no order, what it reads grows with the selection more than
with U. At worst, a U sorted by class, it reads every tier twice.
"""

import functools
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from semisup import schemas, tables
from semisup.selection import (
    EMPTY,
    TIERS,
    Cut,
    Gathered,
    Ranked,
    class_lengths,
    concatenate,
    next_at_most,
    take_ties,
    tier_order,
)
from semisup.tables import DataError

ROW_GROUP = 524_288
NO_END = np.iinfo(np.int64).max
TIERS_KEY, BEST_KEY, NUMERICS_KEY = "tiers", "num_best", "numerics"
ROWS_KEY = "rows_xxh3"
"""In the footer: rows of each tier, and the ranks it covers; of how many images each class is the
best; precision, device and software that made the scores; a hash of all rows."""

AHEAD = 2
"""Parts read ahead, for each thread."""

DAMAGED = "Not what this pipeline wrote: delete it and run again."

Item = TypeVar("Item")
Result = TypeVar("Result")


def write_scores(path: Path, rows: Ranked, numerics: str = "") -> None:
    """Write the scores of a part, given in the order of their identities, made with ``numerics``.

    Raises DataError when a score is not finite.
    """
    if not np.isfinite(rows.log_odds).all():
        raise DataError(f"{path}: scores are not finite; the teacher's weights are bad.")
    rows = rows._replace(log_odds=rows.log_odds + np.float32(0))  # no -0, which equals 0
    order, tier_lengths = tier_order(rows)
    rows = rows.take(order)
    shard_ids, sample_indices = tables.split_identity(rows.identity)
    columns = {
        "class_id": rows.class_id,
        "log_odds": rows.log_odds,
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        "prediction_rank": rows.prediction_rank,
    }
    lengths = [
        min(ROW_GROUP, tier - start) for tier in tier_lengths for start in range(0, tier, ROW_GROUP)
    ]
    tiers = list(zip(tier_lengths, np.diff([0, *TIERS, NO_END]).tolist(), strict=True))
    num_best = np.bincount(rows.class_id[rows.prediction_rank == 1]).tolist()
    footer = {TIERS_KEY: json.dumps(tiers), BEST_KEY: json.dumps(num_best)}
    rows_hash = xxhash.xxh3_128()
    for column in columns.values():
        rows_hash.update(np.ascontiguousarray(column).data)
    footer |= {NUMERICS_KEY: numerics, ROWS_KEY: rows_hash.hexdigest()}
    tables.write_table(path, columns, schemas.SCORES, lengths, footer)


def digest_scores(paths: Iterable[Path]) -> str:
    """Of the scores of all parts: of their footers, which have a hash of the rows each."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.seek(-8, os.SEEK_END)
                length = int.from_bytes(file.read(4), "little")
                file.seek(-8 - length, os.SEEK_END)
                whole.update(file.read(length))
        except OSError as error:
            raise tables.unreadable(path, error) from error
    return whole.hexdigest()


class Tier(NamedTuple):
    row_groups: list[int]
    size: int  # ranks it covers: a class with fewer rows ends in it


At = np.ndarray | slice
"""Positions."""

EVERY = slice(None)


def pick(column: np.ndarray, at: At) -> np.ndarray:
    return column[at] if isinstance(at, slice) else column.take(at)  # faster than the brackets


class Rows(NamedTuple):
    """Rows sorted by class. The other columns are functions of positions, read when asked for."""

    class_id: np.ndarray
    log_odds: np.ndarray
    identity: Callable[[At], np.ndarray]
    prediction_rank: Callable[[At], np.ndarray]

    def take(self, at: At) -> Ranked:
        return Ranked(
            pick(self.class_id, at),
            pick(self.log_odds, at),
            self.identity(at),
            self.prediction_rank(at),
        )


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


class ScoreTable:
    """The scores of one part, read tier by tier. Raises DataError when they are not scores."""

    ordered = True

    def __init__(self, path: Path) -> None:
        self.path = path
        with tables.open_table(path, schemas.SCORES) as file:
            self.metadata = file.metadata
        self.tiers = list(self._tiers())

    def _tiers(self) -> Iterator[Tier]:
        """Nothing protects a footer from flipped bits: what it says must be what was written."""
        first, found = 0, self._footer(TIERS_KEY).reshape(-1, 2)
        if found[:, 1].tolist() != np.diff([0, *TIERS, NO_END]).tolist():
            raise DataError(f"{self.path}: its tiers are not of these ranks. {DAMAGED}")
        for length, size in found.tolist():
            last = first
            while length > 0 and last < self.metadata.num_row_groups:
                length -= self.metadata.row_group(last).num_rows
                last += 1
            if length:
                raise DataError(f"{self.path}: its tiers are not its row groups. {DAMAGED}")
            yield Tier(list(range(first, last)), size)
            first = last
        if sum(self.metadata.row_group(i).num_rows for i in range(first)) != self.metadata.num_rows:
            raise DataError(f"{self.path}: its tiers are not all its rows. {DAMAGED}")

    def num_best(self) -> np.ndarray:
        """Of how many images each class is the best; the last classes may be missing."""
        counts = self._footer(BEST_KEY)
        images, rows = int(counts.sum()), self.metadata.num_rows
        if np.any(counts < 0) or (rows % images if images else rows):
            raise DataError(f"{self.path}: {rows} scores of {images} images. {DAMAGED}")
        return counts

    def numerics(self) -> str:
        return (
            (self.metadata.metadata or {}).get(NUMERICS_KEY.encode(), b"").decode(errors="replace")
        )

    def _footer(self, key: str) -> np.ndarray:
        try:
            return np.array(json.loads((self.metadata.metadata or {})[key.encode()]), np.int64)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError(f"{self.path}: scores without {key} in the footer. {DAMAGED}") from None

    def read(self, tier: int, classes: np.ndarray | None = None) -> Rows:
        """A tier; with ``classes``, the row groups that may hold these.

        Raises DataError when a score is not finite.
        """
        groups = self.tiers[tier].row_groups
        if classes is not None:
            groups = [group for group in groups if self._may_hold(group, classes)]
        table = self.read_columns(groups, ["class_id", "log_odds"])
        class_id, log_odds = table["class_id"].to_numpy(), table["log_odds"].to_numpy()
        if not np.isfinite(log_odds).all():
            raise DataError(f"{self.path}: holds scores that are not finite. {DAMAGED}")

        @functools.cache
        def others() -> list[np.ndarray]:
            names = [*tables.IDENTITY, "prediction_rank"]
            columns = self.read_columns(groups, names)
            return [columns[name].to_numpy() for name in names]

        return Rows(
            class_id,
            log_odds,
            lambda at: tables.join_identity(*(pick(column, at) for column in others()[:2])),
            lambda at: pick(others()[2], at),
        )

    def _may_hold(self, group: int, classes: np.ndarray) -> bool:
        range_ = self.metadata.row_group(group).column(0).statistics  # sorted by class
        return range_ is None or bool(np.any((range_.min <= classes) & (classes <= range_.max)))

    def ranked(self, identity: int, stored: Ranked) -> Ranked:
        """The rows of one image: its scores as they are."""
        return stored

    def rows_of(self, identity: int, threads: int = 2) -> Ranked:
        """The rows of one image, for which all rows are searched."""
        shard_id, sample_index = tables.split_identity(np.array([identity]))

        def find(group: int) -> Ranked:
            place = self.read_columns([group], tables.IDENTITY)
            mine = place["sample_index"].to_numpy() == sample_index
            mine &= place["shard_id"].to_numpy() == shard_id
            if not mine.any():
                return EMPTY
            names = ["class_id", "log_odds", "prediction_rank"]
            columns = self.read_columns([group], names).filter(pa.array(mine))
            class_id, log_odds, ranks = (columns[name].to_numpy() for name in names)
            return Ranked(class_id, log_odds, np.full(len(ranks), identity), ranks)

        with ThreadPoolExecutor(threads) as pool:
            return concatenate(list(pool.map(find, range(self.metadata.num_row_groups))))

    def read_columns(self, row_groups: list[int], columns: list[str]) -> pa.Table:
        options = {"page_checksum_verification": True, "pre_buffer": False}  # reads in this thread
        try:
            with (
                pa.OSFile(os.fspath(self.path)) as source,
                pq.ParquetFile(source, metadata=self.metadata, **options) as file,
            ):
                return file.read_row_groups(row_groups, columns, use_threads=False)
        except tables.DAMAGES as error:
            raise tables.unreadable(self.path, error) from error


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

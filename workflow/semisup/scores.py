"""The score store: one Parquet file per part of U, the best rows of each class first.

The rows of a part are split into tiers by their rank within the class (selection.TIERS), each a run
of row groups. A merge over many parts (merging.py) reads the first tier of each, then only where rows
further down may still enter: where images come in no order, what it reads grows with the selection more than
with U. At worst, a U sorted by class, it reads every tier twice.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from semisup import schemas, tables
from semisup.selection import (
    EMPTY,
    TIERS,
    Ranked,
    concatenate,
    tier_order,
)
from semisup.tables import DataError

ROW_GROUP = 524_288
NO_END = np.iinfo(np.int64).max
TIERS_KEY, BEST_KEY, NUMERICS_KEY = "tiers", "num_best", "numerics"
ROWS_KEY = "rows_xxh3"
"""In the footer: rows of each tier, and the ranks it covers; of how many images each class is the
best; precision, device and software that made the scores; a hash of all rows."""

DAMAGED = "Not what this pipeline wrote: delete it and run again."


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

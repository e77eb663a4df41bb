"""What is kept of the close pairs: the nearest of each image, and the closest of all."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.features import Features, check_dimensions, read_all

ORDER = [
    "distance", "shard_id", "sample_index",
    "evaluation_dataset", "evaluation_shard_id", "evaluation_sample_index",
]  # fmt: skip
"""Of pairs: the columns that say which come first."""


class Evaluation(NamedTuple):
    """The images of all evaluation sets, sets by name, each by identity: the order of ties."""

    names: list[str]
    dataset: np.ndarray  # of each image, as a position in ``names``
    images: Features

    def match_columns(self, rows: np.ndarray) -> dict[str, Any]:
        """The columns that name the evaluation images of these rows."""
        shard_ids, sample_indices = tables.split_identity(self.images.identity[rows])
        return {
            "evaluation_dataset": np.array(self.names, object)[self.dataset[rows]],
            "evaluation_shard_id": shard_ids,
            "evaluation_sample_index": sample_indices,
        }


def read_evaluation(parts: dict[str, list[Path]]) -> Evaluation:
    """The features of the evaluation sets, given the files of each."""
    names = sorted(parts)
    sets = [read_all(parts[name]) for name in names]
    check_dimensions(*sets, path=parts[names[0]][0])
    counts = [len(images.identity) for images in sets]
    images = Features(*(np.concatenate(columns) for columns in zip(*sets, strict=True)))
    return Evaluation(names, np.repeat(np.arange(len(names)), counts), images)


class Nearest:
    """The closest evaluation image of each of some images; ties: the first.

    The bits of a distance, which is at least 0, have its order; with the row below them, one
    integer has the order of both.
    """

    def __init__(self, num_images: int) -> None:
        self.best = (_bits(np.full(num_images, np.inf, np.float32)) << 32) | 0xFFFFFFFF

    def add(self, query: np.ndarray, match: np.ndarray, distance: np.ndarray) -> None:
        np.minimum.at(self.best, query, (_bits(distance) << 32) | match)

    @property
    def distance(self) -> np.ndarray:
        """Infinite where there is none."""
        return (self.best >> 32).astype(np.int32).view(np.float32)

    @property
    def match(self) -> np.ndarray:
        """-1 where there is none."""
        return self.best.astype(np.int32).astype(np.int64)


class Closest:
    """The ``limit`` closest pairs of all that are added, in any order.

    The order is total: distance, then the columns after it, so what is kept does not depend on how
    pairs come in blocks and parts. Memory: five quarters of the limit, and a block; while some are
    left out four times as much, about 100 bytes for each pair of the limit.
    """

    def __init__(self, limit: int, cut: float = math.inf) -> None:
        """``cut``: what is further apart is left out, as where so many pairs are known to be closer."""
        self.limit, self.cut, self.count = limit, cut, 0
        self.blocks: list[list[np.ndarray]] = []

    def add(self, distance: np.ndarray, *others: np.ndarray) -> None:
        """``others``: columns that order pairs of equal distance and tell them apart."""
        kept = np.flatnonzero(distance <= self.cut)
        self.blocks.append([column[kept] for column in (distance, *others)])
        self.count += len(kept)
        if self.count > self.limit * 5 // 4:
            self.blocks = [self._kept()]
            self.count = self.limit
            self.cut = float(self.blocks[0][0].max(initial=-1))

    def sorted(self) -> list[np.ndarray]:
        """The columns of the pairs, closest first; none if nothing was added."""
        if not self.blocks:
            return []
        columns = self._kept()
        order = np.lexsort(columns[::-1])
        return [column[order] for column in columns]

    def _kept(self) -> list[np.ndarray]:
        """In the order in which they came: only those at the cut are compared by other columns."""
        columns = [np.concatenate(column) for column in zip(*self.blocks, strict=True)]
        distance = columns[0]
        if len(distance) <= self.limit:
            return columns
        last = np.partition(distance, self.limit - 1)[self.limit - 1] if self.limit else -1
        kept = distance < last
        tied = np.flatnonzero(distance == last)
        order = np.lexsort([column[tied] for column in columns[::-1]])
        kept[tied[order[: self.limit - np.count_nonzero(kept)]]] = True
        return [column[kept] for column in columns]


def merge_pairs(paths: list[Path], limit: int) -> pa.Table:
    """The ``limit`` closest pairs of all parts, closest first.

    They are ordered by numbers alone; keys, which may be long, are read where a pair is kept.
    """
    schema, dataset = schemas.DUPLICATES, "evaluation_dataset"
    found = [tables.read_table(path, schema, [dataset])[dataset].unique() for path in paths]
    names = pa.array(sorted({name for each in found for name in each.to_pylist()}), pa.string())
    closest = Closest(limit)
    for part, path in enumerate(paths):
        table = tables.read_table(path, schema, ORDER)
        columns = [
            (pc.index_in(table[name], names) if name == dataset else table[name]).to_numpy()
            for name in ORDER
        ]
        rows = np.arange(len(table))
        closest.add(*columns, np.full(len(table), part), rows)
    *_, parts, rows = closest.sorted() or [np.empty(0, np.int64)] * 2
    tabled = [tables.read_rows(path, schema, rows[parts == i]) for i, path in enumerate(paths)]
    together = np.argsort(parts, kind="stable")
    place = np.empty_like(together)
    place[together] = np.arange(len(rows))
    return pa.concat_tables([schema.empty_table(), *tabled]).take(place)


def _bits(distance: np.ndarray) -> np.ndarray:
    return distance.view(np.int32).astype(np.int64)

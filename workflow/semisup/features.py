"""Features as they are stored: float16, one part of a dataset after the other.

Half precision halves the store and makes distances exact: a float16 of at most 1 is a multiple of
2^-24, so a squared distance is a multiple of 2^-48 and, below 16, fits into the 53 bits of a
float64. No order of summation, no thread and no processor changes it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.tables import DataError

SAMPLED = 8
"""Row groups that a sample is taken from, at most."""


class Features(NamedTuple):
    """Some images: int64 identities, and L2-normalised features, float16 of shape (N, dimensions)."""

    identity: np.ndarray
    vectors: np.ndarray


def pack(vectors: np.ndarray) -> list[bytes]:
    """The stored form of each row, rounded to float16."""
    return [row.tobytes() for row in np.ascontiguousarray(vectors.astype("<f2"))]


def read_features(path: Path) -> Iterator[Features]:
    """The features of one part, a row group at a time.

    Raises DataError where they are not finite or not all of one length.
    """
    with tables.open_table(path, schemas.FEATURES) as file:
        first = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            if len(table):
                yield Features(tables.identity(table), unpack(table["feature"], path, first))
            first += len(table)


def read_sample(path: Path, count: int) -> list[Features]:
    """About ``count`` images from all over a part; a few of its row groups are read."""
    taken = []
    with tables.open_table(path, schemas.FEATURES) as file:
        groups = range(0, file.num_row_groups, math.ceil(file.num_row_groups / SAMPLED) or 1)
        for group in groups:
            table = file.read_row_group(group)
            if len(table):
                every = math.ceil(len(table) * len(groups) / count)
                identity, vectors = tables.identity(table), unpack(table["feature"], path)
                # Copies: a view keeps the row group.
                taken.append(Features(identity[::every].copy(), vectors[::every].copy()))
    return taken


def read_all(paths: list[Path]) -> Features:
    """The features of all parts of a (small) dataset, by identity."""
    blocks = [block for path in paths for block in read_features(path)]
    if not blocks:
        raise DataError(
            f"{paths[0]}: none of the images could be described, so nothing can be compared with "
            "them; see the statuses in the table of images beside it."
        )
    check_dimensions(blocks[0], *blocks[1:], path=paths[0])
    return Features(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def check_dimensions(first: Features, *others: Features, path: Path) -> None:
    """Raises DataError unless all have features of one length."""
    lengths = sorted({block.vectors.shape[1] for block in (first, *others)})
    if len(lengths) > 1:
        raise DataError(
            f"{path}: features of {lengths} dimensions cannot be compared; they come from different "
            "descriptors. Delete the folder of features and run again."
        )


def unpack(column: pa.ChunkedArray, path: Path, first: int = 0) -> np.ndarray:
    """The stored features as float16 (rows, dimensions); ``path`` and ``first`` row for the message."""
    packed = column.combine_chunks()
    lengths = pc.binary_length(packed)
    size = lengths[0].as_py()
    if size == 0 or size % 2 or len(lengths.unique()) > 1:
        raise DataError(f"{path}: features differ in length. Delete it and run again.")
    start = packed.offset
    offsets = np.frombuffer(packed.buffers()[1], np.int32)[start : start + 1]
    values = np.frombuffer(packed.buffers()[2], "<f2", len(packed) * size // 2, int(offsets[0]))
    vectors = values.reshape(len(packed), -1)
    if not np.isfinite(vectors).all():
        bad = first + int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
        raise DataError(f"{path}: the feature in row {bad} is not finite. Delete it and run again.")
    return vectors

"""Which evaluation images have a near-duplicate, or a copy, in what models learn from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.copies import DECODED

BITS = 4
"""Perceptual hashes that differ in so many of their 64 bits at most are called the same picture."""

FEATURES, HASH = "features", "perceptual hash"


class Leak(NamedTuple):
    """Evaluation images with something close in a source: one row each, by identity."""

    dataset: np.ndarray  # object
    identity: np.ndarray
    distance: np.ndarray  # float32: between features, or bits that differ


def by_features(pairs: pa.Table, cut: float, learned: np.ndarray | None = None) -> Leak:
    """From the closest pairs of a dataset; ``learned``: identities, ascending, if not all count."""
    distance = pairs["distance"].to_numpy()
    rows = np.flatnonzero(distance <= np.float32(cut))
    if learned is not None:
        rows = rows[np.isin(tables.identity(pairs, rows=rows), learned)]
    dataset = pairs["evaluation_dataset"].to_numpy()[rows]
    return _first_of_each(dataset, tables.identity(pairs, "evaluation_", rows), distance[rows])


def by_pixels(evaluation: dict[str, pa.Table], hashes: pa.Array) -> Leak:
    """Evaluation images with one of these pixel hashes; ``evaluation``: what is told of each set."""
    blocks = [Leak(np.empty(0, object), np.empty(0, np.int64), np.empty(0, np.float32))]
    for name, table in evaluation.items():
        identity = tables.identity(table.filter(pc.is_in(table["pixel_hash"], hashes)))
        columns = (
            np.full(len(identity), name, object),
            identity,
            np.zeros(len(identity), np.float32),
        )
        blocks.append(Leak(*columns))
    return joined(blocks)


def joined(leaks: list[Leak]) -> Leak:
    """Each evaluation image once, by its closest."""
    return _first_of_each(*(np.concatenate(columns) for columns in zip(*leaks, strict=True)))


def by_hash(
    evaluation: dict[str, tuple[np.ndarray, np.ndarray]], hashes: np.ndarray, bits: int = BITS
) -> Leak:
    """``evaluation``: identities and hashes of each set; ``hashes``: int64, of a source."""
    blocks = [Leak(np.empty(0, object), np.empty(0, np.int64), np.empty(0, np.float32))]
    index = faiss.IndexBinaryFlat(64)
    index.add(np.unique(hashes).view(np.uint8).reshape(-1, 8))
    for name, (identity, theirs) in evaluation.items():
        distinct, place = np.unique(theirs, return_inverse=True)
        least = np.full(len(distinct), np.inf, np.float32)
        for first in range(0, len(distinct), 4096):
            queries = distinct[first : first + 4096].view(np.uint8).reshape(-1, 8)
            limits, found, _ = index.range_search(queries, bits + 1)
            rows = np.repeat(np.arange(len(queries)), np.diff(limits).astype(np.int64))
            np.minimum.at(least, first + rows, found.astype(np.float32))
        own = np.flatnonzero(np.isfinite(least[place]))
        dataset = np.full(len(own), name, object)
        blocks.append(Leak(dataset, identity[own], least[place][own]))
    return Leak(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def _first_of_each(dataset: np.ndarray, identity: np.ndarray, distance: np.ndarray) -> Leak:
    order = np.lexsort((distance, identity, dataset.astype(str)))
    dataset, identity, distance = dataset[order], identity[order], distance[order]
    new = np.ones(len(order), bool)
    new[1:] = (dataset[1:] != dataset[:-1]) | (identity[1:] != identity[:-1])
    return Leak(dataset[new], identity[new], distance[new])


def read_decoded(paths: list[Path]) -> pa.Table:
    """Identities and pixel hashes of the decoded images of a dataset."""
    names = ["shard_id", "sample_index", "pixel_hash", "status"]
    parts = [tables.read_table(path, schemas.DESCRIBED, names) for path in paths]
    table = pa.concat_tables(parts).unify_dictionaries()
    decoded = pc.is_in(table["status"].cast(pa.string()), pa.array(DECODED))
    return table.filter(decoded).drop_columns("status")


def read_copied(
    path: Path, evaluation: dict[str, pa.Table], learned: np.ndarray | None = None
) -> pa.Array:
    """Pixel hashes of the evaluation images that stand in U too, or in some of its images."""
    table = tables.read_table(path, schemas.COPIES)
    if learned is not None:
        table = table.filter(pa.array(np.isin(tables.identity(table), learned)))
    found = [pa.array([], schemas.DESCRIBED.field("pixel_hash").type)]
    for name, told in evaluation.items():
        own = tables.identity(table.filter(pc.equal(table["first_dataset"], name)), "first_")
        rows = pa.array(np.isin(tables.identity(told), own))
        found += told["pixel_hash"].filter(rows).chunks
    return pa.concat_arrays(found)


def read_hashes(
    paths: list[Path], learned: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Identities and perceptual hashes of the decoded images of a dataset, or of some of them."""
    identities, hashes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in paths:
        names = ["shard_id", "sample_index", "perceptual_hash", "status"]
        table = tables.read_table(path, schemas.DESCRIBED, names)
        status = table["status"].cast(pa.string()).to_numpy(zero_copy_only=False).astype(str)
        rows = np.flatnonzero(np.isin(status, DECODED))
        identity = tables.identity(table, rows=rows)
        if learned is not None:
            kept = np.isin(identity, learned)
            rows, identity = rows[kept], identity[kept]
        identities.append(identity)
        hashes.append(table["perceptual_hash"].to_numpy()[rows])
    return np.concatenate(identities), np.concatenate(hashes)


def leak_columns(found: list[tuple[str, str, Leak]]) -> dict[str, Any]:
    """The columns of the table of leaks; each entry: source, what compares, the leak."""

    def rows() -> Iterator[dict[str, Any]]:
        for source, by, leak in found:
            shard_ids, sample_indices = tables.split_identity(leak.identity)
            yield {
                "source": np.full(len(leak.identity), source, object),
                "by": np.full(len(leak.identity), by, object),
                "evaluation_dataset": leak.dataset,
                "evaluation_shard_id": shard_ids,
                "evaluation_sample_index": sample_indices,
                "distance": leak.distance,
            }

    blocks = list(rows())
    empty = np.empty(0, object)
    return {
        name: np.concatenate([block[name] for block in blocks] or [empty])
        for name in schemas.LEAKS.names
    }

"""U against itself, at scale: features are sorted into cells, and compared within cells.

Approximate in one way only: two close images in different cells are not found. Everything else is
exact and does not depend on parts, threads or machines: centroids are float16 as features are, so
that products of the two are sums a float64 holds without rounding (features.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from semisup import schemas, tables
from semisup.features import Features, pack, read_features, unpack
from semisup.selection import drawn
from semisup.tables import DataError

SAMPLES_PER_CELL = 64
"""Images a centroid is learned from, about."""

ROUNDS = 10
BLOCK = 1024


def train_cells(paths: list[Path], num_cells: int, seed: int) -> np.ndarray:
    """Centroids, float16 (cells, dimensions), by k-means on a random share of U.

    Fewer cells where U has fewer images than that needs.
    """
    num_images = sum(tables.count_rows(path) for path in paths)
    share = min(1.0, SAMPLES_PER_CELL * num_cells / max(num_images, 1))
    blocks = [
        block.vectors[drawn(block.identity, share, seed)].astype(np.float32)
        for path in paths
        for block in read_features(path)
    ]
    if not blocks or not (sample := np.concatenate(blocks)).size:
        raise DataError(f"{paths[0]}: no image of U has a feature, so there is nothing to compare.")
    num_cells = min(num_cells, max(len(sample) // SAMPLES_PER_CELL, 1))
    faiss.omp_set_num_threads(1)  # the order of sums, and so the centroids, depends on it
    clusters = faiss.Kmeans(
        sample.shape[1], num_cells, niter=ROUNDS, seed=seed % 2**31, min_points_per_centroid=1
    )
    clusters.train(sample)
    return np.asarray(clusters.centroids).astype(np.float16)


def assign(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The cell of each feature, int32: that of the closest centroid; ties: the first."""
    wide = centroids.astype(np.float64)
    squares = (wide**2).sum(1)
    cells = [
        (squares - 2 * (vectors[start : start + BLOCK].astype(np.float64) @ wide.T)).argmin(1)
        for start in range(0, len(vectors), BLOCK)
    ]
    return np.concatenate([np.empty(0, np.int32), *cells]).astype(np.int32)


class NearCopies(NamedTuple):
    """Images close to an earlier one that is kept: both identities, by the first, and the distance."""

    copy: np.ndarray
    first: np.ndarray
    distance: np.ndarray


def near_copy_columns(found: NearCopies) -> dict[str, np.ndarray]:
    """The columns of near-copies by identity."""
    order = np.argsort(found.copy)
    columns: dict[str, np.ndarray] = {"distance": found.distance[order]}
    for prefix, identity in (("", found.copy[order]), ("first_", found.first[order])):
        shard_ids, sample_indices = tables.split_identity(identity)
        columns |= {f"{prefix}shard_id": shard_ids, f"{prefix}sample_index": sample_indices}
    return columns


def cell_columns(images: Features, centroids: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of images sorted by cell, then identity."""
    cell = assign(images.vectors, centroids)
    order = np.lexsort((images.identity, cell))
    shard_ids, sample_indices = tables.split_identity(images.identity[order])
    packed = pack(images.vectors[order])
    return {
        "cell": cell[order], "shard_id": shard_ids, "sample_index": sample_indices,
        "feature": np.array(packed, object),
    }  # fmt: skip


def group_of(cell: np.ndarray, num_groups: int) -> np.ndarray:
    return cell % num_groups


def read_cells(paths: list[Path], group: int) -> Iterator[Features]:
    """The images of each cell of a group, over all parts; a row group of each holds the group."""
    cells, identities, vectors = [], [], []
    for path in paths:
        with tables.open_table(path, schemas.CELLS) as file:
            table = file.read_row_group(group)
        if len(table):
            cells.append(table["cell"].to_numpy())
            identities.append(tables.identity(table))
            vectors.append(unpack(table["feature"], path))
    if not cells:
        return
    together = np.concatenate(cells)
    images = Features(np.concatenate(identities), np.concatenate(vectors))
    for cell in np.unique(together):
        own = np.flatnonzero(together == cell)
        yield Features(*(column[own] for column in images))

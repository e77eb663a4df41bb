"""U against itself: the images of a cell that are close to an earlier one."""

from collections.abc import Iterator

import numpy as np

from semisup.cells import NearCopies
from semisup.features import Features
from semisup.neighbors import Neighbors

BLOCK = 1024


def in_cell(images: Features, distance: float) -> NearCopies:
    """Of the images of a cell; ``first`` is the first kept image that is close.

    Images with equal features are compared once: there may be thousands of one picture.
    """
    order = np.argsort(images.identity)
    identity, vectors = images.identity[order], images.vectors[order]
    packed = np.ascontiguousarray(vectors).view(f"V{2 * vectors.shape[1]}").ravel()
    _, first, place = np.unique(packed, return_index=True, return_inverse=True)
    same = first[place]  # of each image the first with its feature
    distinct = np.flatnonzero(same == np.arange(len(same)))
    kept_by = np.arange(len(same))
    far = np.zeros(len(same), np.float32)
    search = Neighbors(vectors[distinct], distance)
    for start in range(0, len(distinct), BLOCK):
        for query, match, apart in _earlier(search, vectors[distinct], start):
            own, other = distinct[query], distinct[match]
            if kept_by[own] == own and kept_by[other] == other:
                kept_by[own], far[own] = other, apart
    kept_by, far = kept_by[same], far[same]
    copies = np.flatnonzero(kept_by != np.arange(len(same)))
    return NearCopies(identity[copies], identity[kept_by[copies]], far[copies])


def _earlier(
    search: Neighbors, vectors: np.ndarray, start: int
) -> Iterator[tuple[int, int, float]]:
    """Close pairs of a block of rows with rows before them, by row, then by the one before."""
    found = list(search.within(vectors[start : start + BLOCK]))
    if found:
        query, match, distance = (np.concatenate(column) for column in zip(*found, strict=True))
        rows = np.flatnonzero(match < query + start)
        rows = rows[np.lexsort((match[rows], query[rows]))]
        columns = query[rows] + start, match[rows], distance[rows]
        yield from zip(*(column.tolist() for column in columns), strict=True)

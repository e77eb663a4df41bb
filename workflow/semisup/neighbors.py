"""Near neighbours of evaluation images, exact. The only module that imports faiss."""

from typing import NamedTuple

import faiss
import numpy as np


class Pairs(NamedTuple):
    """Positions of close pairs in the queries and in the index, and how far apart they are."""

    query: np.ndarray
    match: np.ndarray
    distance: np.ndarray  # float32


class Neighbors:
    """The features of the evaluation images as an index past which the images of U stream.

    The roles are the inverse of the usual: the small set is indexed, so memory does not depend on
    the size of U (paper, section 4.1, searches the same pairs).
    """

    def __init__(self, features: np.ndarray) -> None:
        """``features``: float32 of shape (images, dimensions), L2-normalised."""
        self.features = np.ascontiguousarray(features, np.float32)
        self.index = faiss.IndexFlatL2(self.features.shape[1])
        self.index.add(self.features)

    def within(self, queries: np.ndarray, distance: float) -> Pairs:
        """All pairs at most ``distance`` apart, by query, then match.

        Faiss finds the candidates; their distances are computed again in double precision, since
        the expanded form it uses cannot resolve distances near zero.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        radius = float(distance) ** 2 + 1e-3
        limits, _, match = self.index.range_search(queries, radius)
        query = np.repeat(np.arange(len(queries)), (limits[1:] - limits[:-1]).astype(np.int64))
        exact = np.empty(len(query), np.float32)
        for start in range(0, len(query), 65_536):
            span = slice(start, start + 65_536)
            difference = queries[query[span]].astype(np.float64) - self.features[match[span]]
            exact[span] = np.sqrt((difference**2).sum(1))
        close = exact <= np.float32(distance)
        order = np.lexsort((match[close], query[close]))
        return Pairs(query[close][order], match[close][order].astype(np.int64), exact[close][order])

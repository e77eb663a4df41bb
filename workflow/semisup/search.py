"""The search of near-duplicates in a part of U: the nearest of each image, and the closest pairs."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from semisup.features import Features
from semisup.neighbors import Neighbors
from semisup.pairs import Closest, Nearest

MARGINS = (2, 16)
"""How many times as many pairs as are kept should be within the cut that a sample suggests: at
first, and where that was too little, as pairs come in clusters.
"""

SAMPLED_PAIRS, MOST_SAMPLED, SHARE = 400, 1024, 64
"""Pairs of the sample that should be, images it has at most, and one of how many it may be."""

log = logging.getLogger("semisup")


class Found(NamedTuple):
    """Rows of the evaluation images that are nearest to images of U, and pairs of identity and row."""

    identity: np.ndarray
    match: np.ndarray
    distance: np.ndarray
    closest: Closest
    num_images: int


def sample_size(num_images: int, max_pairs: int) -> int:
    """Images of a part of so many to look at first."""
    wanted = SAMPLED_PAIRS * num_images // max(MARGINS[0] * max_pairs, 1) + 1
    return min(wanted, MOST_SAMPLED, num_images // SHARE + 1)


def search(
    read: Callable[[], Iterator[Features]],
    sample: list[Features],
    num_images: int,
    neighbors: Neighbors,
    max_pairs: int,
) -> Found:
    """``read`` begins anew at every call; ``sample``: some of the ``num_images`` images it reads.

    Which pairs are the closest of all is known at the end only. Where the sample says about how far
    apart they are, few others are looked at. If it said too little, all is searched again.
    """
    for margin in MARGINS if sample else ():
        share = margin * max_pairs / max(num_images * len(neighbors.index), 1)
        likely = neighbors.quantile(np.concatenate([block.vectors for block in sample]), share)
        found = _search(read(), neighbors, Closest(max_pairs, likely))
        if found.closest.count >= max_pairs or likely >= neighbors.distance:
            return found
        log.info("only %d pairs up to %.4f: searching again", found.closest.count, likely)
    return _search(read(), neighbors, Closest(max_pairs))


def _search(blocks: Iterator[Features], neighbors: Neighbors, closest: Closest) -> Found:
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    num_images = 0
    for block in blocks:
        own = Nearest(len(block.identity))
        for close in neighbors.within(block.vectors, lambda: closest.cut):
            own.add(*close)
            closest.add(close.distance, block.identity[close.query], close.match)
        rows = np.flatnonzero(own.match >= 0)
        found.append((block.identity[rows], own.match[rows], own.distance[rows]))
        num_images += len(block.identity)
    identity, match, distance = map(np.concatenate, zip(*found, strict=True))
    return Found(identity, match, distance, closest, num_images)

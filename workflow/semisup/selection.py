"""The mathematics of the selection: pure functions from columns to columns."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

TIERS = (16, 64, 256, 1024, 4096, 16384)
"""Ranks within the class of one part at which a new tier of its scores begins."""


class Ranked(NamedTuple):
    """Scores: an image, a class it may serve, and how well."""

    class_id: np.ndarray  # int16
    log_odds: np.ndarray  # float32
    identity: np.ndarray  # int64
    prediction_rank: np.ndarray  # int8, 1 = the image's best class

    def take(self, rows: np.ndarray) -> "Ranked":
        return Ranked(*(column[rows] for column in self))


def rank_order(scores: Ranked) -> np.ndarray:
    """The order of the format: class, log-odds descending, identity. A total order: an image has
    one score for a class."""
    return np.lexsort((scores.identity, -scores.log_odds, scores.class_id))


def ranks_in_class(sorted_class_ids: np.ndarray) -> np.ndarray:
    """Rank from 1 of each row within its class, for rows in rank order."""
    starts = np.flatnonzero(np.diff(sorted_class_ids, prepend=-1))
    lengths = np.diff(np.append(starts, len(sorted_class_ids)))
    return np.arange(len(sorted_class_ids)) - np.repeat(starts, lengths) + 1


def tier_order(scores: Ranked) -> tuple[np.ndarray, list[int]]:
    """The order of a score table and the lengths of its row groups.

    Rows are split by their rank within the class in this part, so that the merge can read the best
    of every class first; within a tier they are in rank order. Empty tiers are left out.
    """
    order = rank_order(scores)
    ranks = ranks_in_class(scores.class_id[order])
    tier = np.searchsorted(TIERS, ranks - 1, side="right")
    lengths = np.bincount(tier, minlength=len(TIERS) + 1)
    return order[np.argsort(tier, kind="stable")], lengths[lengths > 0].tolist()


def top_k(blocks: Iterable[Ranked], num_classes: int, images_per_class: int) -> Ranked:
    """The best ``images_per_class`` rows of each class over all blocks, in rank order.

    Exact for any grouping and order of the blocks. Memory: that of a block and of the result.
    """
    kept = _empty()
    threshold = np.full(num_classes, -np.inf, np.float32)
    for block in blocks:
        # A row below the worst kept row of a full class cannot enter; an equal one may, by identity.
        block = block.take(np.flatnonzero(block.log_odds >= threshold[block.class_id]))
        kept = Ranked(*(np.concatenate(pair) for pair in zip(kept, block, strict=True)))
        kept = kept.take(rank_order(kept))
        ranks = ranks_in_class(kept.class_id)
        kept = kept.take(ranks <= images_per_class)
        ranks = ranks[ranks <= images_per_class]
        full = ranks == images_per_class
        threshold[kept.class_id[full]] = kept.log_odds[full]
    return kept


def _empty() -> Ranked:
    return Ranked(
        np.empty(0, np.int16), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int8)
    )


def score_of(log_odds: np.ndarray) -> np.ndarray:
    """The softmax probability people read: 1 / (1 + exp(-log_odds)), float32."""
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-log_odds.astype(np.float64)))).astype(np.float32)


def find_copies(identities: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Identities of the images whose hash stands earlier, and of the first image that has it.

    ``identities``: int64, ascending; ``hashes``: one row of two uint64 per image.
    """
    order = np.lexsort((identities, hashes[:, 1], hashes[:, 0]))
    same = np.all(hashes[order][1:] == hashes[order][:-1], axis=1)
    is_copy = np.concatenate([[False], same]) if len(order) else np.empty(0, bool)
    first_row = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(order))))
    copies, firsts = identities[order][is_copy], identities[order][first_row][is_copy]
    by_identity = np.argsort(copies)
    return copies[by_identity], firsts[by_identity]


def closest_images(
    identities: np.ndarray, distances: np.ndarray, closest: int, max_distance: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images of U to remove, by identity, with the distance to their closest evaluation image.

    Removed are the ``closest`` images, ties by identity, and all at most ``max_distance`` away
    (None: no such limit).
    """
    order = np.lexsort((identities, distances))
    found, first = np.unique(identities[order], return_index=True)
    nearest = distances[order][first]
    by_distance = np.lexsort((found, nearest))
    remove = np.zeros(len(found), bool)
    remove[by_distance[:closest]] = True
    if max_distance is not None:
        remove |= nearest <= np.float32(max_distance)
    return found[remove], nearest[remove]

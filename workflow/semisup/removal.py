"""Which images of U may not be selected: (near-)duplicates of evaluation images, and copies."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.config import Remove
from semisup.reviews import read_review
from semisup.selection import closest_images, contains

log = logging.getLogger("semisup")

COPY_OF_EVALUATION = "copy_of_evaluation"
DUPLICATE = "duplicate_of_evaluation"
COPY = "copy"
NEAR_COPY = "near_copy"
REASONS = (COPY_OF_EVALUATION, DUPLICATE, COPY, NEAR_COPY)


WAITING = 1_000_000
"""Recorded images that wait to be compared with those found closest so far, at least."""


class Recorded(NamedTuple):
    """The tables that say what could be removed; empty lists where none is made."""

    nearest: list[Path]
    pairs: list[Path]
    copies: list[Path]
    near_copies: list[Path]
    reviewed: list[Path]


def removed_images(
    remove: Remove | None, recorded: Recorded, manifests: list[Path]
) -> pd.DataFrame:
    """identity, reason, distance of every image that may not be selected, by identity, once each.

    An image with several reasons has the first of REASONS. What a person reviewed overrides what is
    said about evaluation images, not what is said about copies within U. A ``keep`` is about one
    pair: an image stays removed while a rule holds for a pair of it without one, of those recorded.
    """
    found = {"identity": np.empty(0, np.int64), "reason": "", "distance": np.empty(0, np.float32)}
    blocks = [pd.DataFrame(found)]
    if remove:
        num_recorded = sum(map(tables.count_rows, recorded.nearest))
        if remove.closest > num_recorded:
            log.warning(
                "duplicates.remove.closest is %d, but only %d images are close enough to be recorded: "
                "raise duplicates.record_distance, or lower closest", remove.closest, num_recorded,
            )  # fmt: skip
        of_evaluation, within = _read_copies(recorded.copies, manifests)
        same = of_evaluation if remove.evaluation_copies else of_evaluation[:0]
        close, apart = read_closest(recorded.nearest, remove.closest, remove.max_distance)
        for path in recorded.reviewed:
            review = read_review(path, manifests)
            kept = review[~review["removes"]]
            cut = _cut(remove.max_distance, apart)
            decided = np.intersect1d(close, kept["identity"])
            left = _not_kept(_read_pairs(recorded, decided), kept)
            still = left["identity"][left["distance"] <= cut]
            close = np.union1d(np.setdiff1d(close, decided), still)
            same = _not_kept(same, kept)
            if number := len(np.intersect1d(np.union1d(close, same["identity"]), kept["identity"])):
                log.info(
                    "%d images with a keep go: a rule holds for another pair of theirs", number
                )
            close = np.union1d(close, review["identity"][review["removes"]])
        copied = np.unique(same["identity"])
        identities, distances = _distances_of(recorded.nearest, np.union1d(copied, close))
        blocks += [
            _block(copied, COPY_OF_EVALUATION, identities, distances),
            _block(close, DUPLICATE, identities, distances),
        ]
        if remove.copies:
            blocks.append(_block(within, COPY))
        for path in recorded.near_copies if remove.near_copies else []:
            near = tables.identity(tables.read_table(path, schemas.NEAR_COPIES))
            blocks.append(_block(near, NEAR_COPY))
    together = pd.concat([block for block in blocks if len(block)] or blocks)
    return together.drop_duplicates("identity").sort_values("identity", ignore_index=True)


def _cut(max_distance: float | None, apart: np.ndarray) -> np.float32:
    """The distance up to which a pair removes its image, given those of the closest images."""
    farthest = -1 if max_distance is None else max_distance
    return max(apart.max(initial=np.float32(-1)), np.float32(farthest))


def deciding_pair(
    remove: Remove, recorded: Recorded, manifests: list[Path], identity: int
) -> dict[str, Any] | None:
    """The closest pair for which a rule removes an image as a near-duplicate: PAIR and ``distance``.

    None where only a review removes it.
    """
    close, apart = read_closest(recorded.nearest, remove.closest, remove.max_distance)
    if identity not in close:
        return None
    pairs = _read_pairs(recorded, np.array([identity]))
    for kept in _read_kept(recorded, manifests):
        if identity in kept["identity"].to_numpy():
            pairs = _not_kept(pairs, kept)
            pairs = pairs[pairs["distance"] <= _cut(remove.max_distance, apart)]
    found = pairs.sort_values("distance", kind="stable").to_dict("records")
    return {str(name): value for name, value in found[0].items()} if found else None


def deciding_copies(
    recorded: Recorded, manifests: list[Path], identity: int
) -> list[tuple[str, int]]:
    """The evaluation images, dataset and identity, as whose copy an image goes."""
    pairs, _ = _read_copies(recorded.copies, manifests)
    pairs = pairs[pairs["identity"] == identity]
    for kept in _read_kept(recorded, manifests):
        pairs = _not_kept(pairs, kept)
    return list(zip(pairs["evaluation_dataset"], pairs["evaluation"], strict=True))


def _read_kept(recorded: Recorded, manifests: list[Path]) -> Iterator[pd.DataFrame]:
    for path in recorded.reviewed:
        review = read_review(path, manifests)
        yield review[~review["removes"]]


def read_nearest(paths: list[Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Identity of each image close to an evaluation image, and how close; by identity, in pieces."""
    for path in paths:
        names = ["shard_id", "sample_index", "distance"]
        for batch in tables.read_batches(path, schemas.NEAREST, names):
            yield tables.identity(batch), batch["distance"].to_numpy()


def read_closest(
    paths: list[Path], closest: int, max_distance: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """What closest_images finds among the recorded images. Memory: of those found, not of U."""
    found = np.empty(0, np.int64), np.empty(0, np.float32)
    waiting, num_waiting = [found], 0
    cut = np.float32(np.inf)  # what is farther need not wait

    def settle() -> tuple[np.ndarray, np.ndarray]:
        identities, distances = map(np.concatenate, zip(*waiting, strict=True))
        return closest_images(identities, distances, closest, max_distance)

    for identities, distances in read_nearest(paths):
        near = distances <= cut
        waiting.append((identities[near], distances[near]))
        num_waiting += int(near.sum())
        if num_waiting > max(WAITING, len(found[0])):
            found = settle()
            waiting, num_waiting = [found], 0
            if len(found[0]) >= closest:
                cut = _cut(max_distance, found[1])
    return settle()


def _distances_of(paths: list[Path], wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of these images (identities, ascending) that are recorded, and how close; by identity."""
    found = [(np.empty(0, np.int64), np.empty(0, np.float32))]
    for identities, distances in read_nearest(paths) if len(wanted) else ():
        here = contains(wanted, identities)
        found.append((identities[here], distances[here]))
    identities, distances = map(np.concatenate, zip(*found, strict=True))
    return identities, distances


def _block(
    found: np.ndarray,
    reason: str,
    identities: np.ndarray | None = None,
    distances: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of removed images; ``identities``, ascending, and ``distances``: of those recorded."""
    distance = np.full(len(found), np.nan, np.float32)
    if identities is not None and distances is not None and len(identities):
        at = np.searchsorted(identities, found).clip(max=len(identities) - 1)
        known = identities[at] == found
        distance[known] = distances[at[known]]
    return pd.DataFrame({"identity": found, "reason": reason, "distance": distance})


PAIR = ["identity", "evaluation_dataset", "evaluation"]
"""An image of U and an evaluation image: the columns of frames of pairs."""


def _pairs_in(table: pa.Table | pa.RecordBatch, prefix: str = "evaluation_") -> pd.DataFrame:
    columns = {
        "identity": tables.identity(table),
        "evaluation_dataset": table[f"{prefix}dataset"].to_pylist(),
        "evaluation": tables.identity(table, prefix),
    }
    return pd.DataFrame(columns)


def _read_copies(paths: list[Path], manifests: list[Path]) -> tuple[pd.DataFrame, np.ndarray]:
    """Pairs of images that are the same, and identities of the copies of earlier images of U."""
    of_evaluation, within = (
        [_pairs_in(schemas.COPIES.empty_table(), "first_")],
        [np.empty(0, np.int64)],
    )
    for path in paths:
        table = tables.read_table(path, schemas.COPIES)
        own = pc.equal(table["first_dataset"], tables.read_json(manifests[0])["dataset"])
        of_evaluation.append(_pairs_in(table.filter(pc.invert(own)), "first_"))
        within.append(tables.identity(table.filter(own)))
    return pd.concat(of_evaluation, ignore_index=True), np.concatenate(within)


def _read_pairs(recorded: Recorded, wanted: np.ndarray) -> pd.DataFrame:
    """The recorded pairs of these images (identities, ascending), and how far apart they are."""
    blocks = [_pairs_in(schemas.NEAREST.empty_table()).assign(distance=np.empty(0, np.float32))]
    # The pairs are bounded, so the closest evaluation image of an image may not be among them.
    files = [(path, schemas.NEAREST) for path in recorded.nearest]
    files += [(path, schemas.DUPLICATES) for path in recorded.pairs]
    for path, schema in files if len(wanted) else ():
        for batch in tables.read_batches(path, schema, schemas.NEAREST.names):
            batch = batch.filter(pa.array(contains(wanted, tables.identity(batch))))
            blocks.append(_pairs_in(batch).assign(distance=batch["distance"].to_numpy()))
    return pd.concat([block for block in blocks if len(block)] or blocks, ignore_index=True)


def not_kept(pairs: pa.Table, kept: pd.DataFrame) -> pa.Table:
    """The rows of DUPLICATES of which no ``keep`` is said, nor of their image of U as a whole."""
    return pairs.take(_not_kept(_pairs_in(pairs), kept).index.to_numpy())


def _not_kept(pairs: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Pairs of which no ``keep`` is said, nor of their image of U as a whole."""
    as_a_whole = kept["identity"][kept["evaluation"] < 0]
    named = pd.MultiIndex.from_frame(pairs[PAIR]).isin(pd.MultiIndex.from_frame(kept[PAIR]))
    return pairs[~named & ~pairs["identity"].isin(as_a_whole)]

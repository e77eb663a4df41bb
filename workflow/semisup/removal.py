"""Which images of U may not be selected: (near-)duplicates of evaluation images, and copies."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from semisup import schemas, tables
from semisup.config import Remove
from semisup.samples import parts_of, read_samples
from semisup.selection import closest_images
from semisup.tables import DataError

COPY_OF_EVALUATION = "copy_of_evaluation"
DUPLICATE = "duplicate_of_evaluation"
COPY = "copy"
NEAR_COPY = "near_copy"
REASONS = (COPY_OF_EVALUATION, DUPLICATE, COPY, NEAR_COPY)

MAX_NAMED = 20


class Recorded(NamedTuple):
    """The tables that say what could be removed; empty lists where none is made."""

    nearest: list[Path]
    copies: list[Path]
    near_copies: list[Path]
    reviewed: list[Path]


def removed_images(
    remove: Remove | None, recorded: Recorded, manifests: list[Path]
) -> pd.DataFrame:
    """identity, reason, distance of every image that may not be selected, by identity, once each.

    An image with several reasons has the first of REASONS. What a person reviewed overrides what is
    said about evaluation images, not what is said about copies within U.
    """
    found = {"identity": np.empty(0, np.int64), "reason": "", "distance": np.empty(0, np.float32)}
    blocks = [pd.DataFrame(found)]
    if remove:
        identities, distances = read_nearest(recorded.nearest)
        own, of_evaluation = _read_copies(recorded.copies, manifests)
        exact = np.unique(own[of_evaluation]) if remove.evaluation_copies else own[:0]
        close, _ = closest_images(identities, distances, remove.closest, remove.max_distance)
        for path in recorded.reviewed:
            decided, removes = read_review(path, manifests)
            exact = np.setdiff1d(exact, decided[~removes])
            close = np.union1d(np.setdiff1d(close, decided[~removes]), decided[removes])
        blocks += [
            _block(exact, COPY_OF_EVALUATION, identities, distances),
            _block(close, DUPLICATE, identities, distances),
        ]
        if remove.copies:
            blocks.append(_block(own[~of_evaluation], COPY))
        for path in recorded.near_copies if remove.near_copies else []:
            near = tables.identity(tables.read_table(path, schemas.NEAR_COPIES))
            blocks.append(_block(near, NEAR_COPY))
    together = pd.concat([block for block in blocks if len(block)] or blocks)
    return together.drop_duplicates("identity").sort_values("identity", ignore_index=True)


def read_nearest(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Identity of each image close to an evaluation image, and how close; by identity."""
    identities, distances = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for path in paths:
        names = ["shard_id", "sample_index", "distance"]
        table = tables.read_table(path, schemas.NEAREST, names)
        identities.append(tables.identity(table))
        distances.append(table["distance"].to_numpy())
    return np.concatenate(identities), np.concatenate(distances)


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


def _read_copies(paths: list[Path], manifests: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Identities of the copies, and whether each is one of an evaluation image; some are of both."""
    own, of_evaluation = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for path in paths:
        table = tables.read_table(path, schemas.COPIES)
        first = table["first_dataset"].to_numpy().astype(str)
        own.append(tables.identity(table))
        of_evaluation.append(first != tables.read_json(manifests[0])["dataset"])
    return np.concatenate(own), np.concatenate(of_evaluation)


def read_review(path: Path, manifests: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Identities of the images a person decided about, and whether each is to be removed.

    An image that stands in several rows, as it is close to several evaluation images, is removed if
    one of them says so. Raises DataError on anything but images of U and keep or remove.
    """
    try:
        review = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from None
    columns = ["shard_id", "sample_index", "decision"]
    if missing := [name for name in columns if name not in review]:
        raise DataError(f"{path}: columns {missing} are missing; it has {list(review.columns)}.")
    if wrong := sorted(set(review["decision"]) - {"keep", "remove"}):
        raise DataError(f"{path}: decision must be keep or remove, not {wrong[:3]}.")
    numbers = review[["shard_id", "sample_index"]].apply(pd.to_numeric, errors="coerce")
    bad = (
        ~(numbers >= 0).all(axis=1)
        | (numbers % 1 != 0).any(axis=1)
        | (numbers >= 2**31).any(axis=1)
    )
    if bad.any():
        row = review[bad].iloc[0]
        raise DataError(
            f"{path}: line {bad.idxmax() + 2}: shard_id and sample_index must be whole numbers from 0, "
            f"not {row['shard_id']!r} and {row['sample_index']!r}."
        )
    identity = tables.identity({n: numbers[n].astype(np.int64) for n in numbers})
    _check_known(path, review, identity, manifests)
    removes = (review["decision"] == "remove").to_numpy()
    decided = np.unique(identity)
    return decided, np.isin(decided, identity[removes])


def _check_known(
    path: Path, review: pd.DataFrame, identity: np.ndarray, manifests: list[Path]
) -> None:
    """That every image is one of U and, where the list has keys, has this key."""
    keys = np.full(len(identity), None, object)
    for manifest, here in parts_of(manifests, identity):
        table = read_samples([manifest], ["shard_id", "sample_index", "key"]).table
        known = np.append(tables.identity(table), -1)
        rows = np.searchsorted(known[:-1], identity[here])
        there = known[rows] == identity[here]
        keys[here[there]] = table["key"].take(rows[there]).to_pylist()
    unknown = np.array([key is None for key in keys], bool)
    remedy = "The list was made for another dataset, or U has changed since: review again."
    if unknown.any():
        strange = review[unknown]
        named = [
            f"{row.get('key') or 'image'} (sample {row['sample_index']} of shard {row['shard_id']})"
            for _, row in strange.iterrows()
        ]
        raise DataError(f"{path}: {len(strange)} images are not in U: {_listed(named)}. {remedy}")
    if "key" in review:
        wrong = review["key"].to_numpy() != keys
        named = [
            f"{row['key']!r} (sample {row['sample_index']} of shard {row['shard_id']} is {key!r})"
            for (_, row), key in zip(review[wrong].iterrows(), keys[wrong], strict=True)
        ]
        if named:
            raise DataError(f"{path}: {len(named)} unknown keys: {_listed(named)}. {remedy}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more

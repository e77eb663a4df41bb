"""Which images of U may not be selected: (near-)duplicates of evaluation images, and copies."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.config import Remove
from semisup.samples import parts_of, read_samples
from semisup.selection import closest_images, contains
from semisup.tables import DataError

log = logging.getLogger("semisup")

COPY_OF_EVALUATION = "copy_of_evaluation"
DUPLICATE = "duplicate_of_evaluation"
COPY = "copy"
NEAR_COPY = "near_copy"
REASONS = (COPY_OF_EVALUATION, DUPLICATE, COPY, NEAR_COPY)

MAX_NAMED = 20


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
        identities, distances = read_nearest(recorded.nearest)
        if remove.closest > len(identities):
            log.warning(
                "duplicates.remove.closest is %d, but only %d images are close enough to be recorded: "
                "raise duplicates.record_distance, or lower closest", remove.closest, len(identities),
            )  # fmt: skip
        of_evaluation, within = _read_copies(recorded.copies, manifests)
        same = of_evaluation if remove.evaluation_copies else of_evaluation[:0]
        close, apart = closest_images(identities, distances, remove.closest, remove.max_distance)
        for path in recorded.reviewed:
            review = read_review(path, manifests)
            kept = review[~review["removes"]]
            farthest = -1 if remove.max_distance is None else remove.max_distance
            cut = max(apart.max(initial=-1), np.float32(farthest))
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
        blocks += [
            _block(np.unique(same["identity"]), COPY_OF_EVALUATION, identities, distances),
            _block(close, DUPLICATE, identities, distances),
        ]
        if remove.copies:
            blocks.append(_block(within, COPY))
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
        with tables.open_table(path, schema) as file:
            for batch in file.iter_batches(columns=schemas.NEAREST.names):
                batch = batch.filter(pa.array(contains(wanted, tables.identity(batch))))
                blocks.append(_pairs_in(batch).assign(distance=batch["distance"].to_numpy()))
    return pd.concat([block for block in blocks if len(block)] or blocks, ignore_index=True)


def _not_kept(pairs: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Pairs of which no ``keep`` is said, nor of their image of U as a whole."""
    as_a_whole = kept["identity"][kept["evaluation"] < 0]
    named = pd.MultiIndex.from_frame(pairs[PAIR]).isin(pd.MultiIndex.from_frame(kept[PAIR]))
    return pairs[~named & ~pairs["identity"].isin(as_a_whole)]


def read_review(path: Path, manifests: list[Path]) -> pd.DataFrame:
    """The decisions of a person: PAIR, ``removes``, and ``distance``, NaN where the list has none.

    ``evaluation`` is -1 where a decision is about an image as a whole.

    An image that stands in several rows, as it is close to several evaluation images, is removed if
    one of them says so. Rows about another ``dataset`` are left out, so that one file may hold the
    lists of all. Raises DataError on anything but images of U and keep or remove.
    """
    try:
        review = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from None
    columns = ["shard_id", "sample_index", "decision"]
    matches = [field.name for field in schemas.MATCH]
    names_pairs = any(name in review for name in matches)
    columns += matches if names_pairs else []
    if missing := [name for name in columns if name not in review]:
        raise DataError(f"{path}: columns {missing} are missing; it has {list(review.columns)}.")
    if wrong := sorted(set(review["decision"]) - {"keep", "remove"}):
        raise DataError(f"{path}: decision must be keep or remove, not {wrong[:3]}.")
    if "dataset" in review:
        review = _only_of(tables.read_json(manifests[0])["dataset"], path, review)
    identity = _identities(path, review)
    _check_known(path, review, identity, manifests)
    decided = {
        "identity": identity,
        "evaluation_dataset": review["evaluation_dataset"] if names_pairs else "",
        "evaluation": _identities(path, review, "evaluation_") if names_pairs else -1,
        "removes": review["decision"] == "remove",
        "distance": pd.to_numeric(review.get("distance", np.nan), errors="coerce"),
    }
    return pd.DataFrame(decided)


def _only_of(dataset: str, path: Path, review: pd.DataFrame) -> pd.DataFrame:
    if len(nameless := review[review["dataset"] == ""]):
        line = nameless.index[0] + 2
        raise DataError(f"{path}: line {line}: dataset is empty; name that of the image.")
    own = review["dataset"] == dataset
    others = sorted(set(review["dataset"][~own]))
    if others:
        number = int((~own).sum())
        log.info("%s: %d rows are about %s, not %s", path, number, ", ".join(others), dataset)
    return review[own]


def _identities(path: Path, review: pd.DataFrame, prefix: str = "") -> np.ndarray:
    names = [f"{prefix}shard_id", f"{prefix}sample_index"]
    # As floats also where there is no row, whose type would be that of text.
    columns = {n: pd.to_numeric(review[n], errors="coerce").astype(float) for n in names}
    numbers = pd.DataFrame(columns)
    bad = (
        ~(numbers >= 0).all(axis=1)
        | (numbers % 1 != 0).any(axis=1)
        | (numbers >= 2**31).any(axis=1)
    )
    if bad.any():
        row = review[bad].iloc[0]
        raise DataError(
            f"{path}: line {review[bad].index[0] + 2}: {' and '.join(names)} must be whole numbers from 0, "
            f"not {row[names[0]]!r} and {row[names[1]]!r}."
        )
    return tables.identity({n: numbers[n].astype(np.int64) for n in numbers}, prefix)


def _check_known(
    path: Path, review: pd.DataFrame, identity: np.ndarray, manifests: list[Path]
) -> None:
    """That every image is one of U and, where the list has them, has this key and these bytes."""
    keys, hashes = (np.full(len(identity), None, object) for _ in range(2))
    for manifest, here in parts_of(manifests, identity):
        columns = ["shard_id", "sample_index", "key", "content_hash"]
        table = read_samples([manifest], columns).table
        known = np.append(tables.identity(table), -1)
        rows = np.searchsorted(known[:-1], identity[here])
        there = known[rows] == identity[here]
        keys[here[there]] = table["key"].take(rows[there]).to_pylist()
        hashes[here[there]] = [h.hex() for h in table["content_hash"].take(rows[there]).to_pylist()]
    unknown = np.array([key is None for key in keys], bool)
    remedy = "The list was made for another dataset, or U has changed since: review again."
    if unknown.any():
        named = _names(review[unknown])
        raise DataError(f"{path}: {len(named)} images are not in U: {_listed(named)}. {remedy}")
    if "key" in review:
        wrong = review["key"].to_numpy() != keys
        named = [
            f"{row['key']!r} (sample {row['sample_index']} of shard {row['shard_id']} is {key!r})"
            for (_, row), key in zip(review[wrong].iterrows(), keys[wrong], strict=True)
        ]
        if named:
            raise DataError(f"{path}: {len(named)} unknown keys: {_listed(named)}. {remedy}")
    if "content_hash" in review:  # keys may repeat from tar to tar
        named = _names(review[review["content_hash"].str.lower().to_numpy() != hashes])
        what = "images have other bytes than content_hash says"
        if named:
            raise DataError(f"{path}: {len(named)} {what}: {_listed(named)}. {remedy}")


def _names(review: pd.DataFrame) -> list[str]:
    return [
        f"{row.get('key') or 'image'} (sample {row['sample_index']} of shard {row['shard_id']})"
        for _, row in review.iterrows()
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more

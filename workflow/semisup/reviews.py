"""What people decided about pairs on the review page: the list it gave them, checked against U."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from semisup import schemas, tables
from semisup.samples import parts_of, read_samples
from semisup.tables import DataError
from semisup.wording import name_first

log = logging.getLogger("semisup")

MAX_NAMED = 20
"""Of what is wrong, so many are listed."""


def read_review(path: Path, manifests: list[Path]) -> pd.DataFrame:
    """The decisions: ``identity`` of an image of U, ``evaluation_dataset`` and ``evaluation`` (identity)
    of the other, ``removes``, and ``distance``, NaN where the list has none; checked against U.

    ``evaluation`` is -1 where a decision is about an image as a whole.

    An image that stands in several rows, as it is close to several evaluation images, is removed if
    one of them says so. Rows about another ``dataset`` are left out, so that one file may hold the
    lists of all. Raises DataError on anything but images of U and keep or remove.
    """
    dataset = tables.read_json(manifests[0])["dataset"]
    decided, review = _read_decisions(path, dataset)
    _check_known(path, review, decided["identity"].to_numpy(), manifests, "U")
    return decided


def read_decisions(path: Path, dataset: str) -> pd.DataFrame:
    """What read_review gives of this U, without a look at it: selecting has checked the list."""
    return _read_decisions(path, dataset)[0]


def _read_decisions(path: Path, dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The decisions, and the rows of the list that are about this dataset."""
    review = _read_csv(path)
    columns = ["shard_id", "sample_index", "decision"]
    matches = [field.name for field in schemas.MATCH]
    names_pairs = any(name in review for name in matches)
    columns += matches if names_pairs else []
    if missing := [name for name in columns if name not in review]:
        raise DataError(f"{path}: columns {missing} are missing; it has {list(review.columns)}.")
    if wrong := sorted(set(review["decision"]) - {"keep", "remove"}):
        raise DataError(f"{path}: decision must be keep or remove, not {wrong[:3]}.")
    if "dataset" in review:
        review = _only_of(dataset, path, review)
    identity = _identities(path, review)
    decided = {
        "identity": identity,
        "evaluation_dataset": review["evaluation_dataset"] if names_pairs else "",
        "evaluation": _identities(path, review, "evaluation_") if names_pairs else -1,
        "removes": review["decision"] == "remove",
        "distance": pd.to_numeric(review.get("distance", np.nan), errors="coerce"),
    }
    return pd.DataFrame(decided), review


def check_evaluation_images(path: Path, manifests: list[Path]) -> None:
    """That the list names evaluation images as they stand in these manifests, of any number of sets.

    Rows about sets that have none here are left out. Raises DataError: after a set has changed, a
    ``keep`` would clear other pairs than those a person looked at.
    """
    review = _read_csv(path)
    sets: dict[str, list[Path]] = {}
    for manifest in manifests:
        sets.setdefault(tables.read_json(manifest)["dataset"], []).append(manifest)
    for name, its_manifests in sets.items() if "evaluation_dataset" in review else ():
        own = review[review["evaluation_dataset"] == name]
        identity = _identities(path, own, "evaluation_")
        _check_known(path, own, identity, its_manifests, name, "evaluation_")


def named_datasets(path: Path) -> Iterator[tuple[str, str]]:
    """Column and name of each dataset in the list; none where it cannot be read."""
    try:
        review = _read_csv(path)
    except DataError:
        return
    for column in ("dataset", "evaluation_dataset"):
        yield from ((column, str(name)) for name in sorted(set(review.get(column, []))) if name)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from None


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
    path: Path,
    review: pd.DataFrame,
    identity: np.ndarray,
    manifests: list[Path],
    of: str,
    prefix: str = "",
) -> None:
    """That every image is one of these and, where the list has them, has this key and these bytes."""
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
    remedy = f"The list was made for another dataset, or {of} has changed since: review again."
    if unknown.any():
        named = _names(review[unknown], prefix)
        raise DataError(
            f"{path}: {len(named)} images are not in {of}: {name_first(named, MAX_NAMED)}. {remedy}"
        )
    if f"{prefix}key" in review:
        wrong = review[f"{prefix}key"].to_numpy() != keys
        named = [
            f"{row[f'{prefix}key']!r} ({_place(row, prefix)} is {key!r})"
            for (_, row), key in zip(review[wrong].iterrows(), keys[wrong], strict=True)
        ]
        if named:
            what = f"unknown keys of {of}" if prefix else "unknown keys"
            raise DataError(
                f"{path}: {len(named)} {what}: {name_first(named, MAX_NAMED)}. {remedy}"
            )
    if f"{prefix}content_hash" in review:  # keys may repeat from tar to tar
        column = review[f"{prefix}content_hash"]
        named = _names(review[column.str.lower().to_numpy() != hashes], prefix)
        what = "images have other bytes than content_hash says"
        if named:
            raise DataError(
                f"{path}: {len(named)} {what}: {name_first(named, MAX_NAMED)}. {remedy}"
            )


def _names(review: pd.DataFrame, prefix: str) -> list[str]:
    return [
        f"{row.get(f'{prefix}key') or 'image'} ({_place(row, prefix)})"
        for _, row in review.iterrows()
    ]


def _place(row: pd.Series, prefix: str) -> str:
    return f"sample {row[f'{prefix}sample_index']} of shard {row[f'{prefix}shard_id']}"

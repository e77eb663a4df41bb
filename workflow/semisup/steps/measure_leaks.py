"""Find the evaluation images with a near-duplicate in D, U and the selections."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from semisup import schemas, settings, tables, tars
from semisup.leaks import (
    FEATURES,
    HASH,
    by_features,
    by_hash,
    by_pixels,
    joined,
    leak_columns,
    read_copied,
    read_decoded,
    read_hashes,
)
from semisup.removal import not_kept, read_closest
from semisup.reviews import read_decisions
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.MeasureLeaks,
    results: Path,
    leaks: Path,
    summary: Path,
) -> None:
    """Write the evaluation images that are leaked, and what was called close.

    By features, or by the same pixels: these may lie beyond the cut, or have no feature at all. A pair
    of U that a person has looked at and kept is no leak. Of U by features alone: comparing a billion
    hashes is left out, what is selected is not.
    """
    features = results / "features" / settings.descriptor
    evaluation = {
        name: read_hashes(_parts(features / name, "images", settings.num_parts[name]))
        for name in sorted(settings.evaluation)
    }
    decoded = {
        name: read_decoded(_parts(features / name, "images", settings.num_parts[name]))
        for name in evaluation
    }
    cut = settings.leak_distance
    if cut is None:
        cut = max((_cut(settings, results, name) for name in settings.unlabeled), default=0.0)
    found, complete_to = [], {}
    for name in sorted({*settings.unlabeled, *settings.labelled}):
        pairs = tables.read_table(results / f"duplicates/{name}/pairs.parquet", schemas.DUPLICATES)
        if len(pairs) == settings.max_pairs:  # more may have been dropped
            complete_to[name] = float(pairs["distance"][-1].as_py())
        if settings.remove.reviewed and name in settings.unlabeled:
            decisions = read_decisions(Path(settings.remove.reviewed), name)
            pairs = not_kept(pairs, decisions[~decisions["removes"]])
        images = _parts(features / name, "images", settings.num_parts[name])
        copies = results / f"duplicates/{name}/copies.parquet"
        if name in settings.unlabeled:
            same = read_copied(copies, decoded)
        else:
            same = read_decoded(images)["pixel_hash"]
        leak = joined([by_features(pairs, cut), by_pixels(decoded, same)])
        found.append((name, FEATURES, leak))
        if name in settings.labelled:
            found.append((name, HASH, by_hash(evaluation, read_hashes(images)[1])))
        for selection in sorted(s for s, of in settings.selections.items() if of == name):
            learned = _selected(results / f"selections/{selection}/selection.parquet")
            same = by_pixels(decoded, read_copied(copies, decoded, learned))
            leak = joined([by_features(pairs, cut, learned), same])
            found.append((selection, FEATURES, leak))
            hashes = read_hashes(images, learned)[1]
            found.append((selection, HASH, by_hash(evaluation, hashes)))
    tables.write_table(leaks, leak_columns(found), schemas.LEAKS)
    by_chance = {
        name: _repeats(identity, hashes) for name, (identity, hashes) in evaluation.items()
    }
    tables.write_json(
        summary,
        {
            "leaks_sha256": tables.file_sha256(leaks),
            "cut": cut,
            "complete_to": complete_to,
            "repeated_hashes": by_chance,
            "not_compared": {
                name: _not_compared(features / name, num_parts)
                for name, num_parts in sorted(settings.num_parts.items())
            },
        },
    )
    for source, by, leak in found:
        log.info("%d evaluation images leaked into %s, by %s", len(leak.identity), source, by)


def _parts(folder: Path, table: str, num_parts: int) -> list[Path]:
    return tables.part_paths(folder / f"{table}-00000.parquet", num_parts)


def _cut(settings: settings.MeasureLeaks, results: Path, unlabeled: str) -> float:
    """The distance of the last image that is removed by its distance, else by a review; if neither
    removes any, of all recorded."""
    remove = settings.remove
    nearest = _parts(results / "duplicates" / unlabeled, "nearest", settings.num_parts[unlabeled])
    if not remove.closest and remove.max_distance is None:
        reviewed = Path(remove.reviewed) if remove.reviewed else None
        apart = _removed_by(reviewed, unlabeled, results) if reviewed else np.empty(0)
        return float(apart.max(initial=-1)) if len(apart) else settings.record_distance
    _, removed = read_closest(nearest, remove.closest, remove.max_distance)
    return max(float(removed.max(initial=0)), remove.max_distance or 0.0)


def _removed_by(reviewed: Path, unlabeled: str, results: Path) -> np.ndarray:
    """How far apart the recorded pairs are whose image of U a person removes: of each the closest."""
    decisions = read_decisions(reviewed, unlabeled)
    removed = decisions["identity"][decisions["removes"]]
    pairs = tables.read_table(results / f"duplicates/{unlabeled}/pairs.parquet", schemas.DUPLICATES)
    identity, first = np.unique(tables.identity(pairs), return_index=True)
    return pairs["distance"].to_numpy()[first[np.isin(identity, removed)]]


def _not_compared(folder: Path, num_parts: int) -> dict[str, int]:
    """Samples without a feature, by status; raises DataError where one has neither."""
    counts: Counter[str] = Counter()
    for path, features in zip(
        _parts(folder, "images", num_parts), _parts(folder, "part", num_parts), strict=True
    ):
        status = tables.read_table(path, schemas.DESCRIBED, ["status"])["status"]
        of_part = Counter(status.cast(pa.string()).to_pylist())
        if (found := tables.count_rows(features)) != of_part[tars.OK]:
            raise DataError(
                f"{features}: {found} features of {of_part[tars.OK]} images that have one by "
                f"{path.name}; what is missing is not compared. Delete both and run again."
            )
        counts += of_part
    return {status: number for status, number in sorted(counts.items()) if status != tars.OK}


def _selected(path: Path) -> np.ndarray:
    return np.unique(
        tables.identity(tables.read_table(path, schemas.SELECTION, ["shard_id", "sample_index"]))
    )


def _repeats(identity: np.ndarray, hashes: np.ndarray) -> int:
    """Images of a set with a hash that another of its images has: what hashes say by chance."""
    _, place, times = np.unique(hashes, return_inverse=True, return_counts=True)
    return int((times[place] > 1).sum())


if __name__ == "__main__":
    run(main)

"""Select the best images of each class over all parts of U, minus what must not be selected."""

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from semisup import schemas, settings, tables
from semisup.changes import record_changes
from semisup.config import Remove
from semisup.rankings import LogitTable, TagTable, look_up
from semisup.samples import read_samples, samples_path
from semisup.scores import Allowed, OpenPart, ScoreTable, merge
from semisup.selection import (
    Cut,
    Ranked,
    class_sizes,
    closest_images,
    contains,
    drawn,
    lowest_log_odds,
    ranks_in_class,
    score_of,
)
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")

DUPLICATE = "duplicate_of_evaluation"
COPY = "copy"


def main(
    settings: settings.Select,
    first_scores: Path,
    first_manifest: Path,
    counts: Path,
    failures: Path,
    classes: Path,
    pairs: list[Path],
    copies: list[Path],
    reviewed: list[Path],
    selection: Path,
    removed: Path,
    summary: Path,
    workers: int,
) -> None:
    """Write the selection, the images it may not contain, and a summary of both.

    ``classes``: the teacher's class names, one a line. ``pairs``, ``copies``, ``reviewed``: at most
    one file each. Raises DataError when a reviewed image is unknown.
    """
    manifests = tables.part_paths(first_manifest, settings.num_parts)
    removal = removed_images(settings.remove, pairs, copies, reviewed, manifests)
    _write_removed(removed, removal)
    removed_ids = removal["identity"].to_numpy(np.int64)
    failed = tables.identity(tables.read_table(failures, schemas.FAILURES))
    unscored = np.union1d(failed, removed_ids)

    class_names = classes.read_text(encoding="utf-8").splitlines()
    num_best = np.array(tables.read_json(counts)["num_best"])
    wanted = class_sizes(settings.variant, settings.images_per_class, num_best)
    parts = tables.part_paths(first_scores, settings.num_parts)
    ranking = rank_by(settings, parts, manifests)
    chosen = merge(
        ranking.paths,
        Cut(wanted, ranking.least),
        allowed_rows(left_out(settings, removed_ids, failed), settings),
        max(workers, 1),
        ranking.open_part,
    )
    log_odds, prediction_rank = chosen.log_odds, chosen.prediction_rank
    if ranking.open_part is not ScoreTable:
        log_odds, prediction_rank = look_up(parts, chosen)
    write_selection(selection, chosen, log_odds, prediction_rank, class_names, manifests)
    record_changes(selection)

    num_scored = tables.read_json(counts)["num_scored"]
    num_removed = len(unscored) - len(failed)
    num_not_drawn = count_not_drawn(manifests, unscored, settings) if settings.fraction < 1 else 0
    per_class = np.bincount(chosen.class_id, minlength=len(class_names))
    by_chance = settings.tags is not None
    cuts = [None] * len(class_names) if by_chance else _cuts(chosen, log_odds, len(class_names))
    num_candidates = num_scored - num_removed - num_not_drawn
    if not len(chosen.identity):
        raise DataError(
            f"{summary.parent.name}: no image is selected. Of {num_scored} scored images {num_removed} "
            f"are removed (duplicates.remove), {num_not_drawn} are outside the fraction, and of "
            f"{num_candidates} left none reaches min_score {settings.min_score:g}."
        )
    tables.write_json(
        summary,
        {
            "selection_sha256": tables.file_sha256(selection),
            "num_rows": len(chosen.identity),
            "num_distinct": len(np.unique(chosen.identity)),
            "num_scored": num_scored,
            "num_not_drawn": num_not_drawn,
            "num_candidates": num_candidates,
            "removed": {
                reason: int((removal["reason"] == reason).sum()) for reason in (DUPLICATE, COPY)
            },
            "classes": [
                {
                    "class_id": i,
                    "class_name": name,
                    "num_wanted": int(wanted[i]),
                    "num_images": int(per_class[i]),
                    "cut_log_odds": cuts[i],
                    "cut_score": None if cuts[i] is None else _score(cuts[i]),
                }
                for i, name in enumerate(class_names)
            ],
        },
    )
    log.info("%d images for %d classes", len(chosen.identity), len(class_names))
    if short := int((per_class < wanted).sum()):
        log.warning("%d classes have fewer images than wanted", short)


def _score(log_odds: float | None) -> float:
    return float(score_of(np.array([log_odds], np.float32))[0])


class Ranking(NamedTuple):
    """What ranks the images: a file of each part, how to read it, the least that may be chosen."""

    paths: list[Path]
    open_part: OpenPart
    least: float = -np.inf


def rank_by(settings: settings.Select, scores: list[Path], manifests: list[Path]) -> Ranking:
    least = lowest_log_odds(settings.min_score)
    if settings.tags is not None:
        samples = [samples_path(manifest) for manifest in manifests]
        return Ranking(samples, partial(TagTable, tags=settings.tags, seed=settings.seed))
    if settings.rank_by == "logit":
        return Ranking(scores, partial(LogitTable, min_log_odds=least))
    return Ranking(scores, ScoreTable, least)


def left_out(settings: settings.Select, removed: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """What is ranked but may not be selected, by identity: chance draws failed images too."""
    return np.union1d(failed, removed) if settings.variant == "random" else removed


def allowed_rows(left_out: np.ndarray, settings: settings.Select) -> Allowed | None:
    """Which rows may be selected; None: all. ``left_out``: identities, ascending."""
    all_classes = settings.classes_per_image == settings.stored_classes
    if not len(left_out) and all_classes and settings.fraction == 1:
        return None

    def allowed(rows: Ranked) -> np.ndarray:
        mask = rows.prediction_rank <= settings.classes_per_image
        mask &= ~contains(left_out, rows.identity)
        if settings.fraction < 1:
            mask &= drawn(rows.identity, settings.fraction, settings.seed)
        return mask

    return allowed


def count_not_drawn(manifests: list[Path], left_out: np.ndarray, settings: settings.Select) -> int:
    """Images outside the fraction of U, but for those that are ``left_out`` anyway (ascending)."""
    count = 0
    for manifest in manifests:
        for shard in tables.read_json(manifest)["shards"]:
            images = (np.int64(shard["shard_id"]) << 32) + np.arange(shard["num_samples"])
            images = images[~drawn(images, settings.fraction, settings.seed)]
            count += len(images) - int(contains(left_out, images).sum())
    return count


def removed_images(
    remove: Remove | None,
    pairs: list[Path],
    copies: list[Path],
    reviewed: list[Path],
    manifests: list[Path],
) -> pd.DataFrame:
    """identity, reason, distance of every image that may not be selected, by identity, once each."""
    found = {"identity": np.empty(0, np.int64), "reason": "", "distance": np.empty(0, np.float32)}
    blocks = [pd.DataFrame(found)]
    if remove:
        for path in pairs:
            blocks.append(_close_images(remove, path, reviewed, manifests))
        for path in copies if remove.copies else []:
            identities = tables.identity(tables.read_table(path, schemas.COPIES))
            blocks.append(pd.DataFrame({"identity": identities, "reason": COPY, "distance": None}))
    together = pd.concat([block for block in blocks if len(block)] or blocks)
    return together.drop_duplicates("identity").sort_values("identity", ignore_index=True)


def _close_images(
    remove: Remove, path: Path, reviewed: list[Path], manifests: list[Path]
) -> pd.DataFrame:
    table = tables.read_table(path, schemas.DUPLICATES)
    identities, distances = tables.identity(table), table["distance"].to_numpy()
    close, nearest = closest_images(identities, distances, remove.closest, remove.max_distance)
    distance = dict(zip(close.tolist(), nearest.tolist(), strict=True))
    for review in reviewed:
        for identity, decision in _read_review(review, manifests).items():
            if decision == "keep":
                distance.pop(identity, None)
            else:
                own = distances[identities == identity]
                distance[identity] = float(own.min()) if len(own) else float("nan")
    return pd.DataFrame(
        {"identity": list(distance), "reason": DUPLICATE, "distance": list(distance.values())}
    )


def _read_review(path: Path, manifests: list[Path]) -> dict[int, str]:
    """Decisions by identity; raises DataError on anything but known images and keep or remove."""
    try:
        review = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from None
    columns = ["shard_id", "sample_index", "decision"]
    if missing := [name for name in columns if name not in review]:
        raise DataError(f"{path}: columns {missing} are missing; it has {list(review.columns)}.")
    wrong = sorted(set(review["decision"].astype(str)) - {"keep", "remove"})
    if wrong:
        raise DataError(f"{path}: decision must be keep or remove, not {wrong[:3]}.")
    num_samples = {
        shard["shard_id"]: shard["num_samples"]
        for manifest in manifests
        for shard in tables.read_json(manifest)["shards"]
    }
    shard_ids = review["shard_id"].to_numpy(np.int64)
    sample_indices = review["sample_index"].to_numpy(np.int64)
    unknown = [
        (shard_id, index)
        for shard_id, index in zip(shard_ids.tolist(), sample_indices.tolist(), strict=True)
        if not 0 <= index < num_samples.get(shard_id, 0)
    ]
    if unknown:
        raise DataError(f"{path}: {len(unknown)} images are not in U, first {unknown[:3]}.")
    identities = (shard_ids << 32) | sample_indices
    return dict(zip(identities.tolist(), review["decision"], strict=True))


def _write_removed(path: Path, removal: pd.DataFrame) -> None:
    shard_ids, sample_indices = tables.split_identity(removal["identity"].to_numpy(np.int64))
    distance = [None if pd.isna(x) else x for x in removal["distance"]]
    columns = {
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        "reason": removal["reason"].to_list(),
        "distance": distance,
    }
    tables.write_table(path, columns, schemas.REMOVED)


SOURCE = ["key", "shard", "extension", "offset", "size_bytes", "content_hash"]


def write_selection(
    path: Path,
    chosen: Ranked,
    log_odds: np.ndarray,
    prediction_rank: np.ndarray,
    classes: list[str],
    manifests: list[Path],
) -> None:
    """Rows in rank order; NaN in ``log_odds`` where the class has no stored score."""
    unknown = np.isnan(log_odds)
    source = _locate(chosen.identity, manifests)
    shard_ids, sample_indices = tables.split_identity(chosen.identity)
    columns = {
        "class_id": chosen.class_id,
        "class_name": pa.array(classes, pa.string()).take(pa.array(chosen.class_id)),
        "class_rank": ranks_in_class(chosen.class_id),
        "score": pa.array(score_of(log_odds), mask=unknown),
        "log_odds": pa.array(log_odds, mask=unknown),
        "prediction_rank": pa.array(prediction_rank, mask=unknown),
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        **{name: source[name] for name in SOURCE},
    }
    tables.write_table(path, columns, schemas.SELECTION)


def _locate(identities: np.ndarray, manifests: list[Path]) -> pa.Table:
    """Key and place of the images, one row for each identity, reading the index part by part."""
    by_identity = np.argsort(identities, kind="stable")
    wanted = identities[by_identity]
    found = []
    for manifest in manifests:
        samples = read_samples([manifest])
        indexed = tables.identity(samples.table)
        first, end = np.searchsorted(wanted, indexed[[0, -1]] + [0, 1]) if len(indexed) else (0, 0)
        rows = samples.table.take(np.searchsorted(indexed, wanted[first:end]))
        paths = [samples.shard_paths[i] for i in rows["shard_id"].to_pylist()]
        found.append(rows.append_column("shard", pa.array(paths, pa.string())).select(SOURCE))
    place = np.empty_like(by_identity)
    place[by_identity] = np.arange(len(by_identity))
    return pa.concat_tables(found).take(place)


def _cuts(chosen: Ranked, log_odds: np.ndarray, num_classes: int) -> list[float | None]:
    """The log-odds of the last image of each class; None for an empty class."""
    cuts: list[float | None] = [None] * num_classes
    for i in np.flatnonzero(np.diff(chosen.class_id, append=-1)).tolist():
        cuts[int(chosen.class_id[i])] = float(log_odds[i])
    return cuts


if __name__ == "__main__":
    run(main)

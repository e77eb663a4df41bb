"""Select the best images of each class over all parts of U, minus what must not be selected."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from semisup import memory, schemas, settings, tables
from semisup.changes import record_changes
from semisup.ledger import ClassSummary, ImageCounts
from semisup.merging import merge
from semisup.rankings import allowed_rows, left_out, look_up, rank_by
from semisup.removal import REASONS, Recorded, removed_images
from semisup.reviews import check_evaluation_images
from semisup.samples import digest_index, read_samples
from semisup.scores import ScoreTable, digest_scores
from semisup.selection import (
    Cut,
    Ranked,
    class_sizes,
    contains,
    drawn,
    ranks_in_class,
    score_of,
)
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.Select,
    first_scores: Path,
    first_manifest: Path,
    counts: Path,
    failures: Path,
    classes: Path,
    first_nearest: list[Path],
    pairs: list[Path],
    copies: list[Path],
    near_copies: list[Path],
    reviewed: list[Path],
    reviewed_manifests: list[Path],
    selection: Path,
    removed: Path,
    summary: Path,
    made_with: Path,
    workers: int,
) -> None:
    """Write the selection, the images it may not contain, and a summary of both.

    ``classes``: the teacher's class names, one a line. ``first_nearest`` (of as many parts as there are
    scores), ``pairs``, ``copies``, ``near_copies``, ``reviewed``: at most one file each;
    ``reviewed_manifests``: of the evaluation sets, all parts, where there is a review. ``made_with``:
    the settings and digests of the index and the scores, apart from the summary, so that a selection
    that comes out the same with others makes nothing stale. Raises DataError when a reviewed image is
    unknown, or no image is selected.
    """
    memory.keep_freed()
    workers = max(workers, 1)
    manifests = tables.part_paths(first_manifest, settings.num_parts)
    nearest = [p for first in first_nearest for p in tables.part_paths(first, settings.num_parts)]
    recorded = Recorded(nearest, pairs, copies, near_copies, reviewed)
    for path in reviewed:
        check_evaluation_images(path, reviewed_manifests)
    removal = removed_images(settings.remove, recorded, manifests)
    _write_removed(removed, removal)
    removed_ids = removal["identity"].to_numpy(np.int64)
    failed = tables.identity(tables.read_table(failures, schemas.FAILURES))
    scored: ImageCounts = tables.read_json(counts)
    images = count_candidates(settings, scored["num_scored"], manifests, removed_ids, failed)

    names = classes.read_text(encoding="utf-8").splitlines()
    num_best = np.array(scored["num_best"])
    wanted = class_sizes(settings.variant, settings.images_per_class, num_best)
    parts = tables.part_paths(first_scores, settings.num_parts)
    allowed = allowed_rows(left_out(settings, removed_ids, failed), settings)
    digests = {"index": digest_index(manifests), "scores": digest_scores(parts)}
    ranking = rank_by(settings, parts, manifests)
    cut = Cut(wanted, ranking.least)
    chosen = merge(ranking.paths, cut, allowed, workers, ranking.open_part)
    if not len(chosen.identity):
        raise DataError(
            f"{summary.parent.name}: no image is selected. Of {images['num_scored']} scored images "
            f"{images['num_removed']} are removed (duplicates.remove), {images['num_not_drawn']} are "
            f"outside the fraction, and of {images['num_candidates']} left none is labelled or "
            f"reaches min_score {settings.min_score}."
        )
    log_odds, prediction_rank = chosen.log_odds, chosen.prediction_rank
    if ranking.open_part is not ScoreTable:
        log_odds, prediction_rank = look_up(parts, chosen.identity, chosen.class_id)
    write_selection(selection, chosen, log_odds, prediction_rank, names, manifests, workers)
    tables.write_json(made_with, {"settings": json.loads(settings.canonical()), **digests})
    record_changes(selection)
    of_classes = summarize_classes(settings, chosen, log_odds, names, wanted)
    tables.write_json(
        summary,
        {
            "selection_sha256": tables.file_sha256(selection),
            "num_rows": len(chosen.identity),
            "num_distinct": len(np.unique(chosen.identity)),
            **images,
            "removed": {reason: int((removal["reason"] == reason).sum()) for reason in REASONS},
            "classes": of_classes,
        },
    )
    log.info("%d images for %d classes", len(chosen.identity), len(names))
    if short := sum(each["num_images"] < each["num_wanted"] for each in of_classes):
        log.warning("%d classes have fewer images than wanted", short)


def count_candidates(
    settings: settings.Select,
    num_scored: int,
    manifests: list[Path],
    removed: np.ndarray,
    failed: np.ndarray,
) -> dict[str, int]:
    """How many of the scored images may be selected, and why not the others."""
    unscored = np.union1d(failed, removed)
    num_removed = len(unscored) - len(failed)
    num_not_drawn = count_not_drawn(manifests, unscored, settings) if settings.fraction < 1 else 0
    return {
        "num_scored": num_scored,
        "num_removed": num_removed,
        "num_not_drawn": num_not_drawn,
        "num_candidates": num_scored - num_removed - num_not_drawn,
    }


def summarize_classes(
    settings: settings.Select,
    chosen: Ranked,
    log_odds: np.ndarray,
    names: list[str],
    wanted: np.ndarray,
) -> list[ClassSummary]:
    """How many images each class has, and its last one. Chance has no cut, nor has an empty class."""
    num_images = np.bincount(chosen.class_id, minlength=len(names))
    last = np.cumsum(num_images) - 1
    classes: list[ClassSummary] = []
    for i, (name, row) in enumerate(zip(names, last.tolist(), strict=True)):
        has_cut = num_images[i] > 0 and settings.tags is None
        has_logit = has_cut and settings.rank_by == "logit"
        classes.append(
            {
                "class_id": i,
                "class_name": name,
                "num_wanted": int(wanted[i]),
                "num_images": int(num_images[i]),
                "cut_log_odds": float(log_odds[row]) if has_cut else None,
                "cut_score": float(score_of(log_odds[row : row + 1])[0]) if has_cut else None,
                "cut_logit": float(chosen.log_odds[row]) if has_logit else None,
            }
        )
    return classes


def count_not_drawn(manifests: list[Path], left_out: np.ndarray, settings: settings.Select) -> int:
    """Images outside the fraction of U, but for those that are ``left_out`` anyway (ascending)."""
    count = 0
    for manifest in manifests:
        for shard in tables.read_json(manifest)["shards"]:
            images = (np.int64(shard["shard_id"]) << 32) + np.arange(shard["num_samples"])
            images = images[~drawn(images, settings.fraction, settings.seed)]
            count += len(images) - int(contains(left_out, images).sum())
    return count


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


INDEXED = ["key", "extension", "offset", "size_bytes", "content_hash"]
LONG = pa.large_string()


def write_selection(
    path: Path,
    chosen: Ranked,
    log_odds: np.ndarray,
    prediction_rank: np.ndarray,
    classes: list[str],
    manifests: list[Path],
    workers: int = 1,
) -> None:
    """Rows in rank order; NaN in ``log_odds`` where the class has no stored score."""
    unknown = np.isnan(log_odds)
    source = _locate(chosen.identity, manifests, workers)
    shard_ids, sample_indices = tables.split_identity(chosen.identity)
    columns = {
        "class_id": chosen.class_id,
        "class_name": _take(pa.array(classes, pa.string()), chosen.class_id),
        "class_rank": ranks_in_class(chosen.class_id),
        "score": pa.array(score_of(log_odds), mask=unknown),
        "log_odds": pa.array(log_odds, mask=unknown),
        "prediction_rank": pa.array(prediction_rank, mask=unknown),
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        "shard": _take(pa.array(shard_paths(manifests), pa.string()), shard_ids),
        **source,
    }
    tables.write_table(path, columns, schemas.SELECTION)


def shard_paths(manifests: list[Path]) -> list[str]:
    """The paths of the shards of all parts, by shard id."""
    return [shard["path"] for path in manifests for shard in tables.read_json(path)["shards"]]


def _take(values: pa.Array, indices: np.ndarray) -> pa.ChunkedArray:
    """In chunks, as one array of text ends at 2 GiB."""
    step = 1 << 20
    blocks = [values.take(indices[i : i + step]) for i in range(0, len(indices), step)]
    chunks = [block.cast(pa.string()) if values.type == LONG else block for block in blocks]
    return pa.chunked_array(chunks, pa.string() if values.type == LONG else values.type)


def _locate(
    identities: np.ndarray, manifests: list[Path], workers: int
) -> dict[str, pa.ChunkedArray]:
    """The columns INDEXED of the images, reading the index part by part.

    Raises DataError when the index does not hold an image.
    """
    by_identity = np.argsort(identities, kind="stable")
    wanted = identities[by_identity]

    def read(manifest: Path) -> pa.Table:
        samples = read_samples([manifest], ["shard_id", "sample_index", *INDEXED])
        indexed = tables.identity(samples.table)
        first, end = np.searchsorted(wanted, indexed[[0, -1]] + [0, 1]) if len(indexed) else (0, 0)
        rows = np.searchsorted(indexed, wanted[first:end])
        if not np.array_equal(indexed[rows], wanted[first:end]):
            raise DataError(
                f"{manifest}: there are scores of images this index does not hold. "
                "Delete the scores of this part and run again."
            )
        found = samples.table.select(INDEXED).take(rows)
        return found.set_column(0, "key", found["key"].cast(LONG))

    with ThreadPoolExecutor(workers) as pool:
        found = pa.concat_tables(pool.map(read, manifests)).combine_chunks()
    if len(found) != len(wanted):
        raise DataError(
            f"{manifests[0]} and the other parts of the index hold {len(found)} of {len(wanted)} "
            "selected images. Delete the scores of this dataset and run again."
        )
    place = np.empty_like(by_identity)
    place[by_identity] = np.arange(len(by_identity))
    return {name: _take(found[name].chunk(0), place) for name in INDEXED}


if __name__ == "__main__":
    run(main)

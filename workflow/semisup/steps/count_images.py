"""Prove that every sample of U has exactly one status, and list the failures."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import books, commits, rowcounts, schemas, settings, tables, tars
from semisup.samples import read_samples
from semisup.scores import ScoreTable
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.CountImages,
    first_scores: Path,
    first_images: Path,
    first_manifest: Path,
    counts: Path,
    failures: Path,
) -> None:
    """Compare each part's statuses with its manifest, shard by shard; write counts and failures.

    All parts are scored now: what scoring keeps of tars that have left U is removed, and what it
    keeps twice.

    Raises DataError naming the shard whose samples are not all accounted for, the part whose scores
    are not those of its images, or one of which too many samples failed.
    """
    statuses: Counter[str] = Counter()
    failed, num_score_rows, numerics, sha256s = [], 0, set(), set()
    num_best = np.zeros(settings.num_classes, np.int64)
    scores_paths = tables.part_paths(first_scores, settings.num_parts)
    images_paths = tables.part_paths(first_images, settings.num_parts)
    manifest_paths = tables.part_paths(first_manifest, settings.num_parts)
    for scores_path, images_path, manifest_path in zip(
        scores_paths, images_paths, manifest_paths, strict=True
    ):
        images = tables.read_table(images_path, schemas.IMAGES)
        manifest = tables.read_json(manifest_path)
        check_shards(images_path, images, manifest["shards"])
        sha256s |= {shard["sha256"] for shard in manifest["shards"]}
        status = images["status"].cast(pa.string())
        of_part = Counter(status.to_pylist())
        num_lost = _count_lost(
            images["shard_id"].to_numpy(), np.asarray(status), manifest["shards"]
        )
        books.check_failures(str(images_path), of_part, settings.max_failure_rate, num_lost)
        statuses.update(of_part)
        num_score_rows += _check_scores(scores_path, images, settings.classes_per_image)
        table = ScoreTable(scores_path)
        numerics.add(table.numerics())
        best = table.num_best()
        num_best[: len(best)] += best
        failed.append(_failures(images, manifest_path, np.asarray(pc.not_equal(status, tars.OK))))
    num_samples = sum(statuses.values())
    tables.write_json(
        counts,
        {
            "num_samples": num_samples,
            "num_scored": statuses[tars.OK],
            "num_score_rows": num_score_rows,
            "num_best": num_best.tolist(),
            "statuses": dict(statuses),
            "numerics": sorted(numerics),
        },
    )
    names = schemas.FAILURES.names
    columns = {name: np.concatenate([block[name] for block in failed]) for name in names}
    tables.write_table(failures, columns, schemas.FAILURES)
    work = first_scores.parent / "work"
    commits.remove_unused(work, sha256s, [*scores_paths, *images_paths])
    log.info("%d samples: %s", num_samples, dict(statuses))


def _count_lost(shard_id: np.ndarray, status: np.ndarray, shards: list[dict[str, Any]]) -> int:
    """Samples of a part without a row, as their tar was cut before them."""
    cut = np.unique(shard_id[status == tars.TRUNCATED_TAR])
    whole = [
        int(((shard_id == s["shard_id"]) & (status != tars.TRUNCATED_TAR)).sum()) for s in shards
    ]
    return books.lost_in_cut_tars(whole, [s["shard_id"] in cut for s in shards])


def check_shards(path: Path, images: pa.Table, shards: list[dict[str, Any]]) -> None:
    """Each shard has the rows its manifest says, numbered without gap or repetition."""
    identities = tables.identity(images)
    expected = [
        (np.int64(shard["shard_id"]) << 32) + np.arange(shard["num_samples"]) for shard in shards
    ]
    for shard, wanted in zip(shards, expected, strict=True):
        found = identities[identities >> 32 == shard["shard_id"]]
        if not np.array_equal(found, wanted):
            raise DataError(
                f"{path}: shard {shard['path']} has {len(wanted)} samples, but {len(found)} rows. "
                "Delete this file and run again."
            )
    if sum(map(len, expected)) != len(identities):
        raise DataError(f"{path}: holds rows of shards that are not in its manifest.")


def _check_scores(path: Path, images: pa.Table, classes_per_image: int) -> int:
    """The number of scores: of each shard as many as its ok images have classes."""
    ok = np.asarray(pc.equal(images["status"].cast(pa.string()), tars.OK))
    shard_ids = images["shard_id"].to_numpy()[ok]
    wanted = rowcounts.count_shards(np.repeat(shard_ids, classes_per_image))
    found = tables.count_shards(path)
    if found != wanted:
        raise DataError(
            f"{path}: {found['total']} scores for {len(shard_ids)} images of {classes_per_image} "
            f"classes each; shard {rowcounts.first_difference(found, wanted)} is the first that is "
            "wrong. Delete this file and run again."
        )
    return int(found["total"])


def _failures(images: pa.Table, manifest: Path, failed: np.ndarray) -> dict[str, np.ndarray]:
    samples = read_samples([manifest])
    rows = np.flatnonzero(failed)
    chosen = images.take(rows)
    shard_ids = chosen["shard_id"].to_numpy()
    return {
        "shard_id": shard_ids,
        "sample_index": chosen["sample_index"].to_numpy(),
        "key": np.array(samples.table["key"].take(rows).to_pylist(), object),
        "shard": np.array([samples.shard_paths[int(i)] for i in shard_ids], object),
        "status": np.array(chosen["status"].cast(pa.string()).to_pylist(), object),
        "reason": np.array(chosen["reason"].to_pylist(), object),
    }


if __name__ == "__main__":
    run(main)

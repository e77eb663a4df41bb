"""Index one part of a dataset: a row for every sample of its tars, broken ones included."""

import logging
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from semisup import schemas, settings, stamps, tables, tars
from semisup.retries import retry
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(settings: settings.IndexShards, manifest: Path, samples: Path) -> None:
    """Read every tar once and write the table of its samples and the manifest of the part.

    Beside them, for tars of the user's own: what they hold at which time (stamps.py).
    """
    rows: list[tuple[int, int, tars.Sample]] = []
    shards = []
    for shard_id, path in enumerate(settings.shards, start=settings.first_shard):
        try:
            shard = retry(partial(tars.read_shard, Path(path), settings.num_classes), path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Restore it.") from error
        rows += [(shard_id, index, sample) for index, sample in enumerate(shard.samples)]
        shards.append(
            {
                "shard_id": shard_id,
                "path": path,
                "size_bytes": shard.size_bytes,
                "sha256": shard.sha256,
                "num_samples": len(shard.samples),
            }
        )
        level = logging.INFO if shard.samples else logging.WARNING
        log.log(level, "%s: %d samples", path, len(shard.samples))
    write_samples(samples, rows)
    statuses = dict(Counter(sample.status for _, _, sample in rows))
    write_manifest(manifest, samples, settings.dataset, settings, shards, statuses)
    if settings.stamp:
        sha256 = {str(shard["path"]): str(shard["sha256"]) for shard in shards}
        stamps.write_record(stamps.record_path(manifest), settings.stamp, sha256)
    log.info("%d samples in %d tars: %s", len(rows), len(shards), statuses)


def write_samples(path: Path, rows: list[tuple[int, int, tars.Sample]]) -> None:
    """The samples table from (shard_id, sample_index, sample)."""
    columns = {
        "shard_id": np.array([row[0] for row in rows], np.int32),
        "sample_index": np.array([row[1] for row in rows], np.int32),
        **{name: [getattr(row[2], name) for row in rows] for name in tars.Sample._fields},
    }
    tables.write_table(path, columns, schemas.SAMPLES)


def write_manifest(
    path: Path,
    samples: Path,
    name: str,
    settings: settings.IndexShards | settings.PackSelection,
    shards: list[dict[str, object]],
    statuses: dict[str, int],
) -> None:
    """The small file by whose content later stages know whether anything changed."""
    tables.write_json(
        path,
        {
            "dataset": name,
            "part": settings.part,
            "samples_sha256": tables.file_sha256(samples),
            "max_pixels": settings.max_pixels,
            "shards": shards,
            "statuses": statuses,
        },
    )


if __name__ == "__main__":
    run(main)

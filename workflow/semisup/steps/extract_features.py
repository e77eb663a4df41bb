"""Describe every image of an evaluation set for the search of near-duplicates."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from semisup import loader, models, schemas, settings, tables, tars
from semisup.progress import Progress
from semisup.samples import Samples, read_samples, rows_with_status
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.ExtractFeatures,
    manifests: list[Path],
    weights: Path,
    features: Path,
    workers: int,
) -> None:
    """Write the L2-normalised feature of each image that can be decoded."""
    samples = read_samples(manifests)
    rows, vectors = describe(samples, models.load(weights), workers)
    if len(rows) == 0:
        raise DataError(f"dataset {samples.dataset!r} has no image that can be decoded.")
    columns = {
        "shard_id": samples.table["shard_id"].to_numpy()[rows],
        "sample_index": samples.table["sample_index"].to_numpy()[rows],
        "feature": list(vectors),
    }
    tables.write_table(features, columns, schemas.FEATURES)


def describe(
    samples: Samples, weights: models.Weights, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the decodable images in order, and their features of shape (rows, dimensions)."""
    rows = rows_with_status(samples, tars.OK, tars.BAD_LABEL)
    predict = models.describer(weights, workers)
    progress = Progress(f"describe {samples.dataset}", len(rows))
    batches = loader.evaluation_batches(
        samples, rows, weights.image_size, weights.resize, batch_size=256, workers=workers
    )
    described, vectors, done = [], [], 0
    failed: Counter[str] = Counter()
    for batch in batches:
        done += len(batch.rows) + len(batch.failures)
        failed.update(kind for _, kind, _ in batch.failures)
        if len(batch.rows):
            described.append(batch.rows)
            vectors.append(predict(batch.images_NCHW).numpy())
        progress.update(done)
    log.info(
        "%s: %d images described, not %s", samples.dataset, done - failed.total(), dict(failed)
    )
    if done != len(rows):
        raise DataError(
            f"{samples.dataset}: {done} of {len(rows)} images came back; this is a bug."
        )
    if not described:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    features = np.concatenate(vectors)
    if not np.isfinite(features).all():
        raise DataError("the descriptor gives features that are not finite; choose other weights.")
    return np.concatenate(described), features


if __name__ == "__main__":
    run(main)

"""Score one part of U: the best classes of every image, and a status for every sample."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from semisup import inference, loader, models, schemas, selection, settings, tables, tars
from semisup.progress import Progress
from semisup.samples import read_samples, rows_with_status
from semisup.selection import Ranked
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.ScoreShards,
    manifest: Path,
    weights: Path,
    scores: Path,
    images: Path,
    workers: int,
) -> None:
    """Write the scores of the part, best of each class first, and one row per sample.

    Raises DataError when the teacher's logits are not finite.
    """
    samples = read_samples([manifest])
    table, identities = samples.table, tables.identity(samples.table)
    rows = rows_with_status(samples, tars.OK, tars.BAD_LABEL)
    teacher = models.load(weights)
    predict = models.predictor(teacher, settings.precision, workers)
    status = np.array(table["status"].cast(pa.string()).to_pylist(), object)
    status[rows] = tars.OK
    reason = np.array(table["reason"].to_pylist(), object)
    reason[rows] = ""
    logsumexp = np.zeros(len(table), np.float32)

    blocks, done = [], 0
    progress = Progress(f"score {samples.dataset}", len(rows))
    batches = loader.evaluation_batches(
        samples, rows, teacher.image_size, teacher.resize, settings.batch_size, workers
    )
    for batch in batches:
        for row, kind, why in batch.failures:
            status[row], reason[row] = kind, why
        done += len(batch.rows) + len(batch.failures)
        if len(batch.rows):
            top = inference.top_classes(predict(batch.images_NCHW), settings.classes_per_image)
            if not top.log_odds_NP.isfinite().all():
                raise DataError(
                    f"{manifest}: scores are not finite; the teacher's weights are bad."
                )
            logsumexp[batch.rows] = top.logsumexp_N.numpy()
            blocks.append(_rank(top, identities[batch.rows]))
        progress.update(done)

    num_rows = write_scores(scores, blocks)
    columns = {
        "shard_id": table["shard_id"],
        "sample_index": table["sample_index"],
        "logsumexp": logsumexp,
        "status": status,
        "reason": reason,
    }
    tables.write_table(images, columns, schemas.IMAGES)
    counts = Counter(status.tolist())
    if num_rows != counts[tars.OK] * settings.classes_per_image:
        raise DataError(
            f"{manifest}: {num_rows} scores for {counts[tars.OK]} images and "
            f"{settings.classes_per_image} classes each; this is a bug."
        )
    log.info("%d samples: %s", len(table), dict(counts))


def _rank(top: inference.TopClasses, identities: np.ndarray) -> Ranked:
    num_images, classes_per_image = top.class_ids_NP.shape
    return Ranked(
        top.class_ids_NP.numpy().astype(np.int16).ravel(),
        top.log_odds_NP.numpy().ravel(),
        np.repeat(identities, classes_per_image),
        np.tile(np.arange(1, classes_per_image + 1, dtype=np.int8), num_images),
    )


def write_scores(path: Path, blocks: list[Ranked]) -> int:
    """Write a score table in tiers; returns its number of rows."""
    empty = selection.top_k([], 1, 1)
    ranked = Ranked(*(np.concatenate(columns) for columns in zip(empty, *blocks, strict=True)))
    order, row_groups = selection.tier_order(ranked)
    ranked = ranked.take(order)
    shard_ids, sample_indices = tables.split_identity(ranked.identity)
    columns = {
        "class_id": ranked.class_id,
        "log_odds": ranked.log_odds,
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        "prediction_rank": ranked.prediction_rank,
    }
    tables.write_table(path, columns, schemas.SCORES, row_groups)
    return len(order)


if __name__ == "__main__":
    run(main)

"""Measure one stage of one model on every evaluation set."""

import logging
from pathlib import Path

import numpy as np
import torch

from semisup import inference, loader, memory, metrics, models, schemas, settings, tables
from semisup.loader import refuse_unread
from semisup.progress import Progress
from semisup.samples import Samples, check_tars, labelled_rows, read_samples
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.Evaluate,
    manifests: list[Path],
    weights: Path,
    evaluations: Path,
    predictions: Path,
    workers: int,
) -> None:
    """Write the accuracies with their 95 % intervals, and the prediction for every image.

    An image that cannot be decoded, or a sample without one, is counted as failed, not as wrong.
    Raises DataError where a logit is not finite: no class is ahead of NaN, so it would be right.
    """
    memory.keep_freed()
    model = models.load(weights)
    predict = models.predictor(model, "float32", workers)
    rows, predicted = [], []
    for dataset in settings.datasets:
        own = [path for path in manifests if tables.read_json(path)["dataset"] == dataset]
        samples = read_samples(own)
        check_tars(samples)
        try:
            columns, num_failed = predict_dataset(
                samples, model, predict, settings.batch_size, workers
            )
        except DataError as error:
            raise DataError(f"{settings.model} {settings.stage}: {error}") from None
        num_images = len(columns["label"])
        ranks = columns["label_rank"]
        row = {
            "model": settings.model,
            "stage": settings.stage,
            "dataset": dataset,
            "num_images": num_images,
            "num_failed": num_failed,
        }
        for name, k in (("top1", 1), ("top5", 5)):
            correct = int((ranks <= k).sum())
            low, high = metrics.wilson_interval(correct, num_images)
            row |= {
                name: correct / max(num_images, 1),
                f"{name}_low": low,
                f"{name}_high": high,
            }
        rows.append(row)
        predicted.append({"dataset": np.full(num_images, dataset, object), **columns})
        log.info("%s %s on %s: top1 %.4f", settings.model, settings.stage, dataset, row["top1"])
    names = schemas.EVALUATIONS.names
    rows.sort(key=lambda row: str(row["dataset"]))
    tables.write_table(
        evaluations, {n: [row[n] for row in rows] for n in names}, schemas.EVALUATIONS
    )
    predicted.sort(key=lambda block: str(block["dataset"][:1]))
    names = schemas.PREDICTIONS.names
    together = {n: np.concatenate([block[n] for block in predicted]) for n in names}
    tables.write_table(predictions, together, schemas.PREDICTIONS)


def predict_dataset(
    samples: Samples,
    model: models.Weights,
    predict: models.Predictor,
    batch_size: int,
    workers: int,
) -> tuple[dict[str, np.ndarray], int]:
    """Columns of the predictions of one dataset, for the images that can be decoded, and how many
    samples cannot: without a label, found broken by the index, or counted by the loader."""
    rows = labelled_rows(samples)
    num_failed = len(samples.table) - len(rows)
    labels = samples.table["label"].fill_null(-1).to_numpy()
    blocks: list[dict[str, np.ndarray]] = []
    done, progress = 0, Progress(f"evaluate on {samples.dataset}", len(rows))
    batches = loader.evaluation_batches(samples, rows, model.preprocessing, batch_size, workers)
    for batch in batches:
        refuse_unread(batch)
        num_failed += len(batch.failures)
        done += len(batch.rows) + len(batch.failures)
        progress.update(done)
        if not len(batch.rows):
            continue
        logits = predict(batch.images_NCHW)
        _check_finite(logits, batch.rows, samples)
        own = torch.from_numpy(labels[batch.rows].astype(np.int64))
        best = logits.argmax(1)
        scores = logits.softmax(1).gather(1, best[:, None])[:, 0]
        blocks.append(
            {
                "shard_id": samples.table["shard_id"].to_numpy()[batch.rows],
                "sample_index": samples.table["sample_index"].to_numpy()[batch.rows],
                "label": own.numpy().astype(np.int32),
                "class_id": best.numpy().astype(np.int32),
                "score": scores.numpy(),
                "label_rank": inference.label_ranks(logits, own).numpy().astype(np.int32),
            }
        )
    names = schemas.PREDICTIONS.names[1:]
    columns = {n: np.concatenate([b[n] for b in blocks] or [np.empty(0, np.int32)]) for n in names}
    return columns, num_failed


def _check_finite(logits: torch.Tensor, rows: np.ndarray, samples: Samples) -> None:
    wrong = rows[~logits.isfinite().all(1).numpy()]
    if len(wrong):
        row = int(wrong[0])
        shard = samples.shard_paths[samples.table["shard_id"][row].as_py()]
        key = samples.table["key"][row].as_py()
        raise DataError(
            f"scores of {key!r} in {shard} are not finite; the weights are bad. Train or import "
            "them again."
        )


if __name__ == "__main__":
    run(main)

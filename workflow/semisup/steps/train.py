"""Train one stage of one model: train, pretrain or finetune."""

import copy
import hashlib
import logging
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from semisup import (
    checkpoint,
    distributed,
    memory,
    models,
    schemas,
    settings,
    slurm,
    tables,
    tars,
    training,
)
from semisup.samples import Samples, check_tars, read_samples, rows_with_status
from semisup.steps import run
from semisup.tables import DataError
from semisup.tracking import Events, Nowhere

log = logging.getLogger("semisup")


def main(
    settings: settings.Train,
    manifests: list[Path],
    init: list[Path],
    checkpoints: Path,
    weights: Path,
    classes: Path,
    metrics: Path,
    workers: int,
    wandb: str = "",
) -> None:
    """Train from ``init`` (at most one file; none: random weights) and write weights and metrics.

    Checkpoints lie in a folder named by the content of all that matters, so a killed training goes
    on, a finished one is not repeated, and a changed one starts anew. Under torchrun this is one of
    several ranks, of which the first writes. ``wandb``: a project there, to show the curves in.
    After SIGTERM, SIGUSR1 or Ctrl-C it writes a checkpoint and exits with status 75, EX_TEMPFAIL (which
    torchrun makes 1): run again, it goes on. So it does before the time limit of a Slurm job; that and
    SIGUSR1 also queue the job again, so that a training may take longer than any job.
    """
    memory.keep_freed()
    what = weights.parent.parent.name + " " + weights.parent.name
    samples = read_samples(manifests)
    check_tars(samples)
    _check_labels(samples, len(settings.classes))
    folder = checkpoints / fingerprint(settings, [*manifests, *init])
    torch.manual_seed(settings.seed)
    model = models.build(settings.arch, len(settings.classes), settings.preprocessing.image_size)
    for path in init:
        models.start_from(model, models.load(path), settings.classes)
    ranks = distributed.this_rank()
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if is_first := ranks.rank == 0:
        checkpoint.keep_only(folder)
    untrained = copy.deepcopy(model.state_dict()) if settings.may_diverge else None
    tracker = Events(folder / "tensorboard", what, wandb) if is_first else Nowhere()
    try:
        trained = training.train(
            what, model, len(settings.classes), samples, settings.recipe, settings.preprocessing,
            settings.seed, folder, ranks, -(-workers // ranks_here), tracker,
        )  # fmt: skip
    except training.Diverged as error:
        if untrained is None:
            raise
        log.warning("%s It keeps the weights it began with.", error)
        trained = training.Trained(untrained, error.metrics)
    except training.Interrupted as stop:
        log.warning("%s", stop)
        if is_first and stop.signal == signal.SIGUSR1:
            _queue_again()
        ranks.gather(None)  # torchrun would end the others when one is gone
        sys.exit(os.EX_TEMPFAIL)
    if is_first:
        _write(trained, settings, weights, classes, metrics)
        last = trained.metrics[-1]
        log.info("%s: loss %.4f, training accuracy %.4f", what, last["loss"], last["top1"])


def _queue_again() -> None:
    if not slurm.job_id():
        return
    try:
        slurm.requeue()
    except slurm.SlurmError as error:
        log.warning("the job cannot be queued again, so it counts as failed: %s", error)


def _write(
    trained: training.Trained, settings: settings.Train, weights: Path, classes: Path, metrics: Path
) -> None:
    columns = {name: [row[name] for row in trained.metrics] for name in schemas.METRICS.names}
    tables.write_table(metrics, columns, schemas.METRICS)
    state = {name: tensor.cpu() for name, tensor in trained.state.items()}
    models.save(
        weights, models.Weights(settings.arch, settings.preprocessing, settings.classes, state)
    )
    models.write_classes(classes, settings.classes)


def fingerprint(settings: settings.Train, inputs: list[Path]) -> str:
    """Names the training by the content of its settings and input files, not paths or times."""
    digest = hashlib.sha256(settings.canonical().encode())
    for path in inputs:
        digest.update(tables.file_sha256(path).encode())
    return digest.hexdigest()[:16]


def _check_labels(samples: Samples, num_classes: int) -> None:
    labels = samples.table["label"].drop_null().to_numpy()
    if len(labels) and int(np.max(labels)) >= num_classes:
        raise DataError(
            f"dataset {samples.dataset!r} has label {int(np.max(labels))}, but the model has "
            f"{num_classes} classes. Correct `classes` in the configuration."
        )
    num_bad = len(rows_with_status(samples, tars.BAD_LABEL))
    if num_bad and len(labels) and np.min(labels) == 1:
        raise DataError(
            f"dataset {samples.dataset!r}: {num_bad} labels are not below the {num_classes} classes, "
            "and none is 0. Do its .cls count from 1? They must count from 0."
        )


if __name__ == "__main__":
    run(main)

"""Score one part of U: the best classes of every image, and a status for every sample."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from semisup import (
    devices,
    inference,
    memory,
    models,
    passes,
    schemas,
    scored_shards,
    settings,
    tables,
    tars,
)
from semisup.scores import write_scores
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
    memory.keep_freed()
    maker = ScoreMaker(passes.open_eye(weights, settings.precision), settings.classes_per_image)
    work = scores.parent / "work"
    shards = passes.open_shards(manifest, work, [maker], settings.canonical())
    scored_shards.restore(shards, settings.classes_per_image)
    passes.commit_shards(shards, settings.batch_size, workers)
    write_part(settings, shards, *scored_shards.tables_of(shards))
    scored_shards.publish(shards, scores, images)


class ScoreMaker:
    """The best classes of each image, and the logsumexp of its logits."""

    schema = schemas.SHARD_SCORES

    def __init__(self, eye: passes.Eye, classes_per_image: int) -> None:
        self.eye, self.classes_per_image = eye, classes_per_image

    def start(self, num_samples: int) -> None:
        self.logsumexp = np.zeros(num_samples, np.float32)
        self.num_classes = np.zeros(num_samples, np.int32)
        self.class_ids, self.log_odds = [np.empty(0, np.int16)], [np.empty(0, np.float32)]

    def add(self, at: np.ndarray, seen: models.Seen, fingerprints_N3: torch.Tensor) -> None:
        top = inference.top_classes(seen.logits_NC, self.classes_per_image)
        if not top.log_odds_NP.isfinite().all():
            raise DataError("scores are not finite; the teacher's weights are bad.")
        self.num_classes[at] = self.classes_per_image
        self.logsumexp[at] = np.round(top.logsumexp_N.numpy() * 4096) / 4096
        self.class_ids.append(top.class_ids_NP.numpy().astype(np.int16).ravel())
        self.log_odds.append(top.log_odds_NP.numpy().ravel())

    def columns(self) -> dict[str, Any]:
        ends = np.cumsum([0, *self.num_classes]).astype(np.int32)
        return {
            "class_ids": pa.ListArray.from_arrays(ends, np.concatenate(self.class_ids)),
            "log_odds": pa.ListArray.from_arrays(ends, np.concatenate(self.log_odds)),
            "logsumexp": self.logsumexp,
        }


def write_part(
    settings: settings.ScoreShards, shards: passes.Shards, scores: Path, images: Path
) -> None:
    """The tables of a part whose shards are all committed.

    Raises DataError where the logits of an image have no finite logsumexp.
    """
    numerics = devices.numerics(settings.precision)
    of_what = f"{shards.samples.dataset}, the part of {shards.tars[0]['path']}"
    scored = shards.read(["class_ids", "log_odds", "logsumexp", "status", "reason"])
    samples = shards.samples.table
    if not np.isfinite(scored["logsumexp"].to_numpy()).all():
        raise DataError(f"{of_what}: logsumexp is not finite; the teacher's weights are bad.")
    ranked = _ranked(scored, tables.identity(samples))
    write_scores(scores, ranked, numerics)
    columns = {name: scored[name] for name in ("logsumexp", "status", "reason")}
    columns |= {name: samples[name] for name in ("shard_id", "sample_index")}
    tables.write_table(images, columns, schemas.IMAGES)
    counts = Counter(scored["status"].cast(pa.string()).to_pylist())
    if len(ranked.identity) != counts[tars.OK] * settings.classes_per_image:
        raise DataError(
            f"{of_what}: {len(ranked.identity)} scores for {counts[tars.OK]} images and "
            f"{settings.classes_per_image} classes each; this is a bug."
        )
    log.info("%d samples, in %s: %s", len(scored), numerics, dict(counts))


def _ranked(scored: pa.Table, identity: np.ndarray) -> Ranked:
    """Long rows, in the order of their identities."""
    class_ids = scored["class_ids"].combine_chunks()
    num_classes = class_ids.value_lengths().to_numpy()
    ends = np.cumsum(num_classes)
    ranks = np.arange(1, num_classes.sum() + 1) - np.repeat(ends - num_classes, num_classes)
    return Ranked(
        class_ids.flatten().to_numpy(),
        scored["log_odds"].combine_chunks().flatten().to_numpy(),
        np.repeat(identity, num_classes),
        ranks.astype(np.int8),
    )


if __name__ == "__main__":
    run(main)

"""Score one part of U: the best classes of every image, and a status for every sample.

Each shard is committed when it is done, in a work folder under a name that says what was scored with
what, and stays there: a killed job goes on with the first shard that is missing, and a job that is
run again scores only the shards that have changed.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semisup import inference, loader, memory, models, schemas, settings, tables, tars
from semisup.progress import Progress
from semisup.samples import Samples, read_samples, rows_with_status
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
    samples = read_samples([manifest])
    numerics = models.numerics(settings.precision)
    with_what = f"{settings.canonical()}{numerics}{tables.file_sha256(weights)}{samples.max_pixels}"
    shards = tables.read_json(manifest)["shards"]
    committed = {
        shard["shard_id"]: _commit_path(
            scores.parent / "work", shard["shard_id"], _digest(with_what + shard["sha256"])
        )
        for shard in shards
    }
    missing = [
        shard["shard_id"]
        for shard in shards
        if not _is_whole(committed[shard["shard_id"]], shard["num_samples"])
    ]
    if len(missing) < len(committed):
        log.info(
            "%d of %d shards are scored already", len(committed) - len(missing), len(committed)
        )
    if missing:
        teacher = models.load(weights)
        for shard_id, columns in _score(settings, samples, missing, teacher, workers):
            tables.write_table(committed[shard_id], columns, schemas.SHARD_SCORES)

    tables_of_shards = [tables.read_table(p, schemas.SHARD_SCORES) for p in committed.values()]
    scored = pa.concat_tables(tables_of_shards).unify_dictionaries()
    identity = tables.identity(samples.table)
    ranked = _ranked(scored, identity)
    write_scores(scores, ranked, numerics)
    columns = {name: scored[name] for name in ("logsumexp", "status", "reason")}
    columns |= {name: samples.table[name] for name in ("shard_id", "sample_index")}
    tables.write_table(images, columns, schemas.IMAGES)
    counts = Counter(scored["status"].cast(pa.string()).to_pylist())
    if len(ranked.identity) != counts[tars.OK] * settings.classes_per_image:
        raise DataError(
            f"{manifest}: {len(ranked.identity)} scores for {counts[tars.OK]} images and "
            f"{settings.classes_per_image} classes each; this is a bug."
        )
    for path in committed.values():
        _keep_only(path)
    log.info("%d samples, in %s: %s", len(scored), numerics, dict(counts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _commit_path(work: Path, shard_id: int, digest: str) -> Path:
    """Whatever part the shard is in; in folders of a thousand."""
    return work / f"{shard_id // 1000:04d}" / f"{shard_id:06d}-{digest}.parquet"


def _keep_only(path: Path) -> None:
    """Remove what else was committed of this shard, or half written."""
    shard = path.name.split("-")[0]
    for other in (*path.parent.glob(f"{shard}-*"), *path.parent.glob(f".{shard}-*.tmp")):
        if other != path:
            other.unlink(missing_ok=True)


def _is_whole(path: Path, num_samples: int) -> bool:
    """Whether a committed shard need not be scored again; what could not be read is tried again."""
    try:
        status = tables.read_table(path, schemas.SHARD_SCORES, ["status"])["status"]
    except DataError as error:
        if path.exists():
            log.warning("%s; the shard is scored again", error)
        return False
    return len(status) == num_samples and tars.READ_ERROR not in status.unique().to_pylist()


def _score(
    settings: settings.ScoreShards,
    samples: Samples,
    shard_ids: list[int],
    teacher: models.Weights,
    workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The columns of SHARD_SCORES of each of these shards, one after the other."""
    shard_of = samples.table["shard_id"].to_numpy()
    readable = rows_with_status(samples, tars.OK, tars.BAD_LABEL)
    rows = readable[np.isin(shard_of[readable], shard_ids)]
    status = np.array(samples.table["status"].cast(pa.string()).to_pylist(), object)
    status[readable] = tars.OK
    reason = np.array(samples.table["reason"].to_pylist(), object)
    reason[readable] = ""
    num_classes = np.where(status == tars.OK, settings.classes_per_image, 0)
    batches = loader.evaluation_batches(
        samples, rows, teacher.image_size, teacher.resize, settings.batch_size, workers
    )
    predict = models.predictor(teacher, settings.precision, workers)
    progress, done = Progress(f"score {samples.dataset}", len(rows)), 0
    batch = next(batches, None)
    for shard_id in shard_ids:
        own = np.flatnonzero(shard_of == shard_id)
        logsumexp = np.zeros(len(own), np.float32)
        class_ids, log_odds = [np.empty(0, np.int16)], [np.empty(0, np.float32)]
        # No batch spans two shards.
        while batch is not None and shard_of[_first_row(batch)] == shard_id:
            for row, kind, why in batch.failures:
                status[row], reason[row], num_classes[row] = kind, why, 0
            if len(batch.rows):
                logits_NC = predict(batch.images_NCHW)
                top = inference.top_classes(logits_NC, settings.classes_per_image)
                if not top.log_odds_NP.isfinite().all():
                    raise DataError(
                        f"{samples.shard_paths[shard_id]}: scores are not finite; the teacher's "
                        "weights are bad."
                    )
                logsumexp[batch.rows - own[0]] = np.round(top.logsumexp_N.numpy() * 4096) / 4096
                class_ids.append(top.class_ids_NP.numpy().astype(np.int16).ravel())
                log_odds.append(top.log_odds_NP.numpy().ravel())
            done += len(batch.rows) + len(batch.failures)
            progress.update(done)
            batch = next(batches, None)
        ends = np.cumsum([0, *num_classes[own]]).astype(np.int32)
        yield (
            shard_id,
            {
                "class_ids": pa.ListArray.from_arrays(ends, np.concatenate(class_ids)),
                "log_odds": pa.ListArray.from_arrays(ends, np.concatenate(log_odds)),
                "logsumexp": logsumexp,
                "status": status[own],
                "reason": reason[own],
            },
        )


def _first_row(batch: loader.Batch) -> int:
    return min([*batch.rows[:1].tolist(), *(row for row, _, _ in batch.failures)])


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

"""One pass over the images of a part: each is decoded once, for all that is made of it.

Each shard is committed when it is done, in a work folder under a name that says what was made of
what, so a killed job goes on with the first shard that is missing. Where what was made is kept, a job
that is run again makes only the shards that have changed; those that only moved are found.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch

from semisup import (
    commits,
    devices,
    fingerprints,
    loader,
    models,
    schemas,
    tables,
    tars,
    transforms,
)
from semisup.progress import Progress
from semisup.samples import Samples, read_samples, rows_with_status
from semisup.tables import DataError

log = logging.getLogger("semisup")


class Eye(NamedTuple):
    """A network that looks at the images, in one precision. ``sha256``: of the file of its weights."""

    weights: models.Weights
    sha256: str
    precision: str

    def with_what(self) -> str:
        return devices.numerics(self.precision) + self.sha256


def open_eye(path: Path, precision: str) -> Eye:
    return Eye(models.load(path), tables.file_sha256(path), precision)


class Maker(Protocol):
    """Makes some columns of a shard, one row per sample, from what its eye sees."""

    eye: Eye
    schema: pa.Schema

    def start(self, num_samples: int) -> None: ...

    def add(self, at: np.ndarray, seen: models.Seen, fingerprints_N3: torch.Tensor) -> None:
        """``at``: places of the images in the shard, ascending from batch to batch."""
        ...

    def columns(self) -> dict[str, Any]: ...


class Shards(NamedTuple):
    """The shards of a part as its manifest has them, and the file each is committed to, in order.

    Equal tars share a file. ``schema``: of these files, a row per sample of the shard.
    """

    samples: Samples
    tars: list[dict[str, Any]]
    makers: list[Maker]
    work: Path
    paths: list[Path]
    schema: pa.Schema

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns of all shards: a row per sample of the part."""
        shards = [tables.read_table(path, self.schema, columns) for path in self.paths]
        return pa.concat_tables(shards).unify_dictionaries()

    def discard(self) -> None:
        """Remove all of a work folder that no other part has: they are as large as the tables."""
        if self.work.exists():  # a part may have no tar
            shutil.rmtree(self.work)


def open_shards(manifest: Path, work: Path, makers: list[Maker], settings: str) -> Shards:
    """The shards of a part, nothing made of them yet.

    ``settings``: canonical; with the weights and the content of the shard they name what is committed.
    ``work``: of all parts where what is committed is kept, as a shard may come to be in another one;
    of one part where it is discarded, as another may hold an equal tar.
    """
    samples = read_samples([manifest])
    with_what = f"{settings}{samples.max_pixels}"
    with_what += "".join(maker.eye.with_what() for maker in makers)
    schema = pa.schema([*schemas.STATUS, *(f for maker in makers for f in maker.schema)])
    shards = tables.read_json(manifest)["shards"]
    paths = [commits.commit_path(work, shard["sha256"], with_what) for shard in shards]
    return Shards(samples, shards, makers, work, paths, schema)


def commit_shards(shards: Shards, batch_size: int, workers: int) -> None:
    """Make what is missing of the shards of a part."""
    missing: dict[Path, int] = {}  # of equal tars the first
    for shard, path in zip(shards.tars, shards.paths, strict=True):
        if path not in missing and not _is_whole(path, shards.schema, shard["num_samples"]):
            missing[path] = shard["shard_id"]
    if num_done := len(shards.tars) - len(missing):
        log.info("%d of %d shards are done already", num_done, len(shards.tars))
    ids = list(missing.values())
    made = _make(shards.samples, ids, shards.makers, batch_size, workers) if ids else ()
    for path, (_, columns) in zip(missing, made, strict=True):
        tables.write_table(path, columns, shards.schema)
    if not ids:  # nobody has said how many images the part has: `make status` counts what is said
        total = len(_readable(shards.samples))
        Progress(f"look at {shards.samples.dataset}", total, start=total).update(total)


def _is_whole(path: Path, schema: pa.Schema, num_samples: int) -> bool:
    """Whether a committed shard need not be made again; what could not be read is tried again."""
    try:
        status = tables.read_table(path, schema, ["status"])["status"]
    except DataError as error:
        if path.exists():
            log.warning("%s; the shard is done again", error)
        return False
    return len(status) == num_samples and tars.READ_ERROR not in status.unique().to_pylist()


def _make(
    samples: Samples, shard_ids: list[int], makers: list[Maker], batch_size: int, workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The columns of each of these shards, one shard after the other."""
    shard_of = samples.table["shard_id"].to_numpy()
    readable = _readable(samples)
    rows = readable[np.isin(shard_of[readable], shard_ids)]
    status = np.array(samples.table["status"].cast(pa.string()).to_pylist(), object)
    status[readable] = tars.OK
    reason = np.array(samples.table["reason"].to_pylist(), object)
    reason[readable] = ""
    batches, look = _observe(samples, rows, makers, batch_size, workers)
    done = len(readable) - len(rows)
    progress = Progress(f"look at {samples.dataset}", len(readable), start=done)
    batch = next(batches, None)
    for shard_id in shard_ids:
        own = np.flatnonzero(shard_of == shard_id)
        for maker in makers:
            maker.start(len(own))
        # No batch spans two shards.
        while batch is not None and shard_of[_first_row(batch)] == shard_id:
            for row, kind, why in batch.failures:
                status[row], reason[row] = kind, why
            if len(batch.rows):
                for maker, seen in zip(makers, look(batch), strict=True):
                    if not (seen.logits_NC.isfinite().all() and seen.features_ND.isfinite().all()):
                        raise DataError(
                            f"{samples.shard_paths[shard_id]}: scores or features are not finite; "
                            f"the weights are bad ({maker.eye.weights.arch})."
                        )
                    maker.add(batch.rows - own[0], seen, batch.more[0])
            done += len(batch.rows) + len(batch.failures)
            progress.update(done)
            batch = next(batches, None)
        columns = {"status": status[own], "reason": reason[own]}
        for maker in makers:
            columns |= maker.columns()
        yield shard_id, columns


def _readable(samples: Samples) -> np.ndarray:
    return rows_with_status(samples, tars.OK, tars.BAD_LABEL)


def _first_row(batch: loader.Batch) -> int:
    return min([*batch.rows[:1].tolist(), *(row for row, _, _ in batch.failures)])


def _observe(
    samples: Samples, rows: np.ndarray, makers: list[Maker], batch_size: int, workers: int
) -> tuple[Iterator[loader.Batch], Any]:
    """The batches, and what each maker's eye sees of one; makers with the same eye share it."""
    eyes = {(maker.eye.sha256, maker.eye.precision): maker.eye for maker in makers}
    hows = list(dict.fromkeys(eye.weights.preprocessing for eye in eyes.values()))
    others = [transforms.evaluation_transform(how) for how in hows[1:]]
    batches = loader.evaluation_batches(
        samples, rows, hows[0], batch_size, workers, [fingerprints.fingerprint, *others]
    )
    observers = {
        name: models.observer(eye.weights, eye.precision, workers) for name, eye in eyes.items()
    }

    def look(batch: loader.Batch) -> list[models.Seen]:
        images = dict(zip(hows, [batch.images_NCHW, *batch.more[1:]], strict=True))
        seen = {
            name: observers[name](images[eye.weights.preprocessing]) for name, eye in eyes.items()
        }
        return [seen[maker.eye.sha256, maker.eye.precision] for maker in makers]

    return batches, look

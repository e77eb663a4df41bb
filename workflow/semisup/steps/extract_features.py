"""Describe every image of one part of a dataset: features and fingerprints, no search yet."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from semisup import features as stored
from semisup import memory, models, passes, schemas, settings, tables, tars
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")

ZERO_FEATURE = "zero_feature"


def main(
    settings: settings.ExtractFeatures,
    manifest: Path,
    weights: Path,
    features: Path,
    images: Path,
    workers: int,
) -> None:
    """Write the feature of each image that has one, and a row with fingerprints for each sample."""
    memory.keep_freed()
    maker = FeatureMaker(passes.open_eye(weights, settings.precision))
    work = features.parent / "work" / features.stem
    shards = passes.open_shards(manifest, work, [maker], settings.canonical())
    passes.commit_shards(shards, settings.batch_size, workers)
    _refuse_unread(shards)
    write_part(shards, features, images)
    shards.discard()


def _refuse_unread(shards: passes.Shards) -> None:
    """An image that is scored but was not compared could be selected, whatever it is a copy of."""
    found = shards.read(["status", "reason"])
    unread = found.filter(pc.equal(found["status"].cast(pa.string()), tars.READ_ERROR))
    if len(unread):
        raise DataError(
            f"{len(unread)} images could not be read: {unread['reason'][0]}. Restore the file or its "
            "disk, and run again; all other shards are done."
        )


class FeatureMaker:
    """The feature of each image, and what its pixels tell."""

    schema = schemas.SHARD_FEATURES

    def __init__(self, eye: passes.Eye) -> None:
        self.eye = eye

    def start(self, num_samples: int) -> None:
        self.features = np.full(num_samples, b"", object)
        self.fingerprints = np.zeros((num_samples, 3), np.int64)

    def add(self, at: np.ndarray, seen: models.Seen, fingerprints_N3: torch.Tensor) -> None:
        self.fingerprints[at] = fingerprints_N3.numpy()
        described = seen.features_ND.any(dim=1).numpy()
        self.features[at[described]] = stored.pack(seen.features_ND.numpy()[described])

    def columns(self) -> dict[str, Any]:
        hashes = np.ascontiguousarray(self.fingerprints[:, :2]).view("V16").ravel()
        return {
            "pixel_hash": [hash.tobytes() for hash in hashes],
            "perceptual_hash": self.fingerprints[:, 2],
            "feature": list(self.features),
        }


def write_part(shards: passes.Shards, features: Path, images: Path) -> None:
    """The tables of a part whose shards are all committed."""
    samples = shards.samples.table
    described = shards.read(["status", "reason", "pixel_hash", "perceptual_hash"])
    status = np.array(described["status"].to_pylist(), object)
    reason = np.array(described["reason"].to_pylist(), object)
    start, has_feature = 0, np.zeros(len(samples), bool)

    def blocks() -> Iterator[dict[str, Any]]:
        nonlocal start
        for path in shards.paths:
            vectors = tables.read_table(path, shards.schema, ["feature"])["feature"]
            own = slice(start, start + len(vectors))
            here = np.flatnonzero(pc.binary_length(vectors).to_numpy())
            has_feature[own][here] = True
            block = {n: samples[n].to_numpy()[own][here] for n in ("shard_id", "sample_index")}
            yield block | {"feature": vectors.take(here)}
            start += len(vectors)

    tables.write_blocks(features, blocks(), schemas.FEATURES)
    if wrong := int((has_feature & (status != tars.OK)).sum()):
        raise DataError(f"{features}: {wrong} failed images have a feature; this is a bug.")
    zero = (status == tars.OK) & ~has_feature
    status[zero], reason[zero] = ZERO_FEATURE, "the descriptor gives only zeros"
    columns = {name: described[name] for name in ("pixel_hash", "perceptual_hash")}
    columns |= {name: samples[name] for name in ("shard_id", "sample_index")}
    tables.write_table(images, {**columns, "status": status, "reason": reason}, schemas.DESCRIBED)
    log.info("%d samples: %s", len(status), dict(Counter(status.tolist())))


if __name__ == "__main__":
    run(main)

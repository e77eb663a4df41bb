"""How far near-duplicates are from their originals: measured on planted ones, kind by kind."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semisup import images, memory, models, planted, schemas, settings, tables, transforms
from semisup.features import pack
from semisup.fingerprints import perceptual_hash
from semisup.pairs import Evaluation, read_evaluation
from semisup.samples import check_tars, parts_of, read_indexed, read_samples
from semisup.selection import random_bits
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.CalibrateDuplicates,
    evaluation_features: list[Path],
    evaluation_manifests: list[Path],
    weights: Path,
    calibration: Path,
    workers: int,
) -> None:
    """Write the distance of planted near-duplicates to their originals, and to the closest others.

    ``evaluation_features``, ``evaluation_manifests``: the first part of each set, sets by name.
    """
    memory.keep_freed()
    names = sorted(settings.evaluation)
    features = {
        name: tables.part_paths(first, settings.evaluation[name])
        for name, first in zip(names, evaluation_features, strict=True)
    }
    manifests = {
        name: tables.part_paths(first, settings.evaluation[name])
        for name, first in zip(names, evaluation_manifests, strict=True)
    }
    evaluation = read_evaluation(features)
    rows = draw(evaluation, settings.num_images, settings.seed)
    network = models.load(weights)
    observe = models.observer(network, settings.precision, workers)
    fit = transforms.evaluation_transform(network.preprocessing)
    whole = evaluation.images.vectors.astype(np.float32)
    blocks: list[dict[str, Any]] = []
    for at, pixels in read_pixels(evaluation, rows, manifests):
        made = [planted.plant(kind, pixels) for kind in planted.KINDS]
        tensors = [transforms.to_tensor(each) for each in made]
        vectors = observe(torch.stack([fit(tensor) for tensor in tensors])).features_ND.numpy()
        own = perceptual_hash(transforms.to_tensor(pixels))
        bits = [_bits(own, perceptual_hash(tensor)) for tensor in tensors]
        distance, others = measure(evaluation, whole, at, vectors)
        match = evaluation.match_columns(np.full(len(made), at))
        block = {"kind": list(planted.KINDS), "bits": bits, "distance": distance}
        blocks.append({**match, **block, "distance_to_others": others})
    if not blocks:
        raise DataError("no evaluation image could be decoded: there is nothing to calibrate with.")
    columns = {
        name: np.concatenate([np.asarray(block[name]) for block in blocks])
        for name in schemas.CALIBRATION.names
    }
    tables.write_table(calibration, columns, schemas.CALIBRATION)
    log.info("%d images, %d kinds", len(blocks), len(planted.KINDS))


def draw(evaluation: Evaluation, num_images: int, seed: int) -> np.ndarray:
    """Rows of the images to change: ``num_images`` of each set by chance, ascending."""
    identity, dataset = evaluation.images.identity, evaluation.dataset
    rows = []
    for position in range(len(evaluation.names)):
        own = np.flatnonzero(dataset == position)
        chance = random_bits(identity[own], seed, position)
        rows.append(np.sort(own[np.argsort(chance, kind="stable")[:num_images]]))
    return np.concatenate(rows)


def read_pixels(
    evaluation: Evaluation, rows: np.ndarray, manifests: dict[str, list[Path]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Each of these rows with the pixels of its image, but for those that can be read no more."""
    failed: Counter[str] = Counter()
    for position, name in enumerate(evaluation.names):
        own = rows[evaluation.dataset[rows] == position]
        wanted = evaluation.images.identity[own]
        for manifest, here in parts_of(manifests[name], wanted):
            samples = read_samples([manifest])
            check_tars(samples)
            at = np.searchsorted(tables.identity(samples.table), wanted[here])
            for row, place in zip(own[here].tolist(), at.tolist(), strict=True):
                sample = samples.table.slice(place, 1).to_pylist()[0]
                path = samples.shard_paths[sample["shard_id"]]
                try:
                    place = sample["offset"], sample["size_bytes"], sample["content_hash"]
                    content = read_indexed(path, *place)
                    pixels = images.decode(content, samples.max_pixels)
                except images.ImageError as error:
                    failed[error.kind] += 1
                    continue
                yield row, pixels
    if failed:
        log.warning("%d evaluation images were left out: %s", failed.total(), dict(failed))


def measure(
    evaluation: Evaluation, whole: np.ndarray, row: int, vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of features to one evaluation image, and to the closest of all others.

    ``whole``: the features of all evaluation images as float32.
    """
    stored = np.stack([np.frombuffer(packed, "<f2") for packed in pack(vectors)])
    index = evaluation.images.vectors
    own = np.sqrt(((stored.astype(np.float64) - index[row]) ** 2).sum(1)).astype(np.float32)
    products = stored.astype(np.float32) @ whole.T
    products[:, row] = -np.inf
    best = products.argmax(1) if len(index) > 1 else np.full(len(stored), row)
    closest = np.sqrt(((stored.astype(np.float64) - index[best]) ** 2).sum(1)).astype(np.float32)
    return own, np.where(len(index) > 1, closest, np.float32(2))


def _bits(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


if __name__ == "__main__":
    run(main)

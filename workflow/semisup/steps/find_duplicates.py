"""Find the images of one part of a dataset that are close to an evaluation image. No network."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from semisup import memory, schemas, settings, tables
from semisup.features import check_dimensions, read_features
from semisup.neighbors import Neighbors
from semisup.pairs import Closest, Evaluation, Nearest, read_evaluation
from semisup.samples import parts_of, read_samples
from semisup.steps import run

log = logging.getLogger("semisup")


def main(
    settings: settings.FindDuplicates,
    manifest: Path,
    features: Path,
    evaluation_features: list[Path],
    evaluation_manifests: list[Path],
    pairs: Path,
    nearest: Path,
    workers: int,
) -> None:
    """Write the closest pairs, sorted, and the closest evaluation image of each close image.

    ``evaluation_features``, ``evaluation_manifests``: the first part of each set, sets by name.
    """
    torch.set_num_threads(max(workers, 1))
    memory.keep_freed()
    sets = settings.evaluation
    evaluation = read_evaluation(_parts(sets, evaluation_features))
    neighbors = Neighbors(evaluation.images.vectors, settings.record_distance)
    closest, found, num_images = Closest(settings.max_pairs), [], 0
    for block in read_features(features):
        check_dimensions(block, evaluation.images, path=features)
        own = Nearest(len(block.identity))
        for close in neighbors.within(block.vectors, lambda: closest.cut):
            own.add(*close)
            closest.add(close.distance, block.identity[close.query], close.match)
        rows = np.flatnonzero(own.match >= 0)
        found.append((block.identity[rows], own.match[rows], own.distance[rows]))
        num_images += len(block.identity)
    _write_nearest(nearest, found, evaluation)
    manifests = _parts(sets, evaluation_manifests)
    _write_pairs(pairs, closest, manifest, manifests, evaluation)
    log.info(
        "%d images, %d of them close to one of %d evaluation images; the %d closest pairs kept",
        num_images, sum(len(rows) for rows, *_ in found), len(evaluation.dataset),
        min(closest.count, settings.max_pairs),
    )  # fmt: skip


def _parts(sets: dict[str, int], firsts: list[Path]) -> dict[str, list[Path]]:
    names = zip(sorted(sets), firsts, strict=True)
    return {name: tables.part_paths(first, sets[name]) for name, first in names}


def _write_nearest(
    path: Path, found: Sequence[tuple[np.ndarray, ...]], evaluation: Evaluation
) -> None:
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    identity, match, distance = map(np.concatenate, zip(empty, *found, strict=True))
    shard_ids, sample_indices = tables.split_identity(identity)
    columns = {"shard_id": shard_ids, "sample_index": sample_indices, "distance": distance}
    tables.write_table(path, columns | evaluation.match_columns(match), schemas.NEAREST)


def _write_pairs(
    path: Path,
    closest: Closest,
    manifest: Path,
    evaluation_manifests: dict[str, list[Path]],
    evaluation: Evaluation,
) -> None:
    sorted_pairs = closest.sorted() or [np.empty(0, np.float32), *[np.empty(0, np.int64)] * 2]
    distance, identity, match = sorted_pairs
    shard_ids, sample_indices = tables.split_identity(identity)
    theirs = evaluation.images.identity[match]
    evaluation_keys = np.full(len(match), "", object)
    for position, name in enumerate(evaluation.names):
        own = np.flatnonzero(evaluation.dataset[match] == position)
        evaluation_keys[own] = read_keys(evaluation_manifests[name], theirs[own])
    columns = {
        "shard_id": shard_ids,
        "sample_index": sample_indices,
        "key": read_keys([manifest], identity),
        "evaluation_key": evaluation_keys,
        "distance": distance,
    }
    tables.write_table(path, columns | evaluation.match_columns(match), schemas.DUPLICATES)


def read_keys(manifests: list[Path], identities: np.ndarray) -> np.ndarray:
    """The keys of some samples of a dataset, reading only the parts that hold them."""
    keys = np.full(len(identities), "", object)
    for manifest, here in parts_of(manifests, identities):
        table = read_samples([manifest], ["shard_id", "sample_index", "key"]).table
        rows = np.searchsorted(tables.identity(table), identities[here])
        keys[here] = table["key"].take(rows).to_pylist()
    return keys


if __name__ == "__main__":
    run(main)

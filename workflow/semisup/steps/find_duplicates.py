"""Find the images of one part of a dataset that are close to an evaluation image. No network."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from semisup import memory, schemas, settings, tables
from semisup.features import Features, check_dimensions, read_features, read_sample
from semisup.neighbors import Neighbors
from semisup.pairs import Closest, Evaluation, read_evaluation
from semisup.samples import parts_of, read_samples
from semisup.search import Found, sample_size, search
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
    num_images, max_pairs = tables.count_rows(features), settings.max_pairs
    sample = read_sample(features, sample_size(num_images, max_pairs))
    check_dimensions(evaluation.images, *sample, path=features)
    neighbors = Neighbors(evaluation.images.vectors, settings.record_distance)
    found = search(lambda: _read(features, evaluation), sample, num_images, neighbors, max_pairs)
    _write_nearest(nearest, found, evaluation)
    manifests = _parts(sets, evaluation_manifests)
    _write_pairs(pairs, found.closest, manifest, manifests, evaluation)
    log.info(
        "%d images, %d of them close to one of %d evaluation images; the %d closest pairs kept",
        found.num_images, len(found.match), len(evaluation.dataset),
        min(found.closest.count, max_pairs),
    )  # fmt: skip


def _parts(sets: dict[str, int], firsts: list[Path]) -> dict[str, list[Path]]:
    names = zip(sorted(sets), firsts, strict=True)
    return {name: tables.part_paths(first, sets[name]) for name, first in names}


def _read(path: Path, evaluation: Evaluation) -> Iterator[Features]:
    for block in read_features(path):
        check_dimensions(block, evaluation.images, path=path)
        yield block


def _write_nearest(path: Path, found: Found, evaluation: Evaluation) -> None:
    shard_ids, sample_indices = tables.split_identity(found.identity)
    columns = {"shard_id": shard_ids, "sample_index": sample_indices, "distance": found.distance}
    tables.write_table(path, columns | evaluation.match_columns(found.match), schemas.NEAREST)


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

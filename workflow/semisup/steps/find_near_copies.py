"""Find the images of a group of cells that are close to an earlier image of U in their cell."""

import logging
from pathlib import Path

import numpy as np
import torch

from semisup import cells, schemas, settings, tables
from semisup.steps import run

log = logging.getLogger("semisup")


def main(
    settings: settings.FindNearCopies, first_cells: Path, near_copies: Path, workers: int
) -> None:
    torch.set_num_threads(max(workers, 1))
    paths = tables.part_paths(first_cells, settings.num_parts)
    empty = cells.NearCopies(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    found = [
        cells.near_copies(images, settings.max_distance)
        for images in cells.read_cells(paths, settings.group)
    ]
    copy, first, distance = map(np.concatenate, zip(empty, *found, strict=True))
    write(near_copies, copy, first, distance)
    log.info("%d near-copies in %d cells", len(copy), len(found))


def write(path: Path, copy: np.ndarray, first: np.ndarray, distance: np.ndarray) -> None:
    order = np.argsort(copy)
    columns: dict[str, np.ndarray] = {"distance": distance[order]}
    for prefix, identity in (("", copy[order]), ("first_", first[order])):
        shard_ids, sample_indices = tables.split_identity(identity)
        columns |= {f"{prefix}shard_id": shard_ids, f"{prefix}sample_index": sample_indices}
    tables.write_table(path, columns, schemas.NEAR_COPIES)


if __name__ == "__main__":
    run(main)

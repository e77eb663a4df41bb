"""Find the images of a group of cells that are close to an earlier image of U in their cell."""

import logging
from pathlib import Path

import numpy as np
import torch

from semisup import cells, schemas, settings, tables
from semisup.cells import NearCopies
from semisup.near_copies import in_cell
from semisup.steps import run

log = logging.getLogger("semisup")


def main(
    settings: settings.FindNearCopies, first_cells: Path, near_copies: Path, workers: int
) -> None:
    torch.set_num_threads(max(workers, 1))
    paths = tables.part_paths(first_cells, settings.num_parts)
    none = NearCopies(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    found = [
        in_cell(images, settings.max_distance) for images in cells.read_cells(paths, settings.group)
    ]
    together = NearCopies(*map(np.concatenate, zip(none, *found, strict=True)))
    tables.write_table(near_copies, cells.near_copy_columns(together), schemas.NEAR_COPIES)
    log.info("%d near-copies in %d cells", len(together.copy), len(found))


if __name__ == "__main__":
    run(main)

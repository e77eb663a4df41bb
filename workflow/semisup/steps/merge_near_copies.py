"""The near-copies of all cells, by identity."""

from pathlib import Path

import numpy as np

from semisup import schemas, settings, tables
from semisup.steps import run
from semisup.steps.find_near_copies import write


def main(settings: settings.MergeNearCopies, first_group: Path, near_copies: Path) -> None:
    """Memory: 20 bytes a near-copy."""
    found = []
    for path in tables.part_paths(first_group, settings.num_groups):
        table = tables.read_table(path, schemas.NEAR_COPIES)
        first = tables.identity(table, "first_")
        found.append((tables.identity(table), first, table["distance"].to_numpy()))
    write(near_copies, *map(np.concatenate, zip(*found, strict=True)))


if __name__ == "__main__":
    run(main)

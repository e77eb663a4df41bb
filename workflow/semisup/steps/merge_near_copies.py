"""The near-copies of all cells, by identity."""

from pathlib import Path

import numpy as np

from semisup import cells, schemas, settings, tables
from semisup.steps import run


def main(settings: settings.MergeNearCopies, first_group: Path, near_copies: Path) -> None:
    """Memory: 20 bytes a near-copy."""
    found = []
    for path in tables.part_paths(first_group, settings.num_groups):
        table = tables.read_table(path, schemas.NEAR_COPIES)
        first = tables.identity(table, "first_")
        found.append((tables.identity(table), first, table["distance"].to_numpy()))
    together = cells.NearCopies(*map(np.concatenate, zip(*found, strict=True)))
    tables.write_table(near_copies, cells.near_copy_columns(together), schemas.NEAR_COPIES)


if __name__ == "__main__":
    run(main)

"""Merge the closest pairs of all parts, closest first."""

import logging
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.pairs import merge_pairs
from semisup.steps import run

log = logging.getLogger("semisup")


def main(settings: settings.MergeDuplicates, first_part: Path, pairs: Path) -> None:
    parts = tables.part_paths(first_part, settings.num_parts)
    merged = merge_pairs(parts, settings.max_pairs)
    columns = {name: merged[name] for name in merged.column_names}
    tables.write_table(pairs, columns, schemas.DUPLICATES)
    log.info("%d pairs of %d parts", len(merged), settings.num_parts)


if __name__ == "__main__":
    run(main)

"""Merge the close pairs of all parts, closest first."""

import logging
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.steps import run
from semisup.steps.find_duplicates import write_pairs

log = logging.getLogger("semisup")


def main(settings: settings.MergeDuplicates, first_part: Path, pairs: Path) -> None:
    blocks = []
    for path in tables.part_paths(first_part, settings.num_parts):
        table = tables.read_table(path, schemas.DUPLICATES)
        blocks.append({n: table[n].to_numpy() for n in schemas.DUPLICATES.names})
    write_pairs(pairs, blocks)
    log.info("%d pairs in %d parts", sum(len(b["key"]) for b in blocks), settings.num_parts)


if __name__ == "__main__":
    run(main)

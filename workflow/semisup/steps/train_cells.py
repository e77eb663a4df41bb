"""Learn the cells within which images of U are compared with each other."""

from pathlib import Path

from semisup import cells, schemas, settings, tables
from semisup.features import pack
from semisup.steps import run


def main(settings: settings.TrainCells, first_features: Path, centroids: Path) -> None:
    paths = tables.part_paths(first_features, settings.num_parts)
    made = cells.train_cells(paths, settings.num_cells, settings.seed)
    tables.write_table(centroids, {"feature": pack(made)}, schemas.CENTROIDS)


if __name__ == "__main__":
    run(main)

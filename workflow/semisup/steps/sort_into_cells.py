"""Sort the images of one part of U into cells, a row group for each group of cells."""

from pathlib import Path

import numpy as np

from semisup import cells, schemas, settings, tables
from semisup.features import Features, read_features, unpack
from semisup.steps import run


def main(settings: settings.SortIntoCells, features: Path, centroids: Path, sorted: Path) -> None:
    """Memory: the features of the part, twice."""
    learned = unpack(tables.read_table(centroids, schemas.CENTROIDS)["feature"], centroids)
    blocks = list(read_features(features))
    empty = Features(np.empty(0, np.int64), np.empty((0, learned.shape[1]), np.float16))
    images = Features(*(np.concatenate(column) for column in zip(empty, *blocks, strict=True)))
    columns = cells.cell_columns(images, learned)
    group = cells.group_of(columns["cell"], settings.num_groups)
    order = np.argsort(group, kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    lengths = np.bincount(group, minlength=settings.num_groups).tolist()
    tables.write_table(sorted, columns, schemas.CELLS, row_groups=lengths)


if __name__ == "__main__":
    run(main)

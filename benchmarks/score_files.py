"""Synthetic scores: the same rows in our store and in the layouts other engines like best.

Images come in random order. Class sizes follow a power law, 22 to 1. An image has its P best classes
and log-odds that fall with the rank, as a float32 softmax head gives them.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semisup import scores
from semisup.rankings import read_scores
from semisup.selection import Ranked, concatenate

NUM_CLASSES = 1000
CLASSES_PER_IMAGE = 10

LAYOUTS = {
    "defaults": {},  # snappy, dictionaries
    "zstd": {"compression": "zstd"},
    "uncompressed": {"compression": "none", "use_dictionary": ["class_id"]},
}
"""For other engines: long rows class_id, log_odds, image; options of the Parquet writer."""


def make_part(part: int, num_images: int) -> Ranked:
    """The rows of a part by identity; its images are those of shard ``part``."""
    rng = np.random.default_rng([7, part])
    weights = np.arange(1, NUM_CLASSES + 1) ** -0.45
    # Distinct classes of an image: steps around a circle from one drawn by weight.
    first = rng.choice(NUM_CLASSES, num_images, p=weights / weights.sum())
    longest = NUM_CLASSES // CLASSES_PER_IMAGE
    steps = 1 + np.floor((longest - 1) * rng.random((num_images, CLASSES_PER_IMAGE - 1)) ** 2)
    classes = np.column_stack([first, first[:, None] + np.cumsum(steps, 1)]) % NUM_CLASSES
    gaps = rng.exponential(1.2, (num_images, CLASSES_PER_IMAGE))
    log_odds = rng.normal(4, 4, num_images)[:, None] - np.cumsum(gaps, 1)
    identity = (np.int64(part) << 32) | np.arange(num_images)
    return Ranked(
        classes.astype(np.int16).ravel(),
        log_odds.astype(np.float32).ravel(),
        np.repeat(identity, CLASSES_PER_IMAGE),
        np.tile(np.arange(1, CLASSES_PER_IMAGE + 1, dtype=np.int8), num_images),
    )


def write(folder: Path, part: int, num_images: int) -> None:
    """One part in every layout, whole or not at all."""
    rows = make_part(part, num_images)
    name = f"part-{part:05d}.parquet"
    table = pa.table({"class_id": rows.class_id, "log_odds": rows.log_odds, "image": rows.identity})
    for layout, options in LAYOUTS.items():
        (folder / layout).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / layout / name, **options)
    scores.write_scores(folder / "semisup" / name, rows)


def join(folder: Path, num_parts: int) -> None:
    """The parts of ``folder``/semisup, ten at a time, as fewer and larger ones."""
    for part in range(num_parts // 10):
        path = folder / "semisup-large" / f"part-{part:05d}.parquet"
        if not path.exists():
            small = [folder / "semisup" / f"part-{10 * part + i:05d}.parquet" for i in range(10)]
            rows = concatenate([read_scores(each) for each in small])
            scores.write_scores(path, rows.take(np.argsort(rows.identity, kind="stable")))


def main(folder: Path, num_parts: int, num_images: int) -> None:
    for part in range(num_parts):
        if not (folder / "semisup" / f"part-{part:05d}.parquet").exists():
            write(folder, part, num_images)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Source tars and a selection of them for the benchmark of packing: `pack_files.py FOLDER`.

200 tars of 500 JPEGs, 17 to 108 KB: crops of scikit-learn's photographs, each followed by bytes of its
own, as encoding 100,000 different ones would take longer than it is worth. 30,000 of them selected,
a quarter for two classes.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from semisup import images, settings, tables, tars
from semisup.selection import Ranked, rank_order
from semisup.steps import index_shards, select

NUM_SHARDS, NUM_IMAGES, NUM_SELECTED, NUM_CLASSES = 200, 500, 30_000, 1000


def main(folder: Path) -> None:
    make_shards(folder / "tars")
    manifests = [index_part(folder, part) for part in range(4)]
    make_selection(folder, manifests)


def make_shards(folder: Path) -> None:
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    crops = [crop(photographs[i % 2], rng) for i in range(1000)]
    for shard in range(NUM_SHARDS):
        path = folder / f"{shard:05d}.tar"
        if not path.exists():
            own = np.random.default_rng([1, shard])
            chosen = own.integers(len(crops), size=NUM_IMAGES)
            tars.write_tar(
                path,
                (
                    (f"{shard:05d}{i:04d}", {"jpg": crops[c] + own.bytes(16), "json": b"{}"})
                    for i, c in enumerate(chosen)
                ),
            )


def crop(photograph: Image.Image, rng: np.random.Generator) -> bytes:
    width, height = rng.integers(250, 420, 2).tolist()
    left = int(rng.integers(photograph.width - width))
    top = int(rng.integers(photograph.height - height))
    out = io.BytesIO()
    box = (left, top, left + width, top + height)
    photograph.crop(box).save(out, "jpeg", quality=int(rng.integers(75, 96)))
    return out.getvalue()


def index_part(folder: Path, part: int) -> Path:
    size = NUM_SHARDS // 4
    manifest = folder / "index" / f"manifest-{part:05d}.json"
    if not manifest.exists():
        paths = [
            str(folder / "tars" / f"{i:05d}.tar") for i in range(part * size, part * size + size)
        ]
        index_shards.main(
            settings.IndexShards(
                dataset="unlabeled",
                part=part,
                first_shard=part * size,
                shards=paths,
                num_classes=None,
                max_pixels=images.MAX_PIXELS,
                stamp="",
            ),
            manifest,
            manifest.with_name(f"samples-{part:05d}.parquet"),
        )
    return manifest


def make_selection(folder: Path, manifests: list[Path]) -> None:
    rng = np.random.default_rng(2)
    images = rng.choice(NUM_SHARDS * NUM_IMAGES, NUM_SELECTED, replace=False)
    twice = images[: NUM_SELECTED // 4]
    images = np.concatenate([images, twice])
    class_id = rng.integers(NUM_CLASSES, size=len(images)).astype(np.int16)
    class_id[-len(twice) :] = (class_id[: len(twice)] + 1) % NUM_CLASSES
    log_odds = rng.normal(3, 2, len(images)).astype(np.float32)
    identity = (images // NUM_IMAGES << 32) | images % NUM_IMAGES
    rows = Ranked(class_id, log_odds, identity, np.ones(len(images), np.int8))
    names = [f"class {i}" for i in range(NUM_CLASSES)]
    rows = rows.take(rank_order(class_id, log_odds))
    select.write_selection(
        folder / "selection.parquet", rows, rows.log_odds, rows.prediction_rank, names, manifests
    )
    tables.write_json(folder / "summary.json", {"num_rows": len(rows.class_id)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

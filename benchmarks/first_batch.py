"""How long the first batch takes when a training goes on in the middle: `first_batch.py FOLDER`.

FOLDER holds the 100,000 images of the benchmark of packing. Ours starts at any position; webdataset
has no index and reads, without decoding, all that comes before. One process, no workers, warm cache;
medians of three.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pack_files
import webdataset as wds
from torchvision import transforms as v1

from semisup import loader, transforms
from semisup.config import Recipe
from semisup.order import TrainingOrder
from semisup.samples import read_samples
from semisup.settings import Preprocessing

BATCH = 256
IMAGENET = Preprocessing(image_size=224, resize=256)
SHARES = (0.0, 0.5, 0.99)


def main(folder: Path) -> None:
    pack_files.main(folder)
    found = {}
    for name, make in (("ours", ours(folder)), ("webdataset", webdataset(folder))):
        for share in SHARES:
            times = [seconds(make, share) for _ in range(3)]
            found[f"{name} at {share:.0%}"] = times
            print(f"{name:12} {share:4.0%}  {statistics.median(times):7.3f} s", flush=True)
    results = Path(__file__).parent / "results"
    (results / "first_batch.json").write_text(json.dumps(found, indent=1) + "\n")


def seconds(make: Callable[[int], int], share: float) -> float:
    first = int(share * pack_files.NUM_SHARDS * pack_files.NUM_IMAGES) // BATCH
    start = time.perf_counter()
    assert make(first) == BATCH
    return time.perf_counter() - start


def ours(folder: Path) -> Callable[[int], int]:
    samples = read_samples(sorted((folder / "index").glob("manifest-*.json")))
    num_images = len(samples.table)

    def make(first: int) -> int:
        seed = time.perf_counter_ns() % 2**31  # nothing of it is remembered
        order = TrainingOrder(np.arange(num_images), seed, num_images, BATCH)
        transform = transforms.training_transform(Recipe(images=1), IMAGENET)
        return len(
            next(loader.training_batches(samples, order, transform, 224, first, 0, 1, 0)).rows
        )

    return make


def webdataset(folder: Path) -> Callable[[int], int]:
    paths = [str(path) for path in sorted((folder / "tars").glob("*.tar"))]
    transform = v1.Compose(
        [v1.RandomResizedCrop(224, antialias=True), v1.RandomHorizontalFlip(), v1.PILToTensor()]
    )

    def make(first: int) -> int:
        data = wds.WebDataset(paths, shardshuffle=200, seed=0).slice(first * BATCH, 10**9)
        data = data.shuffle(1000).decode("pil").to_tuple("jpg").map_tuple(transform).batched(BATCH)
        (images,) = next(iter(data))
        return len(images)

    return make


if __name__ == "__main__":
    main(Path(sys.argv[1]))

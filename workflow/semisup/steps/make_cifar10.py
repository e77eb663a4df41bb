"""CIFAR-10 as WebDataset tars: a few labels, the rest unlabelled with clutter, the test images."""

import fcntl
import io
import logging
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semisup import tars
from semisup.datasets import CIFAR10
from semisup.settings import MakeCifar10
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger(__name__)

SOURCE = Path("../shared/data")
TRAIN = "cifar10/cifar10-train.tar.xz"
TEST = "cifar10/cifar10-test.tar.xz"
CLUTTER = "tinyimagenet20/tinyimagenet20-unlabeled-other-classes.tar.xz"
NUM_TRAIN = 50_000
NUM_CLASSES = len(CIFAR10.classes)


class Sample(NamedTuple):
    """A sample of a tar: its key, the content of its members by extension, its class."""

    key: str
    members: dict[str, bytes]
    label: int


class Source(NamedTuple):
    train: list[Sample]
    test: list[Sample]
    clutter: list[Sample]


def main(settings: MakeCifar10, output: Path) -> None:
    """Write CIFAR-10 with NUM_LABELS labels as tars into the folder OUTPUT."""
    check_num_labels(settings.num_labels)
    if (SOURCE / TRAIN).is_file():
        source = read_source(SOURCE)
    else:
        cache = output.with_name("cifar10-download")
        log.warning("no %s: downloading CIFAR-10 to %s; no clutter", SOURCE / TRAIN, cache)
        source = download(cache)
    for split, samples in make_splits(source, settings).items():
        num_shards = CIFAR10.num_shards[split]
        for number, chosen in enumerate(np.array_split(np.arange(len(samples)), num_shards)):
            path = output / f"{split}-{number:05d}.tar"
            tars.write_tar(path, ((samples[i].key, samples[i].members) for i in chosen))
        clutter = sum(sample.label < 0 for sample in samples)
        log.info("%s: %d tars, %d images, %d clutter", split, num_shards, len(samples), clutter)


def check_num_labels(num_labels: int) -> None:
    """Raises DataError unless as many images of each class can be labelled."""
    if num_labels % NUM_CLASSES or not 0 < num_labels <= NUM_TRAIN:
        raise DataError(
            f"cifar10-{num_labels}: the number of labels must be a multiple of {NUM_CLASSES}, as "
            f"classes are balanced, and at most {NUM_TRAIN:,}; cifar10-4000 would do."
        )


def make_splits(source: Source, settings: MakeCifar10) -> dict[str, list[Sample]]:
    """The samples of each split, in order."""
    rng = np.random.default_rng(settings.seed)
    labels = np.array([sample.label for sample in source.train])
    labeled = choose_balanced(labels, settings.num_labels // NUM_CLASSES, rng)
    rest = np.setdiff1d(np.arange(len(labels)), labeled)
    unlabeled = [source.train[i] for i in rest] + source.clutter
    return {
        "labeled": [source.train[i] for i in labeled],
        "test": source.test,
        "unlabeled": [unlabeled[i] for i in rng.permutation(len(unlabeled))],
    }


def choose_balanced(
    labels: NDArray[np.int64], per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of ``per_class`` images of each class, shuffled."""
    chosen = []
    for class_id in range(NUM_CLASSES):
        positions = np.flatnonzero(labels == class_id)
        if len(positions) < per_class:
            raise DataError(
                f"only {len(positions)} training images of class {CIFAR10.classes[class_id]}, "
                f"{per_class} wanted; ask for at most {len(positions) * NUM_CLASSES} labels."
            )
        chosen.append(rng.choice(positions, per_class, replace=False))
    return rng.permutation(np.concatenate(chosen))


def read_source(folder: Path) -> Source:
    """The compressed tars below ``folder``, image bytes as they are."""
    return Source(*(read_tar(folder / name) for name in (TRAIN, TEST, CLUTTER)))


def read_tar(path: Path) -> list[Sample]:
    """The samples of a tar whose members are KEY.jpg and KEY.cls, in order."""
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, "r|xz") as tar:
            for info in tar:
                key, _, extension = info.name.rpartition(".")
                content = tar.extractfile(info)
                assert content is not None, info.name
                samples.setdefault(key, {})[extension] = content.read()
        return [Sample(key, files, int(files["cls"])) for key, files in samples.items()]
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore this file.") from error


def download(cache: Path) -> Source:
    """CIFAR-10 by torchvision, as PNG; without clutter."""
    from torchvision.datasets import CIFAR10 as Torchvision

    cache.mkdir(parents=True, exist_ok=True)
    try:
        with open(cache / ".lock", "w") as lock:  # sets of other sizes may be made at this moment
            fcntl.flock(lock, fcntl.LOCK_EX)
            splits = {
                split: Torchvision(str(cache), train=split == "train", download=True)
                for split in ("train", "test")
            }
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{SOURCE / TRAIN} does not exist and CIFAR-10 cannot be downloaded ({error}). Connect "
            "to the network, or put cifar-10-python.tar.gz from "
            f"https://www.cs.toronto.edu/~kriz/cifar.html into {cache}."
        ) from error
    encoded = {
        split: [
            _encode(f"cifar10-{split}-{i:05d}", image, label)
            for i, (image, label) in enumerate(pictures)
        ]
        for split, pictures in splits.items()
    }
    return Source(encoded["train"], encoded["test"], [])


def _encode(key: str, image: Image.Image, label: int) -> Sample:
    image.save(buffer := io.BytesIO(), "PNG")
    return Sample(key, {"png": buffer.getvalue(), "cls": str(label).encode()}, label)


if __name__ == "__main__":
    run(main)

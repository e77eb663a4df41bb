"""What a dataset of the configuration is made of: its shards, its parts, its class names.

Everything here is arithmetic on names and a look at the file system; no tar is opened, so that
the whole pipeline can be laid out before any job runs.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import braceexpand

from semisup.config import Dataset


class Builtin(NamedTuple):
    """A set made by the pipeline itself: shards of each split, class names."""

    num_shards: dict[str, int]
    classes: list[str]


CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]  # in the order of the class ids
DIGITS = Builtin(
    num_shards={"labeled": 1, "validation": 1, "test": 1, "unlabeled": 10},
    classes=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)
CIFAR10 = Builtin(
    num_shards={"labeled": 1, "test": 2, "unlabeled": 16},
    classes=CIFAR10_CLASSES,
)


def find_builtin(name: str) -> tuple[str, str, Builtin]:
    """Split ``digits/test`` or ``cifar10-4000/test`` into set, split and description.

    Raises ValueError naming what exists.
    """
    match = re.fullmatch(r"(digits|cifar10-[1-9]\d{0,4})/([a-z]+)", name)
    if not match:
        raise ValueError("no such set; there are digits/SPLIT and cifar10-N/SPLIT (N labels)")
    builtin = DIGITS if match[1] == "digits" else CIFAR10
    if match[2] not in builtin.num_shards:
        raise ValueError(f"no such split; there are {', '.join(builtin.num_shards)}")
    return match[1], match[2], builtin


def list_shards(dataset: Dataset, name: str, results: str) -> list[str]:
    """Paths of the tars of a dataset, in the order that defines ``shard_id``."""
    if dataset.builtin:
        source, split, builtin = find_builtin(dataset.builtin)
        return [
            f"{results}/datasets/builtin/{source}/{split}-{i:05d}.tar"
            for i in range(builtin.num_shards[split])
        ]
    if dataset.folder:
        return [f"{results}/datasets/{name}/tars/{i:05d}.tar" for i in range(dataset.num_shards)]
    patterns = [dataset.shards] if isinstance(dataset.shards, str) else dataset.shards or []
    return [path for pattern in patterns for path in braceexpand.braceexpand(pattern)]


def missing_files(paths: list[str]) -> list[str]:
    """The paths that are not files, with one directory listing per folder (100,000 shards: 0.2 s)."""
    present: dict[str, set[str]] = {}
    for folder in {os.path.dirname(path) for path in paths}:
        try:
            with os.scandir(folder or ".") as entries:
                present[folder] = {entry.name for entry in entries if entry.is_file()}
        except OSError:
            present[folder] = set()
    return [path for path in paths if os.path.basename(path) not in present[os.path.dirname(path)]]


def list_parts(num_shards: int, shards_per_part: int) -> list[range]:
    """The shards of each part: runs of consecutive shard ids."""
    return [
        range(start, min(start + shards_per_part, num_shards))
        for start in range(0, num_shards, shards_per_part)
    ]


def list_classes(classes: int | list[str] | str) -> list[str]:
    """Class names from their number, a list, or a file with one name a line.

    Raises ValueError on an empty list or a name that stands twice, OSError without the file.
    """
    if isinstance(classes, int):
        names = [str(i) for i in range(classes)]
    elif isinstance(classes, list):
        names = classes
    else:
        names = Path(classes).read_text(encoding="utf-8").splitlines()
    if not names:
        raise ValueError("no class at all; give at least one name")
    if repeated := sorted({name for name in names if names.count(name) > 1})[:3]:
        raise ValueError(f"class names must differ; these stand twice: {', '.join(repeated)}")
    return names


def dataset_classes(dataset: Dataset) -> list[str]:
    """Class names of a labelled dataset, in the order of the class ids.

    Raises ValueError where the configuration does not give them.
    """
    if dataset.classes is not None:
        return list_classes(dataset.classes)
    if dataset.builtin:
        return find_builtin(dataset.builtin)[2].classes
    if dataset.folder:
        folders = sorted(entry.name for entry in os.scandir(dataset.folder) if entry.is_dir())
        if not folders:
            raise ValueError(f"{dataset.folder} has no sub-folder; there must be one per class")
        return folders
    raise ValueError("class names are missing: add `classes:` (a list, a file, or their number)")


def stamp_files(paths: list[str]) -> str:
    """A digest of names, sizes and modification times: changes when a file may have changed."""
    digest = hashlib.sha256()
    for path in paths:
        stat = os.stat(path)
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def stamp_folder(folder: str) -> str:
    """A digest of the folders below: changes when a file in them is added, renamed or removed."""
    return stamp_files(sorted(path for path, _, _ in os.walk(folder)))

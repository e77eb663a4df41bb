"""What a dataset of the configuration is made of: its shards, its parts, its class names.

Everything here is arithmetic on names and a look at the file system; no tar is opened, so that
the whole pipeline can be laid out before any job runs.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import braceexpand

from semisup.config import Dataset

MAX_SHARDS = 1_000_000
SHARDS_PER_PART, MAX_PARTS = 200, 256
MAX_NESTED_BRACES = 10

MAX_CLASSES = 2**15
"""Class ids are stored in 16 bits."""

MAX_NAMES = 100_000
"""Bytes of all class names, as a command hands them over."""

MAX_CIFAR10_LABELS = 50_000


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
    match = re.fullmatch(r"(digits|cifar10-([1-9]\d{0,3}0))/([a-z]+)", name)
    if not match or int(match[2] or 0) > MAX_CIFAR10_LABELS:
        raise ValueError(
            "is no built-in set; there are digits/SPLIT and cifar10-N/SPLIT, N labels: "
            f"a multiple of 10 up to {MAX_CIFAR10_LABELS:,}"
        )
    source, _, split = match.groups()
    builtin = DIGITS if source == "digits" else CIFAR10
    if split not in builtin.num_shards:
        raise ValueError(f"has no split of that name; there are {', '.join(builtin.num_shards)}")
    return source, split, builtin


def list_shards(dataset: Dataset, name: str, results: str) -> list[str]:
    """Paths of the tars of a dataset, in the order that defines ``shard_id``.

    Raises ValueError where the configuration does not give them.
    """
    if dataset.builtin is not None:
        source, split, builtin = find_builtin(dataset.builtin)
        return [
            f"{results}/datasets/builtin/{source}/{split}-{i:05d}.tar"
            for i in range(builtin.num_shards[split])
        ]
    if dataset.folder is not None:
        return [f"{results}/datasets/{name}/tars/{i:05d}.tar" for i in range(dataset.num_shards)]
    patterns = [dataset.shards] if isinstance(dataset.shards, str) else dataset.shards or []
    if not 0 < sum(map(count_paths, patterns)) <= MAX_SHARDS:
        raise ValueError(f"must name 1 to {MAX_SHARDS:,} files; correct the pattern")
    return [path for pattern in patterns for path in _expand(pattern)]


@functools.cache  # checks and plan ask for the same
def _expand(pattern: str) -> tuple[str, ...]:
    return tuple(braceexpand.braceexpand(pattern))


def count_paths(pattern: str) -> int:
    """How many paths brace notation stands for, found without making them: `{0..999999999}`.

    Raises ValueError when braces do not match. Counts no further than one more than MAX_SHARDS.
    """
    text = re.sub(r"\\.|\0", "_", pattern, flags=re.DOTALL)  # an escaped brace is a character
    for _ in range(MAX_NESTED_BRACES):  # from the inside out, each pair becomes its number
        text = re.sub(r"\{([^{}]*)\}", lambda braces: f"\0{_count_choices(braces[1])}\0", text)
    if "{" in text or "}" in text:
        raise ValueError("has braces that do not match or are nested too deep; correct them")
    return _count_product(text)


def _count_choices(inside: str) -> int:
    if match := re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?", inside):
        first, last = int(match[1]), int(match[2])
    elif match := re.fullmatch(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?", inside):
        first, last = map(braceexpand.alphabet.index, match.group(1, 2))
    else:
        return sum(map(_count_product, inside.split(",")))
    return min(abs(last - first) // max(int(match[3] or 1), 1), MAX_SHARDS) + 1


def _count_product(text: str) -> int:
    choices = (int(number) for number in re.findall(r"\0(\d+)\0", text))
    return min(math.prod(choices), MAX_SHARDS + 1)


def real_paths(paths: list[str]) -> list[str]:
    """Where each path leads, "" where to no file: one directory listing for each folder.

    Links in a folder are followed one by one, the folders' own only once.
    """
    files: dict[str, dict[str, str]] = {}
    found = []
    for path in paths:
        before, slash, name = path.rpartition("/")
        folder = before or slash or "."
        if folder not in files:
            files[folder] = dict(_list_files(folder))
        found.append(files[folder].get(name, ""))
    return found


def _list_files(folder: str) -> Iterator[tuple[str, str]]:
    """The name of each file, and where it really is."""
    try:
        real = os.path.realpath(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # a link in a circle
                    if entry.is_file():
                        path = os.path.join(real, entry.name)
                        yield entry.name, os.path.realpath(path) if entry.is_symlink() else path
    except (OSError, ValueError):  # ValueError: no path at all, it holds a null byte
        return


def list_parts(num_shards: int, shards_per_part: int) -> list[range]:
    """The shards of each part: runs of consecutive shard ids."""
    return [
        range(start, min(start + shards_per_part, num_shards))
        for start in range(0, num_shards, shards_per_part)
    ]


def default_shards_per_part(num_shards: int) -> int:
    """SHARDS_PER_PART, doubled while there would be more than MAX_PARTS.

    So that parts are others at two sizes of U between 50,000 and 200,000 tars, not at each new tar.
    """
    per_part = SHARDS_PER_PART
    while num_shards > MAX_PARTS * per_part:
        per_part *= 2
    return per_part


def list_classes(classes: int | list[str] | str) -> list[str]:
    """Class names from their number, a list, or a file with one name a line.

    Raises ValueError when they cannot be read, are none or too many, or cannot be told apart.
    """
    if isinstance(classes, int):
        names = list(map(str, range(min(classes, MAX_CLASSES + 1))))
    elif isinstance(classes, list):
        names = classes
    else:
        names = _read_lines(classes)
    if not 0 < len(names) <= MAX_CLASSES:
        found = "no class at all" if not names else f"more than {MAX_CLASSES:,} classes"
        raise ValueError(f"{found}; give 1 to {MAX_CLASSES:,}")
    if wrong := [name for name in names if not _is_line(name)][:3]:
        raise ValueError(f"{wrong} cannot be class names; each must be one line of text")
    if repeated := [name for name, count in Counter(names).items() if count > 1][:3]:
        raise ValueError(f"class names must differ; these stand twice: {', '.join(repeated)}")
    if len(json.dumps(names)) > MAX_NAMES and not isinstance(classes, int):
        raise ValueError(
            f"the names of {len(names):,} classes take more than the {MAX_NAMES:,} bytes that fit into "
            "a command; shorten them, or give just the number of the classes"
        )
    return names


def class_difference(classes: list[str], others: list[str]) -> str:
    """How class names differ, in words; nothing when they do not."""
    if len(classes) != len(others):
        return f"{len(classes)}, not {len(others)}"
    pairs = enumerate(zip(classes, others, strict=True))
    return next((f"class {i} is {a!r}, not {b!r}" for i, (a, b) in pairs if a != b), "")


def _is_line(name: str) -> bool:
    """Whether it can stand on a line of a text file: class names are handed over like that."""
    return name.encode(errors="ignore").decode().splitlines() == [name]


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise ValueError(f"{path!r} is not a text file in UTF-8 ({error}); mend it") from None


def dataset_classes(dataset: Dataset) -> list[str]:
    """Class names of a labelled dataset, in the order of the class ids.

    Raises ValueError where the configuration does not give them.
    """
    if dataset.classes is not None:
        return list_classes(dataset.classes)
    if dataset.builtin is not None:
        return find_builtin(dataset.builtin)[2].classes
    if dataset.folder is not None:
        with os.scandir(dataset.folder) as entries:
            folders = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
        if not folders:
            raise ValueError(f"{dataset.folder!r} has no sub-folder; there must be one per class")
        return list_classes(sorted(folders))
    raise ValueError("missing; add the class names: a list, a file, or just their number")


def stamp_files(paths: list[str]) -> str:
    """A digest of names, sizes and modification times: changes when a file may have changed."""
    digest = hashlib.sha256()
    for path in paths:
        stat = os.stat(path)
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def stamp_folder(folder: str) -> str:
    """A digest of the folders below: changes when a file in them is added, renamed or removed.

    Links to folders are followed, as when the folder is packed, but not around in circles.
    """
    below, seen = [], set()
    for path, folders, _ in os.walk(folder, followlinks=True):
        below.append(path)
        if (real := os.path.realpath(path)) in seen:
            folders.clear()
        seen.add(real)
    return stamp_files(sorted(below))

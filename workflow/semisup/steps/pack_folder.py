"""A folder of images as WebDataset tars; image bytes are copied, never re-encoded."""

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semisup import tars
from semisup.settings import PackFolder
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger(__name__)

SHUFFLE_SEED = 0
IMAGE_RULE = f"An image is a file that ends in .{', .'.join(sorted(tars.IMAGE_EXTENSIONS))}."


class Entry(NamedTuple):
    """An image to pack: where it is, its path below the packed folder, its class."""

    file: Path
    relative: str
    class_id: int | None


def main(settings: PackFolder, output: Path) -> None:
    """Pack the images of a folder into the tars of the new folder OUTPUT."""
    entries = find_images(Path(settings.folder), settings.classes)
    keys = unique_keys([entry.relative for entry in entries])
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(entries))
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for number, chosen in enumerate(np.array_split(order, settings.num_shards)):
            samples = ((keys[i], read_members(entries[i])) for i in chosen)
            tars.write_tar(temporary / f"{number:05d}.tar", samples)
        shutil.rmtree(output, ignore_errors=True)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%s: %d images in %d tars", settings.folder, len(entries), settings.num_shards)


def find_images(folder: Path, classes: list[str] | None) -> list[Entry]:
    """The images below ``folder``, in the order of the bytes of their relative paths.

    With ``classes``, those below the sub-folder of each class. What is left out is logged.
    Raises DataError when there is none, in all or of a class, or when something cannot be read.
    """
    names = {path.name for path in _list(folder)}
    if classes is None:
        entries, others = _sort_out(folder, folder, None)
    else:
        _log_left_out(folder, "not in the folder of a class", sorted(names.difference(classes)))
        entries, others = [], []
        for class_id, name in enumerate(classes):
            if name not in names or not (folder / name).is_dir():
                raise DataError(
                    f"{folder}: no sub-folder for class {name!r}. Put the images of the class "
                    f"into {folder}/{name}, or leave the class out of `classes`."
                )
            images, more = _sort_out(folder, folder / name, class_id)
            if not images:
                raise DataError(f"{folder / name}: no image of this class. {IMAGE_RULE}")
            entries += images
            others += more
    if not entries:
        raise DataError(f"{folder}: no image in this folder. {IMAGE_RULE}")
    _log_left_out(folder, "not images", others)
    return sorted(entries, key=lambda entry: os.fsencode(entry.relative))


def _log_left_out(folder: Path, why: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        log.warning("%s: %d left out, %s: %s", folder, len(names), why, shown)


def _sort_out(folder: Path, start: Path, class_id: int | None) -> tuple[list[Entry], list[str]]:
    """The images below ``start``, and the other files; paths relative to ``folder``."""
    images, others = [], []
    for file in _walk(start, frozenset()):
        relative = os.fspath(file.relative_to(folder))
        if _extension(relative) in tars.IMAGE_EXTENSIONS and file.is_file():
            images.append(Entry(file, relative, class_id))
        else:
            others.append(relative)
    return images, others


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Everything below that is not a folder; links are followed."""
    real = folder.resolve()
    if real in above:
        raise DataError(f"{folder}: this link leads back to a folder that holds it; remove it.")
    for path in _list(folder):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            what = f"a broken link to {path.readlink()}" if path.is_symlink() else "cannot be read"
            raise DataError(f"{path}: {what} ({error.strerror}); mend or remove it.") from error
        if stat.S_ISDIR(mode):
            yield from _walk(path, above | {real})
        else:
            yield path


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}).") from error


def unique_keys(relatives: Iterable[str]) -> list[str]:
    """A WebDataset key for each relative path, all different.

    The path without its suffix, dots replaced, as a key ends at the first dot; a number is added
    where several paths would have the same.
    """
    taken: set[str] = set()
    keys = []
    for relative in relatives:
        stem = os.fsencode(relative.removesuffix(Path(relative).suffix)).decode("utf-8", "replace")
        # The webdataset library skips what begins with a folder named like __this__.
        key = base = re.sub(r"^_{2,}", "_", stem.replace(".", "_"))
        number = 1
        while key in taken:
            number += 1
            key = f"{base}-{number}"
        taken.add(key)
        keys.append(key)
    return keys


def read_members(entry: Entry) -> dict[str, bytes]:
    """The contents of the members of a sample, by extension."""
    try:
        content = entry.file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{entry.file}: cannot be read ({error.strerror}). Make it readable or remove it."
        ) from error
    members = {_extension(entry.relative): content}
    if entry.class_id is not None:
        members["cls"] = str(entry.class_id).encode()
    return members


def _extension(path: str) -> str:
    return Path(path).suffix[1:].lower()


if __name__ == "__main__":
    run(main)

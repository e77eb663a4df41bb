"""What entered and left each class since a selection was last made.

For people: it depends on what was there before, so nothing is made of it but a line of the report.
"""

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from semisup import schemas, tables
from semisup.tables import DataError

log = logging.getLogger("semisup")

MAX_CLASSES = 20


class ClassChanges(NamedTuple):
    class_name: str
    entered: int
    left: int


def record_changes(selection: Path) -> None:
    """Write changes.parquet beside a new selection if it differs from the last, which is kept."""
    last, path = selection.with_name("last.parquet"), selection.with_name("changes.parquet")
    try:
        if last.exists() and tables.file_sha256(last) != tables.file_sha256(selection):
            changes = find_changes(last, selection)
            columns = {name: changes[name] for name in schemas.CHANGES.names}
            tables.write_table(path, columns, schemas.CHANGES)
            log.info("since the selection before:%s", _describe(changes))
    except DataError as error:
        log.warning("not compared with the selection before: %s", error)
        path.unlink(missing_ok=True)  # it would tell of another change
    last.unlink(missing_ok=True)
    try:
        os.link(selection, last)
    except OSError:  # a file system without links
        shutil.copyfile(selection, last)


def read_changes(selection: Path) -> list[ClassChanges] | None:
    """The classes in which something changed, most first; None: there was no other selection before."""
    path = selection.with_name("changes.parquet")
    if not path.exists():
        return None
    try:
        return _by_class(tables.read_table(path, schemas.CHANGES))
    except DataError as error:  # no reason to have no report
        log.warning("not told what has changed: %s", error)
        return None


def find_changes(before: Path, after: Path) -> pa.Table:
    """The rows of CHANGES. An image is the same where its bytes are, wherever it lies in U.

    Of bytes that a class has several times, the last rows are those that are more than before.
    """
    left, entered = _only_in(before, after), _only_in(after, before)
    rows = [
        tables.read_rows(path, schemas.SELECTION, rows).append_column(
            "change", pa.array([change] * len(rows), pa.string())
        )
        for path, change, rows in ((after, "entered", entered), (before, "left", left))
    ]
    order = [(name, "ascending") for name in ("class_id", "change", "class_rank")]
    return pa.concat_tables(rows).unify_dictionaries().sort_by(order)


def _only_in(path: Path, other: Path) -> np.ndarray:
    """Rows of a selection whose image the other one has not, or less often, in the same class."""
    own, theirs = _hashes_by_class(path), _hashes_by_class(other)
    none = np.empty(0, "S16")
    found, start = [np.empty(0, np.int64)], 0
    for class_id, hashes in enumerate(own):
        there = np.sort(theirs[class_id] if class_id < len(theirs) else none)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        times_before = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        first, end = (np.searchsorted(there, ordered, side) for side in ("left", "right"))
        found.append(start + np.sort(order[times_before >= end - first]))
        start += len(hashes)
    return np.concatenate(found)


def _hashes_by_class(path: Path) -> list[np.ndarray]:
    table = tables.read_table(path, schemas.SELECTION, ["class_id", "content_hash"])
    hashes = tables.fixed_binary(table["content_hash"]).view("S16")
    return np.split(hashes, np.cumsum(np.bincount(table["class_id"], minlength=1))[:-1])


def _by_class(changes: pa.Table) -> list[ClassChanges]:
    names, kinds = changes["class_name"].to_pylist(), changes["change"].to_pylist()
    counts = Counter(zip(names, kinds, strict=True))
    found = [
        ClassChanges(name, counts[name, "entered"], counts[name, "left"])
        for name in dict.fromkeys(names)
    ]
    return sorted(found, key=lambda each: -each.entered - each.left)


def _describe(changes: pa.Table) -> str:
    classes = _by_class(changes)
    lines = [f"\n  {name}: {entered} entered, {left} left" for name, entered, left in classes]
    more = len(lines) - MAX_CLASSES
    return "".join(lines[:MAX_CLASSES]) + (f"\n  and {more} more classes" if more > 0 else "")

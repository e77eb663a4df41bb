"""What passes made of single tars: files named by what the tars hold, whatever their place in U.

A tar put before the others moves all of them by one: each is found again, in whatever part it now is.
What was made of a tar is rows of its own until its part is written. From then on it is a mark, an empty
file that names a part and a place there. The tables of a part are written under a name that says what
they hold, which no writer of something else shares; the name the rules know is a second one, a link, which
takes no room, and either may go before the other.
"""

import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from semisup import tables

log = logging.getLogger("semisup")

MARK = re.compile(r"(\w{32}-\w{32})-(\w{32})-(\d+)")


class Mark(NamedTuple):
    """Where what was made of a tar is: in which part, there under which shard id; ``commit``: its rows."""

    path: Path
    commit: Path
    part: str
    shard_id: int

    def tables(self) -> tuple[Path, Path]:
        return part_tables(self.path.parents[1], self.part)


def part_name(paths: dict[int, Path]) -> str:
    """Of a part with these tars: ``paths``, by shard id, of their commits."""
    return _digest(repr(sorted((shard_id, path.name) for shard_id, path in paths.items())))


def part_tables(work: Path, part: str) -> tuple[Path, Path]:
    """Its scores and its images."""
    return work / "parts" / f"{part}.scores.parquet", work / "parts" / f"{part}.images.parquet"


def commit_path(work: Path, sha256: str, with_what: str) -> Path:
    """Of a tar with this digest: in one of 256 folders, as there may be a hundred thousand."""
    return work / sha256[:2] / f"{sha256[:32]}-{_digest(with_what)}.parquet"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def publish(table: Path, path: Path) -> None:
    """Give a table the name the rules know; where that cannot be a link, it is a copy."""
    with tables.atomic_path(path) as temporary:
        temporary.unlink()
        try:
            os.link(table, temporary)
        except OSError as error:
            log.info("%s: %s; until all is counted there is a copy", table, error.strerror)
            shutil.copyfile(table, temporary)


def mark_part(part: str, paths: dict[int, Path]) -> list[Mark]:
    """Mark all tars of a part as being in its tables: ``paths``, by shard id, of their commits."""
    marks = [
        Mark(path.with_name(f"{path.stem}-{part}-{shard_id}"), path, part, shard_id)
        for shard_id, path in paths.items()
    ]
    for mark in marks:
        mark.path.parent.mkdir(parents=True, exist_ok=True)
        mark.path.touch()
    return marks


def find_marks(path: Path) -> list[Mark]:
    """Of what is committed to ``path``, those whose part still has its tables."""
    marks = _marks(path.parent.glob(f"{path.stem}-*"))
    return [mark for mark in marks if all(table.exists() for table in mark.tables())]


def _marks(paths: Iterable[Path]) -> list[Mark]:
    found = ((path, MARK.fullmatch(path.name)) for path in paths)
    return [
        Mark(path, path.with_name(f"{match[1]}.parquet"), match[2], int(match[3]))
        for path, match in found
        if match
    ]


def remove_others(paths: Iterable[Path], marks: list[Mark]) -> None:
    """Remove what was made of these tars with something else, and what its writers left half written."""
    keep = {*paths, *(mark.path for mark in marks)}
    for path in set(paths):
        of_tar = path.name.split("-")[0]
        for other in path.parent.glob(f"{of_tar}-*"):
            if other not in keep:
                other.unlink(missing_ok=True)
        for temporary in path.parent.glob(f".{of_tar}-*.tmp"):
            tables.remove_if_abandoned(temporary)


def remove_unused(work: Path, sha256s: Iterable[str], in_use: Iterable[Path]) -> None:
    """Remove tables that are not (links to) those ``in_use``, what was made of other tars than those with
    these digests, which have left U, and rows that are in the tables of a part.

    No part may be at work: it might be about to read them.
    """
    used, current = {sha256[:32] for sha256 in sha256s}, set(map(_file, in_use))
    for path in (work / "parts").glob("*"):
        if _file(path) not in current:
            path.unlink()
    linked = Counter(path.name.split(".")[0] for path in (work / "parts").glob("*"))
    for folder in work.glob("??/"):
        paths = set(folder.iterdir())
        gone = {path for path in paths if path.name.lstrip(".").split("-")[0] not in used}
        for mark in _marks(paths - gone):
            gone.add(mark.commit if linked[mark.part] == 2 else mark.path)
        for path in gone:
            path.unlink(missing_ok=True)


def _file(path: Path) -> tuple[int, int]:
    """The same for all names of a file."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino

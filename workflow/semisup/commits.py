"""What passes made of single tars: files named by what the tars hold, whatever their place in U.

A tar put before the others moves all of them by one: each is found again, in whatever part it now is.
What was made of a tar is rows of its own until its part is written. From then on it is links to the
tables of the part, which take no room.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from semisup import tables

KINDS = "scores", "images"
LINK = re.compile(r"(\w{32}-\w{32})-(\w{32})-(\d+)\.(scores|images)\.parquet")


class Linked(NamedTuple):
    """The tables of a part that a tar was written to. ``part``: a digest; ``shard_id``: in the tables."""

    part: str
    shard_id: int
    scores: Path
    images: Path


def commit_path(work: Path, sha256: str, with_what: str) -> Path:
    """Of a tar with this digest: in one of 256 folders, as there may be a hundred thousand."""
    return work / sha256[:2] / f"{sha256[:32]}-{_digest(with_what)}.parquet"


def part_digest(sha256s: dict[int, str]) -> str:
    """Of the tars of a part, by shard id."""
    return _digest(repr(sorted(sha256s.items())))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def link(path: Path, part: str, shard_id: int, scores: Path, images: Path) -> Linked:
    """Link what is committed to ``path`` to the tables it was written to.

    Raises OSError where the file system has no links, or not as many.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{path.stem}-{part}-{shard_id}"
    linked = Linked(part, shard_id, *(path.with_name(f"{name}.{k}.parquet") for k in KINDS))
    for table, place in ((scores, linked.scores), (images, linked.images)):
        place.unlink(missing_ok=True)
        os.link(table, place)
    return linked


def find_links(path: Path) -> list[Linked]:
    """Whatever tables that what is committed to ``path`` was written to."""
    return _links(path.parent.glob(f"{path.stem}-*")).get(path, [])


def _links(paths: Iterable[Path]) -> dict[Path, list[Linked]]:
    """Those of which both tables are there, by the path they stand for."""
    found: dict[tuple[Path, str, str], dict[str, Path]] = defaultdict(dict)
    for path in paths:
        if match := LINK.fullmatch(path.name):
            stem, part, shard_id, kind = match.groups()
            found[path.with_name(f"{stem}.parquet"), part, shard_id][kind] = path
    links = defaultdict(list)
    for (commit, part, shard_id), of_kind in found.items():
        if len(of_kind) == len(KINDS):
            links[commit].append(Linked(part, int(shard_id), *(of_kind[kind] for kind in KINDS)))
    return links


def remove_others(paths: Iterable[Path], linked: list[Linked]) -> None:
    """Remove what was made of these tars with something else, and what its writers left half written."""
    keep = {*paths} | {path for each in linked for path in (each.scores, each.images)}
    for path in set(paths):
        of_tar = path.name.split("-")[0]
        for other in path.parent.glob(f"{of_tar}-*"):
            if other not in keep:
                other.unlink(missing_ok=True)
        for temporary in path.parent.glob(f".{of_tar}-*.tmp"):
            tables.remove_if_abandoned(temporary)


def remove_unused(work: Path, sha256s: Iterable[str]) -> None:
    """Remove what was made of other tars than those with these digests, which have left U, and rows
    that are in the tables of a part. No part may be at work: it might be about to read them.
    """
    used = {sha256[:32] for sha256 in sha256s}
    for folder in work.glob("*/"):
        paths = set(folder.iterdir())
        unused = {path for path in paths if path.name.lstrip(".").split("-")[0] not in used}
        for path in unused | (paths & _links(paths - unused).keys()):
            path.unlink(missing_ok=True)

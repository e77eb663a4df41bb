"""Whether source tars have changed since they were indexed: by name, size and time; where only the
times differ (a touch, a copied folder), by content."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from semisup.datasets import stamp_files

MAX_HASHED_BYTES = 2**35
"""What a plan may hash, in all: half a minute. A job hashes the rest."""


class Seen(NamedTuple):
    """A tar as it was indexed."""

    size_bytes: int
    modified_ns: int
    sha256: str


def record_path(manifest: Path) -> Path:
    """The record that stands beside the manifest of a part."""
    return manifest.with_name(manifest.name.replace("manifest-", "stamp-"))


def write_record(path: Path, stamp: str, sha256: dict[str, str]) -> None:
    """Remember what the tars of a part held under this stamp; no stage depends on the file.

    Nothing is written where a tar was modified after the stamp was made.
    """
    stats = {name: os.stat(name) for name in sha256}
    if stamp_files(list(sha256)) == stamp:
        _write(
            path, stamp, {n: Seen(s.st_size, s.st_mtime_ns, sha256[n]) for n, s in stats.items()}
        )


class Watch:
    """Makes the stamps of a plan."""

    def __init__(self, max_hashed_bytes: int = MAX_HASHED_BYTES) -> None:
        self.budget = max_hashed_bytes

    def stamp(self, paths: list[str], record: Path) -> str:
        """That of the record where the tars still hold what they held, else a new one."""
        now = stamp_files(paths)
        stamp, seen = _read(record)
        if now == stamp or set(paths) != seen.keys():
            return now
        fresh = {}
        for path in paths:
            stat = os.stat(path)
            fresh[path] = seen[path]._replace(modified_ns=stat.st_mtime_ns)
            if stat.st_size != seen[path].size_bytes:
                return now
            if fresh[path] != seen[path]:
                self.budget -= stat.st_size
                if self.budget < 0 or _sha256(path) != seen[path].sha256:
                    return now
        if fresh != seen:
            with contextlib.suppress(OSError):  # results may be read-only: hash again next time
                _write(record, stamp, fresh)
        return stamp


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, stamp: str, seen: dict[str, Seen]) -> None:
    """Whole or not at all, without the modules of :mod:`tables`: every job makes a plan."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"stamp": stamp, "tars": seen}, indent=1) + "\n")
    os.replace(temporary, path)


def _read(path: Path) -> tuple[str, dict[str, Seen]]:
    try:
        content = json.loads(path.read_text())
        return content["stamp"], {name: Seen(*seen) for name, seen in content["tars"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}  # a file of no importance

"""The samples of a dataset by index: what they are, where they lie, their bytes."""

import contextlib
import errno
import functools
import hashlib
import os
import resource
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from semisup import images, schemas, tables, tars
from semisup.retries import retry
from semisup.tables import DataError

MAX_OPEN_TARS = 4096
"""That one process holds open: a training draws from all its tars all the time, and on a file system of
many machines opening a tar takes as long as reading an image."""


class Samples(NamedTuple):
    """The samples of a dataset, all parts together, by identity. ``max_pixels``: of an image."""

    dataset: str
    table: pa.Table
    shard_paths: dict[int, str]
    max_pixels: int

    def read(self, row: int) -> bytes:
        """The image bytes of a row; raises ImageError when the tar no longer holds them."""
        offset, size = self.table["offset"][row].as_py(), self.table["size_bytes"][row].as_py()
        return read_range(self.shard_paths[self.table["shard_id"][row].as_py()], offset, size)


@functools.lru_cache(maxsize=MAX_OPEN_TARS)
def _open(path: str, process: int) -> "_File":
    try:
        return _File(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        _make_room()
        return _File(path)


def _make_room() -> None:
    """For more open files: as many as the system allows, else by closing all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 2 * MAX_OPEN_TARS) if hard != resource.RLIM_INFINITY else 2 * MAX_OPEN_TARS
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    else:
        _open.cache_clear()


class _File:
    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def read_range(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a tar from ``offset``; raises ImageError with kind ``read_error``."""

    def read() -> bytes:
        file = _open(path, os.getpid())  # held: another thread's tar may take its place
        try:
            return os.pread(file.descriptor, size, offset)
        except OSError:
            _open.cache_clear()  # the next try opens it anew
            raise

    try:
        content = retry(read, path)
    except OSError as error:
        raise images.ImageError(tars.READ_ERROR, f"{path}: {error.strerror}") from None
    if len(content) != size:
        raise images.ImageError(tars.READ_ERROR, f"{path} ends before byte {offset + size}")
    return content


def read_indexed(path: str, offset: int, size: int, content_hash: bytes) -> bytes:
    """What :func:`read_range` reads, if it is what was indexed; else ImageError, ``read_error`` too."""
    content = read_range(path, offset, size)
    if tars.content_hash(content) != content_hash:
        raise images.ImageError(
            tars.READ_ERROR,
            f"{path}: the tar has changed since it was indexed; run again to index it anew",
        )
    return content


def will_read(path: str, offset: int, size: int) -> None:
    """Tell the kernel what :func:`read_range` is going to read."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # the read will say what is wrong
            file = _open(path, os.getpid())
            os.posix_fadvise(file.descriptor, offset, size, os.POSIX_FADV_WILLNEED)


def samples_path(manifest: Path) -> Path:
    """The samples table that stands beside a manifest."""
    name = manifest.name.replace("manifest-", "samples-").removesuffix(".json")
    return manifest.with_name(f"{name}.parquet")


def digest_index(manifests: Iterable[Path]) -> str:
    """Of the samples of all parts: what their manifests say of the tables."""
    sha256s = [tables.read_json(manifest)["samples_sha256"] for manifest in manifests]
    return hashlib.sha256("".join(sha256s).encode()).hexdigest()


def read_samples(manifests: Iterable[Path], columns: list[str] | None = None) -> Samples:
    """The samples of one dataset, or some columns of them, from the manifests of its parts.

    Raises DataError when a table is not the one its manifest was written with.
    """
    parts, dataset, max_pixels = [], "", 0
    shard_paths: dict[int, str] = {}
    for path in manifests:
        manifest = tables.read_json(path)
        dataset, max_pixels = manifest["dataset"], manifest["max_pixels"]
        if tables.file_sha256(samples_path(path)) != manifest["samples_sha256"]:
            tables.count_rows(samples_path(path))  # names the shard that has lost a row
            raise DataError(
                f"{samples_path(path)}: not the table {path} was written with. "
                "Delete both and run again."
            )
        parts.append(tables.read_table(samples_path(path), schemas.SAMPLES, columns))
        shard_paths |= {shard["shard_id"]: shard["path"] for shard in manifest["shards"]}
    table = pa.concat_tables(parts).unify_dictionaries()
    return Samples(dataset, table, shard_paths, max_pixels)


def check_tars(samples: Samples) -> None:
    """Raises DataError when a tar is gone of which every image is wanted: to learn, to measure."""
    paths = samples.shard_paths.values()
    if gone := [path for path in paths if not os.path.exists(path)]:
        raise DataError(
            f"{len(gone)} of the {len(paths)} indexed tars of {samples.dataset!r} are gone, the first is "
            f"{gone[0]}. Restore them, or correct datasets.{samples.dataset} and run again."
        )


def parts_of(
    manifests: Iterable[Path], identities: np.ndarray
) -> Iterator[tuple[Path, np.ndarray]]:
    """The manifests of the parts that hold these images, each with their places in ``identities``."""
    for manifest in manifests if len(identities) else ():
        shard_ids = [shard["shard_id"] for shard in tables.read_json(manifest)["shards"]]
        here = np.flatnonzero(np.isin(identities >> 32, shard_ids))
        if len(here):
            yield manifest, here


def rows_with_status(samples: Samples, *statuses: str) -> np.ndarray:
    """Rows whose status is one of these, as indices."""
    status = samples.table["status"].cast(pa.string()).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.isin(status.astype(str), statuses))


def labelled_rows(samples: Samples) -> np.ndarray:
    """Rows to learn from or to measure on: readable by the index, and labelled.

    Raises DataError when there is none.
    """
    rows = rows_with_status(samples, tars.OK)
    labelled = ~np.asarray(samples.table["label"].is_null())
    rows = rows[labelled[rows]]
    if len(rows) == 0:
        reasons = Counter(
            reason or "no .cls read" for reason in samples.table["reason"].to_pylist()
        )
        (most, times), *_ = reasons.most_common(1) or [("an empty tar", 1)]
        raise DataError(
            f"{samples.dataset!r} has no labelled image among its {len(samples.table)} samples. "
            f"Most frequent reason, {times} times: {most}."
        )
    return rows

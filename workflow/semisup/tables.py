"""Files that appear whole or not at all, and Parquet tables that have exactly their schema."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semisup import IS_COMMAND, rowcounts


class _NoPandas:
    """PyArrow looks for pandas, to know its classes, at the first array from numpy and the first to it:
    0.3 s and 40 MB for nothing, as no command hands any over. What needs pandas imports it later."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


if IS_COMMAND:
    sys.meta_path.insert(0, _NoPandas)
    pa.chunked_array([pa.array(np.empty(0))]).to_numpy()
    sys.meta_path.remove(_NoPandas)

ROW_GROUP = 262_144
IDENTITY = ["shard_id", "sample_index"]
ENCODINGS = {"delta": "DELTA_BINARY_PACKED", "split": "BYTE_STREAM_SPLIT"}

FALSE_POSITIVES = 0.026
"""Of a Bloom filter with a byte for each row of ROW_GROUP, a power of two: 0.6321 ** 8."""

DAMAGES = (pa.ArrowException, OSError, ValueError, IndexError)
"""What reading a damaged table raises: of a flipped bit in a footer, texts that are none, and more."""


class DataError(Exception):
    """Something is wrong with the data, said with the file, the values and the remedy."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; on success it is synced to disk and renamed to it.

    What a killed writer of the same path left is removed: a living one holds a lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remove_if_abandoned(leftover)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def remove_if_abandoned(temporary: Path) -> None:
    """Remove what :func:`atomic_path` gave, unless its writer lives."""
    with contextlib.suppress(OSError), open(temporary, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_table(
    path: Path,
    columns: dict[str, Any],
    schema: pa.Schema,
    row_groups: list[int] | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write columns (numpy arrays or Arrow arrays of one length) with exactly this schema.

    ``row_groups``: lengths of the row groups in order; by default ROW_GROUP. ``metadata``: for the
    footer. Raises DataError when a non-nullable column holds a null.
    """
    table = _conform(path, columns, schema)
    lengths = row_groups or [
        min(ROW_GROUP, len(table) - start) for start in range(0, max(len(table), 1), ROW_GROUP)
    ]
    if sum(lengths) != len(table):
        raise ValueError(f"{path}: row groups of {sum(lengths)} rows for {len(table)}")
    longest = max(lengths)
    with atomic_path(path) as temporary, _open_writer(temporary, schema, longest) as writer:
        start = 0
        for length in lengths:
            writer.write_table(table.slice(start, length), row_group_size=max(length, 1))
            start += length
        counts = {rowcounts.KEY: rowcounts.count_rows(table)}
        writer.add_key_value_metadata({**(metadata or {}), **counts})


def write_blocks(
    path: Path, blocks: Iterable[dict[str, Any]], schema: pa.Schema, row_group: int = 16_384
) -> None:
    """Write columns that come in blocks, in row groups of one length but for the last.

    Memory: a row group, a block, and the column ``shard_id``, which there must be.
    """
    with atomic_path(path) as temporary, _open_writer(temporary, schema, row_group) as writer:
        waiting = schema.empty_table()
        shard_ids = [waiting.select(["shard_id"])]
        for block in blocks:
            added = _conform(path, block, schema)
            shard_ids.append(added.select(["shard_id"]))
            waiting = pa.concat_tables([waiting, added])
            while len(waiting) >= row_group:
                writer.write_table(waiting.slice(0, row_group), row_group_size=row_group)
                waiting = waiting.slice(row_group)
        writer.write_table(waiting, row_group_size=row_group)
        counts = rowcounts.count_rows(pa.concat_tables(shard_ids))
        writer.add_key_value_metadata({rowcounts.KEY: counts})


def _conform(path: Path, columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    if frames := [name for name in schema.names if hasattr(columns[name], "iloc")]:
        raise TypeError(f"{path}: {frames} must not be pandas', which PyArrow does not know here.")
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise DataError(f"{path}: column {field.name} must not hold nulls; this is a bug.")
    return table


def _open_writer(path: Path, schema: pa.Schema, row_group: int) -> pq.ParquetWriter:
    bloom_filter = {"ndv": max(row_group, 1), "fpp": FALSE_POSITIVES}
    return pq.ParquetWriter(
        path,
        schema,
        compression={_leaf(f): _storage(f, "compression") or "zstd" for f in schema},
        use_dictionary=[f.name for f in schema if _storage(f, "encoding") == "dictionary"],
        column_encoding={
            f.name: ENCODINGS[_storage(f, "encoding")]
            for f in schema
            if _storage(f, "encoding") in ENCODINGS
        },
        bloom_filter_options={f.name: bloom_filter for f in schema if _storage(f, "find_by")},
        store_schema=True,
        write_page_checksum=True,
    )


def _leaf(field: pa.Field) -> str:
    """The name Parquet has for a column, where lists nest."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def _storage(field: pa.Field, choice: str) -> str:
    return str((field.metadata or {}).get(choice.encode(), b"").decode())


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, and check that it has this schema.

    Raises DataError naming the file when it cannot be read or has other columns.
    """
    try:
        with open_table(path, schema) as file:
            return file.read(columns)
    except DAMAGES as error:
        raise unreadable(path, error) from error


def read_rows(path: Path, schema: pa.Schema, rows: np.ndarray) -> pa.Table:
    """Some rows of a table in the order asked for, one row group in memory at a time."""
    by_position = np.argsort(rows, kind="stable")
    found, start = [schema.empty_table()], 0
    try:
        with open_table(path, schema) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(rows[by_position], [start, end])
                if first < last:
                    here = rows[by_position[first:last]] - start
                    found.append(file.read_row_group(group).take(here))
                start = end
    except DAMAGES as error:
        raise unreadable(path, error) from error
    place = np.empty_like(by_position)
    place[by_position] = np.arange(len(rows))
    return pa.concat_tables(found).unify_dictionaries().take(place)


def read_batches(path: Path, schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a table, piece by piece; raises DataError as :func:`read_table` does."""
    try:
        with open_table(path, schema) as file:
            yield from file.iter_batches(columns=columns)
    except DAMAGES as error:
        raise unreadable(path, error) from error


def open_table(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    """An open table to read row groups of; raises DataError as :func:`read_table` does."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except DAMAGES as error:
        raise unreadable(path, error) from error
    if not file.schema_arrow.equals(schema):
        raise DataError(
            f"{path}: not the expected table. It has {_describe(file.schema_arrow)}; "
            f"expected {_describe(schema)}. Delete it and run again."
        )
    _check_rows(path, file)
    return file


def _check_rows(path: Path, file: pq.ParquetFile) -> None:
    if wrong := rowcounts.difference(file):
        raise DataError(f"{path}: {wrong}. Rows were lost or doubled: delete it and run again.")


def unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({error}). Delete it and run again.")


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def count_rows(path: Path) -> int:
    """Rows of a table, from its footer; raises DataError when they are not those it was written with."""
    return int(count_shards(path)["total"])


def count_shards(path: Path) -> dict[str, Any]:
    """Rows of a table in all and by shard, as rowcounts.count_shards; raises what count_rows does."""
    try:
        with pq.ParquetFile(path) as file:
            _check_rows(path, file)
            return rowcounts.written(file)
    except DAMAGES as error:
        raise unreadable(path, error) from error


def identity(
    table: pa.Table, prefix: str = "", rows: np.ndarray | slice = slice(None)
) -> np.ndarray:
    """``shard_id`` and ``sample_index`` of rows as one int64 that sorts as the pair does."""
    shard_ids, sample_indices = (table[f"{prefix}{name}"].to_numpy()[rows] for name in IDENTITY)
    return join_identity(shard_ids, sample_indices)


def join_identity(shard_ids: np.ndarray, sample_indices: np.ndarray) -> np.ndarray:
    return (shard_ids.astype(np.int64) << 32) | sample_indices


def split_identity(identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`join_identity`: shard ids and sample indices, int32."""
    return (identities >> 32).astype(np.int32), (identities & 0xFFFFFFFF).astype(np.int32)


def fixed_binary(column: pa.ChunkedArray) -> np.ndarray:
    """A column of binary(n) as numpy's V of that length, without a copy where it is one chunk."""
    width = column.type.byte_width
    blocks = [
        np.frombuffer(chunk.buffers()[1], f"V{width}", len(chunk), width * chunk.offset)
        for chunk in column.chunks
        if len(chunk)
    ]
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.empty(0, f"V{width}"), *blocks])


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def part_paths(first: Path, num_parts: int) -> list[Path]:
    """The files of all parts, given that of part 00000."""
    if "00000" not in first.name:
        raise ValueError(f"{first}: the name of the first part must hold 00000")
    return [first.with_name(first.name.replace("00000", f"{i:05d}")) for i in range(num_parts)]

"""Rows of tables by a text they hold, without reading most of it.

A row group is passed over where its statistics exclude the text (texts that ascend), or its Bloom
filter does (texts in any order), as Parquet defines them
(https://parquet.apache.org/docs/file-format/bloomfilter).
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from semisup import tables

TEXT = "BYTE_ARRAY"
BLOCK_BYTES = 32
SALT = (
    *(0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D),
    *(0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31),
)


def rows_with(
    paths: list[Path], schema: pa.Schema, column: str, text: str, threads: int = 2
) -> list[list[int]]:
    """The rows of each table that hold ``text`` in a column, ascending.

    Nothing protects footers and Bloom filters from flipped bits: all is read before it is said that no
    row of any table does. Raises DataError as tables.read_table does.
    """

    def search(filtered: bool) -> list[list[int]]:
        return list(pool.map(lambda path: _search(path, schema, column, text, filtered), paths))

    if any("\ud800" <= each <= "\udfff" for each in text):
        return [[] for _ in paths]  # half of a pair: no table holds such text
    with ThreadPoolExecutor(threads) as pool:
        found = search(filtered=True)
        return found if any(found) else search(filtered=False)


def _search(path: Path, schema: pa.Schema, column: str, text: str, filtered: bool) -> list[int]:
    found, start = list[int](), 0
    number = schema.get_field_index(column)
    try:
        with tables.open_table(path, schema) as file, open(path, "rb") as source:
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                chunk = metadata.column(number)
                # After a flipped bit its statistics would end the process.
                if chunk.physical_type != TEXT:
                    raise ValueError(f"{column} is no text")
                if not filtered or _may_hold(source, chunk, text):
                    values = file.read_row_group(group, [column])[column]
                    found += (start + np.flatnonzero(pc.equal(values, text))).tolist()
                start += metadata.num_rows
    except tables.DAMAGES as error:
        raise tables.unreadable(path, error) from error
    return found


def _may_hold(source: BinaryIO, chunk: pq.ColumnChunkMetaData, text: str) -> bool:
    range_ = chunk.statistics
    if range_ and range_.has_min_max and not range_.min <= text <= range_.max:
        return False
    return not _excluded(source, chunk, text)


def _excluded(source: BinaryIO, chunk: pq.ColumnChunkMetaData, text: str) -> bool:
    """Whether the chunk has a Bloom filter as PyArrow writes them, and it does not know the text."""
    if not chunk.bloom_filter_offset or not chunk.bloom_filter_length:
        return False
    num_bytes = 1 << (chunk.bloom_filter_length.bit_length() - 1)  # before it stands a short header
    header = _header(num_bytes)
    source.seek(chunk.bloom_filter_offset)
    if source.read(len(header)) != header:
        return False
    hash_ = xxhash.xxh64_intdigest(text.encode())
    block = (hash_ >> 32) * (num_bytes // BLOCK_BYTES) >> 32
    source.seek(block * BLOCK_BYTES, 1)
    words = np.frombuffer(source.read(BLOCK_BYTES), "<u4", len(SALT))
    bits = (np.array(SALT, np.uint32) * np.uint32(hash_ & 0xFFFFFFFF)) >> np.uint32(27)
    return not np.all((words >> bits) & np.uint32(1))


def _header(num_bytes: int) -> bytes:
    """A filter of blocks, hashed by XXH64, uncompressed: Thrift's compact encoding of BloomFilterHeader."""
    number, varint = 2 * num_bytes, bytearray()
    while number >= 0x80:
        varint.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([0x15, *varint, number]) + b"\x1c\x1c\0\0" * 3 + b"\0"

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import lookup, schemas, tables
from semisup.lookup import rows_with
from semisup.tables import DataError

SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False, metadata={"find_by": "yes"}),
    ]
)
HASHES = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(2000)]


def write(path: Path, keys: list[str], row_groups: list[int] | None = None) -> Path:
    columns = {"shard_id": np.zeros(len(keys), np.int32), "key": keys}
    tables.write_table(path, columns, SCHEMA, row_groups)
    return path


def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the row groups that are read from now on."""
    read, original = list[int](), pq.ParquetFile.read_row_group

    def recorded(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        read.append(group)
        return original(file, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", recorded)
    return read


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=60),
    st.integers(1, 60),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_every_row_with_a_text_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], longest: int, other: str
) -> None:
    row_groups = [min(longest, len(keys) - i) for i in range(0, len(keys), longest)]
    path = write(tmp_path_factory.mktemp("t") / "t.parquet", keys, row_groups)
    for key in {*keys, other}:
        rows = [i for i, each in enumerate(keys) if each == key]
        assert rows_with([path], SCHEMA, "key", key) == [rows]


def test_of_texts_in_any_order_hardly_a_row_group_is_read_in_vain(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "t.parquet", HASHES, [20] * 100)
    read = groups_read(monkeypatch)
    for i in range(0, 2000, 40):
        assert rows_with([path], SCHEMA, "key", HASHES[i]) == [[i]]
    assert {i // 20 for i in range(0, 2000, 40)} <= set(read)
    assert len(read) < 50 + 0.06 * 50 * 99  # 26 in 1,000 may be


def test_tables_without_the_text_are_not_read_where_another_has_it(tmp_path, monkeypatch) -> None:
    paths = [write(tmp_path / f"{i}.parquet", HASHES[400 * i :][:400]) for i in range(5)]
    read = groups_read(monkeypatch)
    assert rows_with(paths, SCHEMA, "key", HASHES[777]) == [[], [377], [], [], []]
    assert len(read) == 1


def test_tables_are_searched_two_at_a_time_and_told_in_order(tmp_path, monkeypatch) -> None:
    paths = [write(tmp_path / f"{i}.parquet", HASHES[i : i + 1]) for i in range(2)]
    search, both, found_second = lookup._search, threading.Barrier(2), threading.Event()

    def second_first(path: Path, schema: pa.Schema, column: str, *_: object) -> list[int]:
        both.wait(60)
        if path == paths[0]:
            assert found_second.wait(60)
            return search(path, schema, column, HASHES[0], False)
        found_second.set()
        return []

    monkeypatch.setattr(lookup, "_search", second_first)
    assert rows_with(paths, SCHEMA, "key", HASHES[0]) == [[0], []]


def test_of_ascending_texts_only_their_row_group_is_read(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "t.parquet", sorted(HASHES), [20] * 100)
    read = groups_read(monkeypatch)
    assert rows_with([path], SCHEMA, "key", sorted(HASHES)[777]) == [[777]]
    assert read == [38]


def test_a_filter_takes_about_a_byte_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [f"{i:x}" for i in range(tables.ROW_GROUP)])
    chunk = pq.read_metadata(path).row_group(0).column(1)
    assert tables.ROW_GROUP <= chunk.bloom_filter_length < tables.ROW_GROUP + 32
    write(path, ["a"])
    assert pq.read_metadata(path).row_group(0).column(1).bloom_filter_length < 64


def test_keys_of_the_index_have_a_filter() -> None:
    assert [f.name for f in schemas.SAMPLES if b"find_by" in f.metadata] == ["key"]


def test_an_index_written_before_there_were_filters_is_searched(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    without = pa.schema([field.remove_metadata() for field in SCHEMA])
    columns = {"shard_id": np.zeros(2000, np.int32), "key": HASHES}
    tables.write_table(path, columns, without, [20] * 100)
    assert pq.read_metadata(path).row_group(0).column(1).bloom_filter_offset is None
    assert rows_with([path], SCHEMA, "key", HASHES[777]) == [[777]]


def test_a_damaged_filter_hides_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", HASHES)
    chunk = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    first, last = chunk.bloom_filter_offset, chunk.bloom_filter_offset + chunk.bloom_filter_length
    content[last - 2048 : last] = bytes(2048)
    path.write_bytes(content)
    assert lookup._search(path, SCHEMA, "key", HASHES[777], True) == []
    assert rows_with([path], SCHEMA, "key", HASHES[777]) == [[777]]
    content[first] ^= 1  # in its header
    path.write_bytes(content)
    assert lookup._search(path, SCHEMA, "key", HASHES[777], True) == [777]


def test_a_range_that_excludes_the_text_hides_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", ["a", "c"])
    content = path.read_bytes()
    assert content.count(b"c") > 2  # the row, its range
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:footer] + content[footer:].replace(b"\x01c", b"\x01b"))
    assert lookup._search(path, SCHEMA, "key", "c", True) == []
    assert rows_with([path], SCHEMA, "key", "c") == [[1]]


def test_an_empty_table_holds_nothing(tmp_path: Path) -> None:
    assert rows_with([write(tmp_path / "t.parquet", [])], SCHEMA, "key", "a") == [[]]


def test_bytes_that_are_no_text_are_in_no_table(tmp_path: Path) -> None:
    """As Python gives them where a command line holds them."""
    path = write(tmp_path / "t.parquet", ["a"])
    assert rows_with([path, path], SCHEMA, "key", os.fsdecode(b"a\xff")) == [[], []]


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", HASHES)
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read"):
        rows_with([path], SCHEMA, "key", HASHES[777])

import hashlib
import json
import os
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.tables import DataError

SCHEMA = pa.schema(
    [
        pa.field("class_id", pa.int16(), nullable=False, metadata={"doc": "the class"}),
        pa.field("name", pa.string(), nullable=False),
        pa.field("status", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("distance", pa.float32(), nullable=True),
    ]
)
rows = st.lists(
    st.tuples(
        st.integers(-(2**15), 2**15 - 1),
        st.text(st.characters(codec="utf-8")),
        st.sampled_from(["ok", "empty"]),
        st.none() | st.floats(width=32, allow_nan=False),
    ),
    max_size=20,
)


def columns(values: list[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[i] for row in values] for i, name in enumerate(SCHEMA.names)}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def test_every_column_is_compressed_as_its_field_says(tmp_path: Path) -> None:
    fields = {
        "a": (pa.int32(), "zstd", [1, 2]),
        "b": (pa.float32(), "lz4", [1.0, 2.0]),
        "c": (pa.list_(pa.float32()), "zstd", [[1.0], [2.0, 3.0]]),
    }
    schema = pa.schema(
        [
            pa.field(name, kind, nullable=False, metadata={"compression": codec})
            for name, (kind, codec, _) in fields.items()
        ]
    )
    path = tmp_path / "t.parquet"
    tables.write_table(path, {name: values for name, (_, _, values) in fields.items()}, schema)
    group = pq.read_metadata(path).row_group(0)
    codecs = [group.column(i).compression.lower() for i in range(3)]
    assert codecs == [codec for _, codec, _ in fields.values()]


def test_rows_are_read_without_reading_the_row_groups_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    schema = pa.schema([pa.field("a", pa.int32(), nullable=False)])
    path = tmp_path / "t.parquet"
    tables.write_table(path, {"a": [0, 1, 2, 3, 4]}, schema)
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, group: read.append(group) or original(file, group),
    )
    found = tables.read_rows(path, schema, np.array([4, 0, 1, 4]))
    assert found["a"].to_pylist() == [4, 0, 1, 4]
    assert read == [0, 2]


# --- files that appear whole ---------------------------------------------------------------


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    tables.write_bytes(tmp_path / "new" / "folder" / "a", b"content")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"content"
    assert leftovers(tmp_path) == []


def test_a_failed_writer_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), tables.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"before"
    assert leftovers(tmp_path) == []


def test_nobody_sees_the_file_before_it_is_whole(tmp_path: Path) -> None:
    with tables.atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        tables.write_bytes(tmp_path / "a", b"")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


@given(
    st.dictionaries(
        st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=5
    ),
)
def test_json_round_trips_and_its_bytes_do_not_depend_on_the_order_of_keys(
    tmp_path: Path, value: dict[str, object]
) -> None:
    tables.write_json(tmp_path / "a", value)
    tables.write_json(tmp_path / "b", dict(reversed(value.items())))
    assert tables.read_json(tmp_path / "a") == value
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_ends_with_a_new_line(tmp_path: Path) -> None:
    tables.write_json(tmp_path / "a", {"x": [1]})
    assert (tmp_path / "a").read_text() == json.dumps({"x": [1]}, indent=1) + "\n"


@given(st.binary(max_size=1000))
def test_file_sha256_is_that_of_the_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert tables.file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


# --- tables --------------------------------------------------------------------------------


@given(rows)
def test_a_table_round_trips(tmp_path: Path, values: list[tuple[object, ...]]) -> None:
    tables.write_table(tmp_path / "t.parquet", columns(values), SCHEMA)
    table = tables.read_table(tmp_path / "t.parquet", SCHEMA)
    assert table.schema.equals(SCHEMA)
    assert table.to_pydict() == columns(values)
    assert tables.count_rows(tmp_path / "t.parquet") == len(values)


@given(rows)
def test_the_same_rows_make_the_same_bytes(
    tmp_path: Path, values: list[tuple[object, ...]]
) -> None:
    for name in ("a", "b"):
        tables.write_table(tmp_path / name, columns(values), SCHEMA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_carries_the_meaning_of_its_columns(tmp_path: Path) -> None:
    tables.write_table(tmp_path / "t", columns([]), SCHEMA)
    field = pq.read_schema(tmp_path / "t").field("class_id")
    assert field.metadata[b"doc"] == b"the class"


def test_some_columns_can_be_read_alone(tmp_path: Path) -> None:
    tables.write_table(tmp_path / "t", columns([(1, "a", "ok", None)]), SCHEMA)
    assert tables.read_table(tmp_path / "t", SCHEMA, ["name"]).to_pydict() == {"name": ["a"]}


def test_a_null_where_none_may_be_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t.parquet: column name must not hold nulls"):
        tables.write_table(tmp_path / "t.parquet", columns([(1, None, "ok", 0.0)]), SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_a_value_too_large_for_its_column_is_refused(tmp_path: Path) -> None:
    values = columns([(1, "", "ok", 0.0)]) | {"class_id": np.array([2**15])}
    with pytest.raises(pa.ArrowInvalid):
        tables.write_table(tmp_path / "t", values, SCHEMA)
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 5), max_size=6))
def test_row_groups_have_the_lengths_asked_for(tmp_path: Path, lengths: list[int]) -> None:
    values = [(i, "", "ok", None) for i in range(sum(lengths))]
    tables.write_table(tmp_path / "t", columns(values), SCHEMA, lengths)
    with pq.ParquetFile(tmp_path / "t") as file:
        written = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert written == (lengths or [0])
        assert file.read()["class_id"].to_pylist() == list(range(sum(lengths)))


@pytest.mark.parametrize("lengths", [[2], [2, 2]])
def test_row_groups_that_lose_or_invent_rows_are_refused(
    tmp_path: Path, lengths: list[int]
) -> None:
    values = [(i, "", "ok", None) for i in range(3)]
    with pytest.raises(ValueError, match="for 3"):
        tables.write_table(tmp_path / "t", columns(values), SCHEMA, lengths)
    assert list(tmp_path.iterdir()) == []


def test_a_table_with_other_columns_is_refused_naming_file_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError) as caught:
        tables.read_table(path, SCHEMA)
    message = str(caught.value)
    assert message.startswith(f"{path}: not the expected table. It has other (int64); expected ")
    assert "class_id (int16)" in message
    assert message.endswith("Delete it and run again.")


def test_a_table_whose_column_has_another_type_is_refused_naming_both(tmp_path: Path) -> None:
    wide = SCHEMA.set(0, pa.field("class_id", pa.int32(), nullable=False))
    tables.write_table(tmp_path / "t", columns([(1, "a", "ok", None)]), wide)
    with pytest.raises(DataError, match=r"has class_id \(int32\).*expected class_id \(int16\)"):
        tables.read_table(tmp_path / "t", SCHEMA)


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"no table", b"PAR1" + bytes(50)])
def test_an_unreadable_table_is_refused_naming_the_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "t.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read .*Delete it and run again"):
        tables.read_table(path, SCHEMA)


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    tables.write_table(tmp_path / "t", columns([(1, "a", "ok", None)] * 100), SCHEMA)
    content = (tmp_path / "t").read_bytes()
    for size in range(0, len(content), 37):
        (tmp_path / "t").write_bytes(content[:size])
        with pytest.raises(DataError):
            tables.read_table(tmp_path / "t", SCHEMA)


# --- identities and parts ------------------------------------------------------------------

identities = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=20)


def identity_table(pairs: list[tuple[int, int]], prefix: str = "") -> pa.Table:
    return pa.table(
        {
            f"{prefix}shard_id": pa.array([pair[0] for pair in pairs], pa.int32()),
            f"{prefix}sample_index": pa.array([pair[1] for pair in pairs], pa.int32()),
        }
    )


@given(identities)
def test_identities_sort_as_their_pairs(pairs: list[tuple[int, int]]) -> None:
    numbers = tables.identity(identity_table(pairs))
    assert [pairs[i] for i in np.argsort(numbers, kind="stable")] == sorted(pairs)


@given(identities)
def test_split_identity_is_the_inverse_of_identity(pairs: list[tuple[int, int]]) -> None:
    shard_ids, indices = tables.split_identity(tables.identity(identity_table(pairs)))
    assert list(zip(shard_ids.tolist(), indices.tolist(), strict=True)) == pairs
    assert shard_ids.dtype == indices.dtype == np.int32


def test_the_identity_of_another_image_has_its_prefix() -> None:
    table = identity_table([(3, 5)], "evaluation_")
    assert tables.identity(table, "evaluation_").tolist() == [(3 << 32) + 5]


@given(st.integers(0, 50), st.text(string.ascii_lowercase, min_size=1))
def test_part_paths_count_up_from_the_first(num_parts: int, stem: str) -> None:
    paths = tables.part_paths(Path(f"x/{stem}-00000.parquet"), num_parts)
    assert paths == [Path(f"x/{stem}-{i:05d}.parquet") for i in range(num_parts)]


def test_part_paths_refuses_a_name_that_is_not_of_the_first_part() -> None:
    with pytest.raises(ValueError, match="must hold 00000"):
        tables.part_paths(Path("part-00001.parquet"), 2)


def test_every_column_of_every_schema_says_what_it_means() -> None:
    found = [value for value in vars(schemas).values() if isinstance(value, pa.Schema)]
    assert len(found) > 5
    assert all(field.metadata and field.metadata[b"doc"] for schema in found for field in schema)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / ".a.json.abc123.tmp"
    leftover.write_bytes(b"half")
    other = tmp_path / ".ab.json.abc123.tmp"
    other.write_bytes(b"of another file")
    tables.write_json(tmp_path / "a.json", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a.json"]


def test_what_a_living_writer_has_begun_is_left_alone(tmp_path: Path) -> None:
    with tables.atomic_path(tmp_path / "a.json") as begun:
        tables.write_json(tmp_path / "a.json", "by another")
        assert begun.exists()
        begun.write_text('"mine"')
    assert tables.read_json(tmp_path / "a.json") == "mine"


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"", 0, 1, ""), IndexError("gone")])
def test_a_table_whose_footer_is_damaged_is_named_whatever_reading_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tables.pq, "ParquetFile", fail)
    for read in (tables.count_rows, lambda path: tables.read_table(path, pa.schema([]))):
        with pytest.raises(tables.DataError, match=r"damaged\.parquet: cannot be read"):
            read(tmp_path / "damaged.parquet")

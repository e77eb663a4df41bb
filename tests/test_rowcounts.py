from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import rowcounts, schemas, tables
from semisup.tables import DataError


def write(path: Path, shard_ids: list[int]) -> None:
    columns = {
        "shard_id": shard_ids,
        "sample_index": range(len(shard_ids)),
        "first_dataset": ["u"] * len(shard_ids),
        "first_shard_id": shard_ids,
        "first_sample_index": shard_ids,
        "same": ["bytes"] * len(shard_ids),
    }
    tables.write_table(path, columns, schemas.COPIES)


def tamper(path: Path, take: list[int]) -> None:
    """Write some rows of a table, as if it had always been so: the footer stays."""
    with pq.ParquetFile(path) as file:
        table, footer = file.read(), file.metadata.metadata
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table.take(pa.array(take, pa.int64())))
        writer.add_key_value_metadata({rowcounts.KEY: footer[rowcounts.KEY.encode()].decode()})


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30), st.data())
def test_a_lost_or_doubled_row_is_found_and_its_shard_named(
    tmp_path_factory: pytest.TempPathFactory, shard_ids: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("counts") / "copies.parquet"
    shard_ids = sorted(shard_ids)
    write(path, shard_ids)
    assert tables.count_rows(path) == len(shard_ids)
    place = data.draw(st.integers(0, len(shard_ids) - 1))
    rows = [*range(len(shard_ids))]
    lost = data.draw(st.booleans())
    tamper(path, rows[:place] + rows[place + 1 :] if lost else [*rows, place])
    for read in (tables.count_rows, lambda path: tables.read_table(path, schemas.COPIES)):
        with pytest.raises(DataError, match="was written with") as caught:
            read(path)
        if lost and len(rows) == 1:
            continue  # an empty table
        shard = shard_ids[place]
        named = str(caught.value).split("; of shard")[1]
        first, _, last = named.removeprefix("s ").strip().split(":")[0].partition(" to ")
        assert int(first) <= shard <= int(last or first)


def test_a_table_without_its_counts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1, 2])
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="does not say how many rows"):
        tables.count_rows(tmp_path / "a.parquet")


def test_a_table_of_many_shards_has_a_small_footer() -> None:
    counts = rowcounts.count_rows(pa.table({"shard_id": pa.array(range(1_000_000), pa.int32())}))
    assert len(counts) < 20_000


def test_tables_without_shards_are_counted_as_a_whole(tmp_path: Path) -> None:
    assert rowcounts.count_rows(pa.table({"a": [1, 2]})) == '{"total": 2}'

"""The score store: its format, and what is refused."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from score_parts import NUM_CLASSES, make_part, small_tiers, write_parts
from semisup import schemas, scores, tables
from semisup.merging import merge
from semisup.scores import ScoreTable, write_scores
from semisup.selection import Cut
from semisup.tables import DataError

__all__ = ["small_tiers"]

END = scores.NO_END - 6


def test_a_file_holds_every_row_once_and_any_reader_reads_it(tmp_path):
    part = make_part(3, [(i % NUM_CLASSES, [float(i % 7), -1.0]) for i in range(40)])
    (path,) = write_parts(tmp_path, [part])
    found = pd.read_parquet(path)
    assert found.columns.tolist() == schemas.SCORES.names
    assert (found.shard_id == 3).all()
    together = found.sort_values(["sample_index", "prediction_rank"])
    assert together.class_id.tolist() == part.class_id.tolist()
    assert together.log_odds.tolist() == part.log_odds.tolist()


def test_a_flipped_bit_is_found(tmp_path):
    rows = [(i % NUM_CLASSES, [float(i % 7), -1.0]) for i in range(40)]
    (path,) = write_parts(tmp_path, [make_part(0, rows)])
    column = pq.read_metadata(path).row_group(0).column(1)  # log_odds
    whole = bytearray(path.read_bytes())
    whole[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"part-00000\.parquet: cannot be read"):
        merge([path], Cut(np.full(NUM_CLASSES, 9)))


def test_scores_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(DataError, match="not finite"):
        write_scores(tmp_path / "part-00000.parquet", make_part(0, [(0, [float("nan")])]))
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_not_finite_are_refused_naming_the_part(tmp_path):
    paths = write_parts(tmp_path, [make_part(0, [(0, [1.0])]), make_part(1, [(0, [2.0])])])
    table = tables.read_table(paths[1], schemas.SCORES)
    metadata = {scores.TIERS_KEY: pq.read_metadata(paths[1]).metadata[b"tiers"].decode()}
    columns = {name: table[name] for name in table.column_names} | {"log_odds": [float("nan")]}
    tables.write_table(paths[1], columns, schemas.SCORES, metadata=metadata)
    with pytest.raises(DataError, match=r"part-00001\.parquet: holds scores that are not finite"):
        merge(paths, Cut(np.full(NUM_CLASSES, 1)))


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "its tiers are not of these ranks"),
        ([[1, 1], [2, 2], [0, 4], [0, END]], "its tiers are not of these ranks"),
        ([[1, 1], [0, 2], [0, 3], [0, END]], "its tiers are not all its rows"),
        ([[2, 1], [1, 2], [0, 3], [0, END]], "its tiers are not its row groups"),
        ("nonsense", "scores without tiers in the footer"),
        ([[1, 1], [2]], "scores without tiers in the footer"),
    ],
)
def test_a_footer_that_does_not_fit_is_refused(tmp_path, tiers, message):
    (path,) = write_parts(tmp_path, [make_part(0, [(0, [1.0]), (0, [2.0]), (1, [3.0])])])
    table = tables.read_table(path, schemas.SCORES)
    columns = {name: table[name] for name in table.column_names}
    metadata = {scores.TIERS_KEY: json.dumps(tiers)}
    tables.write_table(path, columns, schemas.SCORES, [1, 2], metadata)
    with pytest.raises(DataError, match=message):
        ScoreTable(path)


@pytest.mark.parametrize("num_best", [[2, 2], [-1, 4], [5], "x"])
def test_counts_of_best_classes_that_cannot_be_are_refused(tmp_path, num_best):
    part = make_part(0, [(0, [1.0, 0.5]), (1, [2.0, 0.0]), (1, [1.0, 0.0])])
    (path,) = write_parts(tmp_path, [part])
    assert ScoreTable(path).num_best().tolist() == [1, 2]
    table = tables.read_table(path, schemas.SCORES)
    written = pq.read_metadata(path)
    lengths = [written.row_group(i).num_rows for i in range(written.num_row_groups)]
    metadata = {"tiers": written.metadata[b"tiers"].decode(), "num_best": json.dumps(num_best)}
    columns = {name: table[name] for name in table.column_names}
    tables.write_table(path, columns, schemas.SCORES, lengths, metadata)
    with pytest.raises(DataError, match="scores"):
        ScoreTable(path).num_best()


def test_a_table_without_tiers_is_refused(tmp_path):
    (path,) = write_parts(tmp_path, [make_part(0, [(0, [1.0])])])
    table = tables.read_table(path, schemas.SCORES)
    tables.write_table(path, {name: table[name] for name in table.column_names}, schemas.SCORES)
    with pytest.raises(DataError, match="without tiers"):
        merge([path], Cut(np.full(NUM_CLASSES, 1)))

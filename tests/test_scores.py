"""The score store and the merge over its parts, against brute force."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semisup import schemas, scores, selection, tables
from semisup.scores import (
    Rows,
    ScoreTable,
    Wanted,
    count_ahead,
    find,
    gather,
    merge,
    write_scores,
)
from semisup.selection import Cut, Ranked, concatenate, take_ties
from semisup.tables import DataError

NUM_CLASSES = 5
P = 2
END = scores.NO_END - 6


def make_part(part: int, images: list[tuple[int, list[float]]]) -> Ranked:
    """The rows of a part: of each image its first class, and as many following ones as scores."""
    rows = [
        ((first + rank) % NUM_CLASSES, score, (part << 32) | index, rank + 1)
        for index, (first, log_odds) in enumerate(images)
        for rank, score in enumerate(log_odds)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    types = (np.int16, np.float32, np.int64, np.int8)
    return Ranked(*(np.array(c, t) for c, t in zip(columns, types, strict=True)))


def brute_force(parts: list[Ranked], per_class: list[int]) -> pd.DataFrame:
    rows = pd.concat([pd.DataFrame(part._asdict()) for part in parts])
    rows = rows.sort_values(["class_id", "log_odds", "identity"], ascending=[True, False, True])
    rows = rows[rows.groupby("class_id").cumcount() < np.array(per_class)[rows.class_id]]
    return rows.reset_index(drop=True)


def write_parts(folder: Path, parts: list[Ranked]) -> list[Path]:
    paths = [folder / f"part-{i:05d}.parquet" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_scores(path, part)
    return paths


# Few distinct scores, so that ties are the rule, also at the cut.
score = st.integers(-3, 3).map(float)
images = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.lists(score, min_size=P, max_size=P)), max_size=30
)
per_class = st.lists(st.integers(0, 12), min_size=NUM_CLASSES, max_size=NUM_CLASSES)


@pytest.fixture(scope="module", autouse=True)
def small_tiers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TIERS", (1, 3, 6))
        patch.setattr(scores, "TIERS", (1, 3, 6))
        patch.setattr(scores, "ROW_GROUP", 4)
        yield


@settings(deadline=None, max_examples=60)
@given(st.lists(images, min_size=1, max_size=5), per_class, st.integers(1, 3))
def test_merge_is_the_brute_force_top_k(tmp_path_factory, all_images, per_class, threads):
    parts = [make_part(i, images) for i, images in enumerate(all_images)]
    paths = write_parts(tmp_path_factory.mktemp("parts"), parts)
    chosen = merge(paths, Cut(np.array(per_class)), threads=threads)
    pd.testing.assert_frame_equal(
        pd.DataFrame(chosen._asdict()), brute_force(parts, per_class), check_like=False
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(images, min_size=1, max_size=4), per_class, st.integers(2, 5))
def test_rows_that_are_not_allowed_never_count(tmp_path_factory, all_images, per_class, modulus):
    parts = [make_part(i, images) for i, images in enumerate(all_images)]
    paths = write_parts(tmp_path_factory.mktemp("parts"), parts)

    def allowed(rows: Rows, at: np.ndarray) -> np.ndarray:
        return at[rows.identity(at) % modulus != 0]

    chosen = merge(paths, Cut(np.array(per_class)), allowed)
    left = [part.take(np.flatnonzero(part.identity % modulus != 0)) for part in parts]
    pd.testing.assert_frame_equal(
        pd.DataFrame(chosen._asdict()), brute_force(left, per_class), check_like=False
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(images, min_size=1, max_size=4), st.integers(2, 5))
def test_the_rows_ahead_of_an_image_are_those_before_it_in_rank_order(
    tmp_path_factory, all_images, modulus
):
    parts = [make_part(i, images) for i, images in enumerate(all_images)]
    paths = write_parts(tmp_path_factory.mktemp("parts"), parts)
    every = brute_force(parts, [10**6] * NUM_CLASSES)
    for identity in every.identity.unique()[:3].tolist():
        own = ScoreTable(paths[identity >> 32]).rows_of(identity)
        found = pd.DataFrame(own._asdict()).sort_values("class_id", ignore_index=True)
        pd.testing.assert_frame_equal(
            found, every[every.identity == identity].reset_index(drop=True)
        )
        for allowed in (None, lambda rows, at: at[rows.identity(at) % modulus != 0]):
            left = every if allowed is None else every[every.identity % modulus != 0]
            expected = [
                (
                    (left.class_id == c)
                    & ((left.log_odds > s) | (left.log_odds == s) & (left.identity < i))
                ).sum()
                for c, s, i in zip(own.class_id, own.log_odds, own.identity, strict=True)
            ]
            assert count_ahead(paths, own, allowed).tolist() == expected


@settings(deadline=None, max_examples=60)
@given(
    st.lists(images, min_size=1, max_size=4),
    st.lists(st.tuples(per_class, st.integers(1, 4)), min_size=2, max_size=3),
)
def test_selections_found_together_are_those_found_alone(tmp_path_factory, all_images, several):
    parts = [make_part(i, images) for i, images in enumerate(all_images)]
    paths = write_parts(tmp_path_factory.mktemp("parts"), parts)

    def wanted(k: list[int], modulus: int) -> Wanted:
        return Wanted(Cut(np.array(k)), lambda rows, at: at[rows.identity(at) % modulus == 0])

    together = [wanted(*each) for each in several]
    with ThreadPoolExecutor(2) as pool:
        opened = find(together, paths, pool, 2)
        lasts = [each.cut.last() for each in together]
        floors = [last.log_odds for last in lasts]
        of_parts = list(gather(together, floors, opened, pool, 2))
    for i, (each, last) in enumerate(zip(several, lasts, strict=True)):
        taken = [
            take_ties(block, last.log_odds, last.quota)
            for blocks in of_parts
            for block in blocks[i]
        ]
        alone = merge(paths, *wanted(*each))
        assert not last.quota.any()
        found, expected = (
            pd.DataFrame(rows._asdict()).sort_values(["class_id", "identity"], ignore_index=True)
            for rows in (concatenate(taken), alone)
        )
        pd.testing.assert_frame_equal(found, expected)


def test_a_selection_that_needs_deeper_tiers_reads_them_beside_one_that_does_not(tmp_path):
    paths = write_parts(tmp_path, [make_part(0, [(0, [float(-i)]) for i in range(9)])])
    shallow = Wanted(Cut(np.full(NUM_CLASSES, 2)))
    deep = Wanted(Cut(np.full(NUM_CLASSES, 2)), lambda rows, at: at[rows.identity(at) >= 5])
    with ThreadPoolExecutor(2) as pool:
        opened = find([shallow, deep], paths, pool, 2)
        floors = [each.cut.last().log_odds for each in (shallow, deep)]
        ((first, second),) = gather([shallow, deep], floors, opened, pool, 2)
    assert concatenate(first).identity.tolist() == [0, 1]
    assert concatenate(second).identity.tolist() == [5, 6]


def test_ties_at_the_cut_go_to_the_first_images_of_u(tmp_path):
    parts = [make_part(p, [(0, [1.0])] * 3) for p in range(3)]
    chosen = merge(write_parts(tmp_path, parts), Cut(np.full(NUM_CLASSES, 4)))
    assert chosen.identity.tolist() == [0, 1, 2, 1 << 32]


def test_minus_zero_and_zero_are_equal(tmp_path):
    part = make_part(0, [(0, [-0.0]), (0, [0.0])])
    chosen = merge(write_parts(tmp_path, [part]), Cut(np.full(NUM_CLASSES, 1)))
    assert chosen.identity.tolist() == [0]


def test_a_class_without_images_and_one_with_too_few_hide_no_other(tmp_path):
    parts = [make_part(p, [(2, [float(i)]) for i in range(9)] + [(4, [1.0])]) for p in range(2)]
    chosen = merge(write_parts(tmp_path, parts), Cut(np.full(NUM_CLASSES, 5)))
    assert chosen.class_id.tolist() == [2] * 5 + [4] * 2
    assert chosen.log_odds.tolist() == [8, 8, 7, 7, 6, 1, 1]


def test_deep_tiers_are_read_only_where_they_can_matter(tmp_path, monkeypatch):
    good = make_part(0, [(0, [float(100 + i)]) for i in range(20)])
    poor = make_part(1, [(0, [float(i)]) for i in range(20)])  # and the other classes are empty
    read = []
    original = ScoreTable.read
    monkeypatch.setattr(
        ScoreTable,
        "read",
        lambda table, tier: read.append((table.path.name, tier)) or original(table, tier),
    )
    merge(write_parts(tmp_path, [good, poor]), Cut(np.full(NUM_CLASSES, 3)), threads=1)
    assert {tier for name, tier in read if name == "part-00001.parquet"} == {0, 1}


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


def test_class_ids_the_teacher_does_not_have_are_refused_naming_the_part(tmp_path):
    paths = write_parts(tmp_path, [make_part(0, [(NUM_CLASSES - 1, [1.0])])])
    with pytest.raises(DataError, match=r"part-00000\.parquet: class ids 4 to 4, but .* 2 classes"):
        merge(paths, Cut(np.full(2, 1)))


def test_a_table_without_tiers_is_refused(tmp_path):
    (path,) = write_parts(tmp_path, [make_part(0, [(0, [1.0])])])
    table = tables.read_table(path, schemas.SCORES)
    tables.write_table(path, {name: table[name] for name in table.column_names}, schemas.SCORES)
    with pytest.raises(DataError, match="without tiers"):
        merge([path], Cut(np.full(NUM_CLASSES, 1)))

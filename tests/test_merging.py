"""The merge over the parts of scores, against brute force."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_parts import (
    NUM_CLASSES,
    brute_force,
    images,
    make_part,
    per_class,
    small_tiers,
    write_parts,
)
from semisup.merging import Wanted, count_ahead, find, gather, merge
from semisup.scores import Rows, ScoreTable
from semisup.selection import Cut, concatenate, take_ties
from semisup.tables import DataError

__all__ = ["small_tiers"]


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


def test_class_ids_the_teacher_does_not_have_are_refused_naming_the_part(tmp_path):
    paths = write_parts(tmp_path, [make_part(0, [(NUM_CLASSES - 1, [1.0])])])
    with pytest.raises(DataError, match=r"part-00000\.parquet: class ids 4 to 4, but .* 2 classes"):
        merge(paths, Cut(np.full(2, 1)))

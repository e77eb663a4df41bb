"""The mathematics of the selection, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.selection import (
    TIERS,
    Ranked,
    closest_images,
    find_copies,
    rank_order,
    ranks_in_class,
    score_of,
    tier_order,
    top_k,
)

NUM_CLASSES = 4

# Few distinct scores and images, so that ties are the rule.
rows = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(-3, 3), st.integers(0, 40)),
    max_size=80,
    unique_by=lambda row: (row[0], row[2]),
)


def ranked(rows: list[tuple[int, float, int]]) -> Ranked:
    columns = np.array(rows, float).reshape(-1, 3).T
    return Ranked(
        columns[0].astype(np.int16),
        columns[1].astype(np.float32),
        columns[2].astype(np.int64),
        np.ones(len(rows), np.int8),
    )


def oracle(rows: list[tuple[int, float, int]], k: int) -> list[tuple[int, float, int]]:
    chosen = []
    for class_id in range(NUM_CLASSES):
        own = sorted((-score, identity) for c, score, identity in rows if c == class_id)
        chosen += [(class_id, -score, identity) for score, identity in own[:k]]
    return chosen


def as_tuples(result: Ranked) -> list[tuple[int, float, int]]:
    return list(
        zip(
            result.class_id.tolist(),
            result.log_odds.tolist(),
            result.identity.tolist(),
            strict=True,
        )
    )


@given(rows, st.integers(1, 12), st.randoms(use_true_random=False), st.integers(1, 7))
def test_top_k_equals_sorting_everything_whatever_the_grouping(rows, k, random, num_blocks):
    expected = oracle(rows, k)
    random.shuffle(rows)
    blocks = [ranked(rows[i::num_blocks]) for i in range(num_blocks)]
    assert as_tuples(top_k(blocks, NUM_CLASSES, k)) == expected


def test_top_k_breaks_ties_by_identity_also_when_the_class_is_full():
    late_but_first = [ranked([(0, 1.0, 7), (0, 1.0, 9)]), ranked([(0, 1.0, 2)])]
    assert as_tuples(top_k(late_but_first, 1, 2)) == [(0, 1.0, 2), (0, 1.0, 7)]


def test_top_k_of_a_class_that_holds_exactly_k_lets_a_better_row_in():
    blocks = [ranked([(0, 1.0, 1), (0, 3.0, 2)]), ranked([(0, 2.0, 3)])]
    assert as_tuples(top_k(blocks, 1, 2)) == [(0, 3.0, 2), (0, 2.0, 3)]


def test_top_k_of_nothing_is_empty():
    assert as_tuples(top_k([], NUM_CLASSES, 3)) == []


@given(rows)
def test_ranks_count_from_one_within_each_class(rows):
    scores = ranked(rows)
    sorted_ids = scores.class_id[rank_order(scores)]
    expected = [int((sorted_ids[:i] == c).sum()) + 1 for i, c in enumerate(sorted_ids)]
    assert ranks_in_class(sorted_ids).tolist() == expected


@given(rows)
def test_tier_order_keeps_every_row_once(rows):
    order, row_groups = tier_order(ranked(rows))
    assert sorted(order.tolist()) == list(range(len(rows)))
    assert sum(row_groups) == len(rows)


def test_tiers_hold_the_best_of_every_class_first():
    per_class = 100
    scores = ranked([(c, float(i), 1000 * c + i) for c in range(3) for i in range(per_class)])
    order, row_groups = tier_order(scores)
    first = scores.take(order[: row_groups[0]])
    assert row_groups == [3 * TIERS[0], 3 * (TIERS[1] - TIERS[0]), 3 * (per_class - TIERS[1])]
    assert np.bincount(first.class_id).tolist() == [TIERS[0]] * 3
    assert first.log_odds.min() == per_class - TIERS[0]
    assert rank_order(first).tolist() == list(range(len(first.identity)))


def test_scores_are_probabilities_of_log_odds():
    log_odds = np.array([-200, -1, 0, 1, 200], np.float32)
    assert score_of(log_odds) == pytest.approx([0, 0.26894143, 0.5, 0.7310586, 1])


@given(st.lists(st.integers(0, 5), max_size=30))
def test_copies_are_all_but_the_first_image_with_the_same_bytes(contents):
    identities = np.arange(len(contents), dtype=np.int64) * 3
    hashes = np.array([[c, c * 7] for c in contents], np.uint64).reshape(-1, 2)
    copies, firsts = find_copies(identities, hashes)
    expected = [(i, contents.index(c)) for i, c in enumerate(contents) if contents.index(c) < i]
    assert copies.tolist() == [3 * i for i, _ in expected]
    assert firsts.tolist() == [3 * i for _, i in expected]


def test_hashes_that_agree_in_one_half_are_different_images():
    hashes = np.array([[1, 2], [1, 3], [4, 2]], np.uint64)
    assert find_copies(np.arange(3), hashes)[0].tolist() == []


def test_the_closest_images_count_images_not_pairs():
    identities = np.array([5, 5, 6, 7])
    distances = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    found, nearest = closest_images(identities, distances, closest=2, max_distance=None)
    assert found.tolist() == [5, 6]
    assert nearest.tolist() == pytest.approx([0.1, 0.3])


def test_closest_and_max_distance_are_a_union():
    identities = np.array([1, 2, 3])
    distances = np.array([0.3, 0.1, 0.2], np.float32)
    assert closest_images(identities, distances, 1, 0.2)[0].tolist() == [2, 3]
    assert closest_images(identities, distances, 3, 0.0)[0].tolist() == [1, 2, 3]
    assert closest_images(identities, distances, 0, None)[0].tolist() == []

"""The mathematics of the selection, against brute force."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.selection import (
    TIERS,
    Cut,
    Gathered,
    Ranked,
    best_first,
    class_sizes,
    closest_images,
    contains,
    drawn,
    find_copies,
    lowest_log_odds,
    rank_order,
    ranks_in_class,
    score_of,
    tier_order,
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


@given(rows)
def test_rank_order_is_class_then_score_then_the_order_given(rows):
    rows.sort(key=lambda row: row[2])
    scores = ranked(rows)
    found = as_tuples(scores.take(rank_order(scores.class_id, scores.log_odds)))
    assert found == oracle(rows, len(rows))


def test_all_finite_floats_are_put_in_order():
    values = np.array([3e38, 1.5, 1e-45, 0, -1e-45, -1.5, -3e38], np.float32)
    mixed = np.array([4, 0, 6, 2, 5, 1, 3])
    assert values[mixed][best_first(values[mixed])].tolist() == values.tolist()


@given(rows, st.integers(0, 12), st.randoms(use_true_random=False), st.integers(1, 7))
def test_the_cut_is_the_score_of_the_kth_row_whatever_the_grouping(rows, k, random, num_blocks):
    random.shuffle(rows)
    cut = Cut(np.full(NUM_CLASSES, k))
    for i in range(num_blocks):
        block = ranked(rows[i::num_blocks])
        block = block.take(np.flatnonzero(block.log_odds >= cut.floor[block.class_id]))
        cut.offer(block.class_id, block.log_odds)
        if random.random() < 0.5:
            cut.settle()
    for fewer in (k, k // 2):
        lengths, last, quota = cut.last(np.full(NUM_CLASSES, fewer))
        for class_id in range(NUM_CLASSES):
            own = sorted((score for c, score, _ in rows if c == class_id), reverse=True)[:fewer]
            assert lengths[class_id] == len(own)
            assert last[class_id] == (own[-1] if own else np.inf)
            assert quota[class_id] == (own.count(own[-1]) if own else 0)


def test_rows_below_the_floor_cannot_change_a_full_class():
    cut = Cut(np.array([2]))
    cut.offer(np.zeros(3, np.int16), np.array([1, 2, 3], np.float32))
    cut.settle()
    assert 2 < cut.floor[0] < 2.000001


@given(rows, st.integers(1, 5))
def test_gathered_rows_come_out_in_rank_order(rows, num_blocks):
    rows.sort(key=lambda row: row[2])
    gathered = Gathered(np.bincount([c for c, _, _ in rows], minlength=NUM_CLASSES))
    for block in np.array_split(np.arange(len(rows)), num_blocks):
        part = ranked([rows[i] for i in block])
        gathered.add(part.take(rank_order(part.class_id, part.log_odds)))
    assert as_tuples(gathered.ranked()) == oracle(rows, len(rows))


def test_missing_rows_are_noticed():
    with pytest.raises(ValueError, match="missing"):
        Gathered(np.array([1])).ranked()


@pytest.mark.parametrize("min_score", [1e-300, 0.001, 0.5, 0.9, 0.9999999, 1 - 1e-9, 1 - 2**-53])
def test_the_lowest_log_odds_are_the_first_of_that_probability(min_score):
    lowest = np.float32(lowest_log_odds(min_score))
    below = np.nextafter(lowest, np.float32(-np.inf))
    exact = Decimal(min_score).ln() - (1 - Decimal(min_score)).ln()
    assert Decimal(float(below)) < exact <= Decimal(float(lowest))


def test_every_log_odds_are_allowed_without_a_least_score():
    assert lowest_log_odds(0.0) == -np.inf


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.9, 1.0])
def test_a_fraction_is_drawn_evenly_from_every_shard(fraction):
    identities = (np.arange(20)[:, None] << 32) + np.arange(5000)
    shares = drawn(identities, fraction, seed=3).mean(axis=1)
    assert shares.mean() == pytest.approx(fraction, abs=0.006)
    assert shares == pytest.approx(np.full(20, fraction), abs=0.035)


def test_another_seed_draws_other_images():
    identities = np.arange(10_000)
    for shift in (0, 1, -1):
        both = drawn(identities, 0.5, seed=0) & drawn(identities + shift, 0.5, seed=1)
        assert both.mean() == pytest.approx(0.25, abs=0.03)


@given(st.integers(1, 50), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_zipf_shares_what_balanced_gives_by_the_place_of_each_class(k, num_best):
    sizes = class_sizes("zipf", k, np.array(num_best))
    assert sizes.sum() == k * len(num_best)
    order = sorted(range(len(num_best)), key=lambda c: (-num_best[c], c))
    first = k * len(num_best) / sum(1 / r for r in range(1, len(num_best) + 1))
    for place, class_id in enumerate(order, start=1):
        assert abs(sizes[class_id] - first / place) < 1
    assert class_sizes("balanced", k, np.array(num_best)).tolist() == [k] * len(num_best)


def test_a_cut_holds_no_more_than_it_may(monkeypatch):
    rng = np.random.default_rng(0)
    cut = Cut(np.full(NUM_CLASSES, 1000))
    for _ in range(100):
        log_odds = rng.normal(size=100_000).astype(np.float32)
        class_id = rng.integers(NUM_CLASSES, size=100_000).astype(np.int16)
        rows = np.flatnonzero(log_odds >= cut.floor[class_id])
        cut.offer(class_id[rows], log_odds[rows])
    assert len(cut._keys) <= 1 << 21  # of 10 million rows


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_contains_is_membership(some, values):
    found = contains(np.array(sorted(some), np.int64), np.array(values, np.int64))
    assert found.tolist() == [value in some for value in values]


@given(rows)
def test_ranks_count_from_one_within_each_class(rows):
    scores = ranked(rows)
    sorted_ids = scores.class_id[rank_order(scores.class_id, scores.log_odds)]
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
    assert row_groups[:3] == [3 * TIERS[0], 3 * (TIERS[1] - TIERS[0]), 3 * (per_class - TIERS[1])]
    assert row_groups[3:] == [0] * (len(TIERS) - 2)
    assert np.bincount(first.class_id).tolist() == [TIERS[0]] * 3
    assert first.log_odds.min() == per_class - TIERS[0]
    assert rank_order(first.class_id, first.log_odds).tolist() == list(range(len(first.identity)))


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

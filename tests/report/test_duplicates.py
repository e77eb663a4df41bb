import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semisup.config import Remove
from semisup.report.duplicates import MAX_PAIRS, choose_pairs, cuts_in_force


@given(st.lists(st.booleans(), max_size=100))
def test_no_pair_is_shown_twice_and_none_too_many(removed: list[bool]) -> None:
    closest, at_cut = choose_pairs(np.array(removed, bool))
    shown = [*closest, *at_cut]
    assert len(shown) == len(set(shown)) == min(len(removed), MAX_PAIRS)
    assert all(0 <= place < len(removed) for place in shown)


def test_pairs_next_to_the_cut_are_shown_on_both_of_its_sides() -> None:
    removed = np.arange(100) < 50
    assert choose_pairs(removed) == (list(range(12)), list(range(44, 56)))


def test_the_cut_of_the_closest_is_the_distance_of_the_last_of_them() -> None:
    cuts = cuts_in_force(Remove(closest=2, max_distance=0.5), np.array([0.1, 0.2, 0.3]))
    assert cuts == [("closest 2", 0.2), ("max_distance 0.5", 0.5)]


def test_a_distance_of_nothing_is_a_cut() -> None:
    cuts = cuts_in_force(Remove(max_distance=0), np.array([0.1]))
    assert cuts == [("max_distance 0", 0)]


def test_without_a_rule_there_is_no_cut() -> None:
    assert cuts_in_force(Remove(), np.array([0.1])) == []

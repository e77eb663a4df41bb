"""Accuracies and their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.metrics import wilson_interval


def test_wilson_interval_of_a_published_example():
    # Newcombe (1998), table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_the_interval_holds_the_share_and_stays_in_range(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_without_trials_nothing_is_known():
    assert wilson_interval(0, 0) == (0, 1)

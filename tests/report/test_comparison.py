import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.metrics import wilson_interval
from semisup.report.comparison import (
    Accuracy,
    Comparison,
    binomial_p,
    compare_hits,
    headline,
    p_text,
)


def accuracy(hits: int, total: int = 1000) -> Accuracy:
    return Accuracy(hits / total, *wilson_interval(hits, total), total)


def compare(
    student: int, baseline: int, dataset: str = "test", name: str = "student"
) -> Comparison:
    """Both right on the first images: only the better of the two is ever alone."""
    places = np.arange(1000)
    pairs = compare_hits(places < student, places < baseline)
    return Comparison(
        name, "finetune", "baseline", "train", dataset, accuracy(student), accuracy(baseline), pairs
    )


@pytest.mark.parametrize("first, second", [(0, 0), (3, 8), (5, 42), (10, 10), (1, 0), (400, 300)])
def test_the_p_value_is_that_of_the_exact_binomial(first: int, second: int) -> None:
    tosses = first + second
    tail = sum(math.comb(tosses, k) for k in range(min(first, second) + 1))
    assert binomial_p(first, second) == pytest.approx(min(1.0, 2 * tail / 2**tosses))


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_p_value_is_a_probability_and_takes_no_side(first: int, second: int) -> None:
    assert 0 <= binomial_p(first, second) == binomial_p(second, first) <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_every_image_falls_in_one_of_four_cases(hits: list[tuple[bool, bool]]) -> None:
    student, baseline = np.array(hits, bool).reshape(-1, 2).T
    pairs = compare_hits(student, baseline)
    assert sum(pairs) == len(hits)
    assert pairs.both + pairs.only_student == student.sum()


def test_a_clear_gain_is_said_with_its_size() -> None:
    assert headline([compare(900, 860)], 1) == (
        "The student beat its budget-matched baseline on test by 4.0 points."
    )


def test_a_loss_is_said_as_plainly() -> None:
    assert headline([compare(860, 900)], 1) == (
        "The student lost to its budget-matched baseline on test by 4.0 points."
    )


def test_a_difference_that_may_be_chance_is_no_victory() -> None:
    assert headline([compare(903, 900)], 1) == (
        "The student came out ahead of its budget-matched baseline on test by 0.3 points, "
        "which may be chance."
    )


def test_equal_accuracies_match() -> None:
    assert "matched its budget-matched baseline on test." in headline([compare(900, 900)], 1)


def test_the_surer_result_comes_first() -> None:
    found = headline([compare(903, 900, "validation"), compare(860, 900, "test")], 1)
    assert found == (
        "The student lost to its budget-matched baseline on test by 4.0 points, and came out ahead "
        "of it on validation by 0.3 points, which may be chance."
    )


def test_several_students_are_counted() -> None:
    comparisons = [compare(900, 860, name="a"), compare(860, 900, name="b")]
    assert "in 1 of 2 comparisons" in headline(comparisons, 1)


def test_without_a_baseline_nothing_is_claimed() -> None:
    assert "No student has a baseline" in headline([], 3)


def test_overlapping_intervals_are_admitted() -> None:
    comparison = compare(910, 900)
    assert comparison.overlap
    assert comparison.confidence.startswith("the 95 % intervals overlap, but the paired")


def test_a_model_measured_on_nothing_is_not_compared() -> None:
    nothing = Accuracy(math.nan, 0.0, 1.0, 0)
    comparison = compare(900, 860)._replace(
        of_student=nothing, pairs=compare_hits(*np.empty((2, 0)))
    )
    assert "could not be compared with" in headline([comparison], 1)


@pytest.mark.parametrize(
    "value, text",
    [(1.0, "p = 1"), (0.2345, "p = 0.23"), (2.5e-8, "p = 2.5 × 10⁻⁸"), (0.0, "p < 10⁻³⁰⁰")],
)
def test_p_values_are_written_for_people(value: float, text: str) -> None:
    assert p_text(value) == text

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.ledger import Equation, Term, prove
from semisup.tables import DataError

counts = st.lists(st.integers(0, 10**12), max_size=6)


def side(values: list[int]) -> tuple[Term, ...]:
    return tuple(Term(f"kind {i}", value) for i, value in enumerate(values))


@given(counts)
def test_an_equation_holds_when_its_sides_have_one_sum(values: list[int]) -> None:
    assert Equation("all is there", side(values), (Term("total", sum(values)),)).holds


@given(counts, st.integers(-(10**6), 10**6).filter(bool))
def test_an_equation_breaks_when_a_single_sample_is_lost_or_doubled(
    values: list[int], error: int
) -> None:
    assert not Equation("all is there", side(values), (Term("total", sum(values) + error),)).holds


@given(counts, st.integers(0, 10**6))
def test_an_inequality_holds_up_to_its_right_side(values: list[int], more: int) -> None:
    total = sum(values)
    assert Equation("no more", side(values), (Term("limit", total + more),), "≤").holds
    assert not Equation("no more", side(values), (Term("limit", total - more - 1),), "≤").holds


def test_an_empty_side_is_zero() -> None:
    assert Equation("none", (Term("lost", 0),), ()).holds


def test_what_holds_is_proved_in_silence() -> None:
    prove("dataset d", [Equation("all is there", (Term("a", 1),), (Term("b", 1),))])


def test_a_broken_equation_is_named_with_both_numbers() -> None:
    broken = Equation("every row is packed", (Term("packed", 1234),), (Term("selected", 1235),))
    with pytest.raises(DataError, match=r"(?s)selection s.*every row is packed.*1,234 and 1,235"):
        prove("selection s", [broken])


def test_all_broken_equations_are_named() -> None:
    broken = [Equation(claim, (Term("a", 1),), ()) for claim in ("first claim", "second claim")]
    with pytest.raises(DataError, match=r"(?s)first claim.*second claim"):
        prove("dataset d", broken)

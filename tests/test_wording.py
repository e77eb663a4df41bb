import pytest

from semisup.wording import name_first


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        ([*"abcd"], "a, b, c and 1 more"),
        (["a"] * 1235, "a, a, a and 1,232 more"),
        (["a, b", "c"], "a, b; c"),
        ((name for name in "abcd"), "a, b, c and 1 more"),
        (["a", "b", "c", "d, e"], "a, b, c and 1 more"),
        (["x" * 200], "x" * 200),
        (["x" * 200 + "y" * 200], "x" * 100 + "…" + "y" * 100),
    ],
)
def test_the_first_names_are_said_and_how_many_more_there_are(names, text) -> None:
    assert name_first(names, 3) == text

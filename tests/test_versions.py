"""No step may make something else of the same input while its version stays."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).with_name("steps")))

import golden

RECORDED: dict[str, dict[str, Any]] = json.loads(golden.GOLDEN.read_text())
RECORD = "record what it makes now: python tests/golden.py"


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return golden.record()


def test_every_step_is_recorded() -> None:
    kinds = [
        kind
        for kind in golden.settings.Settings.__subclasses__()
        if kind.__module__ == golden.settings.__name__
    ]
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in golden.STEPS}
    assert RECORDED.keys() == {kind.__name__ for kind in golden.STEPS}


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_step_makes_changes_only_with_its_version(
    made: dict[str, dict[str, Any]], name: str
) -> None:
    before, now = RECORDED[name], made[name]
    if before["version"] != now["version"]:
        pytest.fail(f"the version of {name} is new; {RECORD}")
    assert golden.same(before["made"], now["made"]), (
        f"{name} makes something else of the same input. If that is meant, raise its version in "
        f"settings.py and {RECORD}"
    )


def test_other_results_of_the_same_version_are_not_recorded() -> None:
    before = {"A": {"version": 1, "made": "x"}, "B": {"version": 1, "made": [1.0, "y"]}}
    assert golden.unversioned(before, {**before, "B": {"version": 1, "made": [1.0001, "y"]}}) == []
    assert golden.unversioned(before, {"A": {"version": 2, "made": "z"}}) == []
    assert golden.unversioned(before, {"A": {"version": 1, "made": "z"}}) == ["A"]
    assert golden.unversioned(before, {"B": {"version": 1, "made": [1.1, "y"]}}) == ["B"]

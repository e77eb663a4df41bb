"""No step may make something else of the same input while its version stays."""

import json
import sys
from functools import partial
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
    expected = before["made"]
    if not isinstance(expected, str):
        close = partial(pytest.approx, rel=1e-3, abs=1e-3)
        expected = [one if isinstance(one, str) else close(one) for one in expected]
    assert now["made"] == expected, (
        f"{name} makes something else of the same input. If that is meant, raise its version in "
        f"settings.py and {RECORD}"
    )

"""What is said of one image, from a selection made here."""

from pathlib import Path
from typing import Any

import pytest
from small_selection import make_selection, prepare

from semisup.questions import explain


def ask(
    folder: Path,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    **keys: Any,
) -> str:
    """What is said of an image in a new selection with these ``keys``."""
    patch.chdir(folder)
    make_selection(prepare(**keys))
    return explained(capsys, key)


def explained(capsys: pytest.CaptureFixture[str], key: str) -> str:
    explain.main(Path("config.yaml"), "top", key)
    return capsys.readouterr().out


def test_a_least_score_near_one_tells_scores_apart_that_float32_does_not(
    tmp_path, monkeypatch, capsys
) -> None:
    """Of log-odds from 18.5 to 21.14; a probability in float32 is 1 for all."""
    least = {"images_per_class": 9, "min_score": 1 - 1e-9}  # 20.72
    text = ask(tmp_path, monkeypatch, capsys, "u0-5", shift=18.0, **least)
    assert "bee: score > 0.999999 (log-odds 21.0000), selected: rank 2 of 2" in text
    below = "ant: score > 0.999999 (log-odds 20.5000), below min_score 0.999999999"
    assert below in explained(capsys, "u0-4")

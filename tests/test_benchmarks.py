"""A benchmark that nobody has run for a while still runs, at a size where its times say nothing."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_questions_are_asked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "questions.py"), str(tmp_path), "20"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "selected: rank 1 of" in done.stdout
    assert "plan, 4 x 4 x 3" in done.stdout


def test_what_a_merge_must_read_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    must_read, score_files = map(importlib.import_module, ("must_read", "score_files"))
    score_files.main(tmp_path, 2, 500)
    found = must_read.main(tmp_path / "semisup")
    assert [row["k"] for row in found] == [160, 1600, 16_000]
    columns = {columns for _, _, columns in must_read.Recorded.reads}
    others = ("shard_id", "sample_index", "prediction_rank")
    assert columns >= {("class_id", "log_odds"), others}

"""A benchmark that nobody has run for a while still runs, at a size where its times say nothing."""

import os
import subprocess
import sys
from pathlib import Path

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

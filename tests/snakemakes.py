"""Snakemake as people start it, and the README they start it by."""

import os
import re
import subprocess
import sys
from pathlib import Path

from small import ROOT

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run Snakemake on the repository with its own records kept in ``folder``."""
    command = [SNAKEMAKE, "--directory", str(folder), "--snakefile", str(ROOT / "Snakefile")]
    done = subprocess.run(
        [*command, "--cores", "2", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output[-5000:]
    return output


def readme_blocks(language: str) -> list[str]:
    """The blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)

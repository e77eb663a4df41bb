"""Snakemake as people start it, and the README they start it by."""

import re
import sys
import tempfile
from pathlib import Path

from processes import Process
from small import ROOT

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
LONGEST = 3600.0
"""Seconds that a run may take."""


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run Snakemake on the repository with its own records kept in ``folder``."""
    cores = () if "--profile" in arguments else ("--cores", "2")
    own = ["--directory", str(folder), "--snakefile", str(ROOT / "Snakefile")]
    with tempfile.TemporaryDirectory() as said:
        process = Process(Path(said) / "said", _main, [*own, *cores, *arguments])
        status, output = process.wait(LONGEST), process.said()
    assert not check or status == 0, output[-5000:]
    return output


def _main(arguments: list[str]) -> None:
    from snakemake import cli

    cli.main(arguments)


def readme_blocks(language: str) -> list[str]:
    """The blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)

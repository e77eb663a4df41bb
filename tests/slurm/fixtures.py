"""Each test has a cluster of its own: clusters are cheap, and these tests break them."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Run
from slurmbox import IS_ROOT, Box, missing


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A cluster; by ``parametrize(..., indirect=True)`` one with a database of finished jobs."""
    if lacks := missing():
        pytest.skip(f"no Slurm here: {', '.join(lacks)} missing")
    if time.time() > float(os.environ.get("SLURM_UNTIL") or "inf"):
        pytest.skip("NOT TESTED ON SLURM, NO TIME LEFT; all of it: make test-slurm")
    accounting = getattr(request, "param", False)
    if accounting and not (IS_ROOT and shutil.which("slurmdbd")):
        pytest.skip("no database of finished jobs here: needs root, slurmdbd, mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="box", dir="/tmp"))  # short, as sockets lie in it
    with Box(folder, accounting) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def calm(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed, made once for all tests and their processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "calm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "calm"
        if not folder.exists():
            making = Run(box, shared / "making")
            making.finish()
            making.folder.rename(folder)
    return folder


@pytest.fixture
def run(box: Box, calm: Path, tmp_path: Path) -> Run:
    """A run whose datasets are there, and that has its training before it."""
    folder = tmp_path / "run"
    shutil.copytree(calm, folder, ignore=shutil.ignore_patterns("models", "logs", "locks"))
    return Run(box, folder)

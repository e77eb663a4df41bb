"""The pipeline on a real Slurm of four nodes, where it can be installed; skipped elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurmbox import Box, missing

from small import ROOT

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no Slurm here, lacks {missing()}")

SNAKEMAKE = """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, _: None)
from snakemake.cli import main
main()
"""
"""Snakemake, which asks for the state of its jobs every second, where it would wait longer and longer."""

TWO_NODES = {
    "mpi": "srun", "nodes": 2, "tasks": 2, "ranks": 2, "gres": "gpu:2", "tasks_per_gpu": 0,
    "slurm_extra": "--ntasks-per-node=1 --exclusive", "slurm_partition": "gpu", "runtime": 10,
    "mem_mb": 4000,
}  # fmt: skip


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    folder = Path(tempfile.mkdtemp(prefix="box", dir="/tmp"))  # short, as sockets lie in it
    with Box(folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def profile(folder: Path) -> Path:
    """The profile of the repository, its memory and threads for nodes as small as these."""
    settings = yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.v9+.yaml").read_text())
    settings["set-threads"] = dict.fromkeys(settings["set-threads"], 2)
    for resources in settings["set-resources"].values():
        resources |= {"mem_mb": 4000, "runtime": 10}
    settings["set-resources"]["train"] = TWO_NODES
    settings["default-resources"] |= {"mem_mb": 2000, "runtime": 10}
    settings |= {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 1}
    path = folder / "profile" / "profile.v9+.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(settings))
    return path.parent


def snakemake(box: Box, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return box.run(
        sys.executable, "-c", SNAKEMAKE, "--directory", str(folder), "--snakefile",
        str(ROOT / "Snakefile"), "--configfile", str(folder / "config.yaml"), *arguments,
        env=environment, timeout=300,
    )  # fmt: skip


def test_two_nodes_of_two_ranks_train_together(box: Box, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((ROOT / "tests" / "tiny.yaml").read_text())
    target = "results/models/teacher/train/weights.pt"
    done = snakemake(box, tmp_path, "--profile", str(profile(tmp_path)), "--", target)
    log = tmp_path / "results" / "logs" / "train" / "teacher.log"
    said = log.read_text() if log.exists() else ""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + said
    assert (tmp_path / target).exists()
    assert re.search(r"job \d+ on g1 g2, ranks meet at g1", said)
    assert "by 4 x cpu" in said
    of_ranks = list((tmp_path / "results/models/teacher/train/logs").rglob("stderr.log"))
    assert len(of_ranks) == 4
    assert box.say("squeue", "-h", "-t", "PD,R") == ""

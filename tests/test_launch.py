"""Starting a step as one process or as several; several nodes are tested on a real Slurm."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import Dataset, make_jpeg
from semisup import settings
from semisup.config import Recipe
from semisup.launch import log_name
from small import ROOT, square

SHARD = [(str(i), {"jpg": make_jpeg(i), "cls": b"%d" % (i % 2)}) for i in range(9)]


def launch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    environment.pop("SLURM_JOB_ID", None)
    environment |= variables
    command = [sys.executable, "-m", "semisup.launch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_one_process_is_the_step_itself(tmp_path: Path) -> None:
    done = launch("--logs", str(tmp_path), "count_images", "--nonsense")
    assert done.returncode == 2
    assert "usage: count_images.py" in done.stderr


def test_ranks_train_together_and_each_has_its_log(tmp_path: Path, make_dataset: Dataset) -> None:
    recipe = Recipe(images=32, global_batch_size=8, crop="padded", cpu_threads=1)
    own = settings.Train(
        arch="cifar_resnet8_w4",
        preprocessing=square(12),
        classes=["no", "yes"],
        recipe=recipe,
        seed=0,
    )
    done = launch(
        "--ranks", "2", "--logs", str(tmp_path / "logs"), "train", "--settings", own.canonical(),
        "--manifests", *map(str, make_dataset([SHARD], 2)), "--init",
        "--checkpoints", str(tmp_path / "checkpoints"), "--weights", str(tmp_path / "a" / "weights.pt"),
        "--classes", str(tmp_path / "classes.txt"), "--metrics", str(tmp_path / "metrics.parquet"),
        "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(tmp_path / "metrics.parquet").images.iloc[-1] == 32
    logs = tmp_path / "logs"
    texts = [path.read_text() for path in (logs / socket.gethostname()).rglob("stderr.log")]
    assert len(texts) == 2
    assert sum("by 2 x cpu" in text for text in texts) == 1


def test_every_node_of_every_try_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "JobId=$5 Restarts=2"\n')
    (tmp_path / "scontrol").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    logs = tmp_path / "logs"
    launch("--ranks", "2", "--logs", str(logs), "nonsense", SLURM_JOB_ID="7", PATH=path)
    assert [each.name for each in logs.iterdir()] == [f"7-restart2-{socket.gethostname()}"]
    assert log_name("7", 0, "g1") == "7-g1"


def test_several_nodes_need_a_slurm_job(tmp_path: Path) -> None:
    done = launch("--nodes", "2", "--logs", str(tmp_path), "train")
    assert done.returncode == 1
    assert done.stderr == (
        "error: nodes: 2, but this is no Slurm job. Use --profile slurm, or set nodes to 1.\n"
    )


def on_a_node(folder: Path, first: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What srun starts on a node of a job of two, whose first one has this name."""
    job = {"SEMISUP_ON_NODE": "1", "SLURM_JOB_ID": "7", "MASTER_ADDR": first}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        job["MASTER_PORT"] = str(found.getsockname()[1])
    options = ["--nodes", "2", "--timeout", "3", "--logs", str(folder)]
    return launch(*options, "check_node", **job, **variables)


def test_a_node_that_never_comes_ends_the_others(tmp_path: Path) -> None:
    done = on_a_node(tmp_path, "127.0.0.1", SLURM_PROCID="0", GLOO_SOCKET_IFNAME="lo")
    assert done.returncode == 1
    assert "Timed out after" in done.stderr


def test_a_node_that_does_not_know_the_first_one_says_so_at_once(tmp_path: Path) -> None:
    done = on_a_node(tmp_path, "no-node.invalid", SLURM_PROCID="1")
    assert done.returncode == 1
    assert f"error: on {socket.gethostname()} the first node, 'no-node.invalid', " in done.stderr
    assert "must know each other by name" in done.stderr


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_name_that_leads_each_node_to_itself_is_refused(tmp_path: Path, number: str) -> None:
    done = on_a_node(tmp_path, "localhost", SLURM_PROCID=number)
    assert done.returncode == 1
    assert "where no other node can reach it. Ask the administrator" in done.stderr
    assert ("GLOO_SOCKET_IFNAME" in done.stderr) == (number == "0")


def test_a_rank_whose_torchrun_was_killed_while_it_started_ends(tmp_path: Path) -> None:
    """Else it would wait for the others, for ten minutes."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "workflow"), "SEMISUP_TORCHRUN": str(gone.pid),
        "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }  # fmt: skip
    step = ["semisup.steps.check_node", "--token", "token", "--found", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *step], env=environment, timeout=60)
    assert done.returncode == 1

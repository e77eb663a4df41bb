"""Every job of the pipeline on Slurm is disturbed once, each in another way: SEMISUP_SLOW=1."""

import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clusters import finish, interrupt, literal_command
from fixtures import box
from slurmbox import Box

from chaos import compare, digests

DISTURBANCES = ["cancel", "requeue", "crash", "lose its node", "SIGINT", "SIGTERM", "SIGKILL"]


def disturb(how: str, job: str, box: Box, snakemake: "subprocess.Popen[str]") -> None:
    match how:
        case "cancel":
            box.run("scancel", job)
        case "requeue":
            box.run("scontrol", "requeue", job)
        case "crash":
            box.run("pkill", "-9", "-f", "semisup.steps")
        case "lose its node":
            box.kill_node(node_of(job, box))
        case _:
            interrupt(snakemake, box, signal.Signals[how])


def node_of(job: str, box: Box) -> str:
    return box.run("squeue", "-h", "-j", job, "-o", "%B").stdout.strip()


def start_again(box: Box, folder: Path, was_killed: bool) -> "subprocess.Popen[str]":
    """As the message after a killed Snakemake tells: its jobs cancelled, the folder unlocked."""
    if was_killed:
        box.say("scancel", "--state=PENDING", "--user=root")
        box.say("scancel", "--state=RUNNING", "--user=root")
        while box.say("squeue", "-h", "-t", "PD,R,CG"):
            time.sleep(0.2)
        assert literal_command(box, folder, "--unlock").wait() == 0
    return literal_command(box, folder)


@pytest.mark.skipif("SEMISUP_SLOW" not in os.environ, reason="takes minutes: SEMISUP_SLOW=1")
def test_every_job_disturbed_once_ends_in_the_bytes_of_a_calm_run(box: Box, tmp_path: Path) -> None:
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    for folder in (calm, storm):
        folder.mkdir()
    finish(literal_command(box, calm), calm)

    snakemake = literal_command(box, storm)
    chance, turns = random.Random(0), itertools.cycle(DISTURBANCES)
    disturbed: dict[str, str] = {}
    while (status := snakemake.poll()) != 0:
        if status is not None:
            snakemake = start_again(box, storm, was_killed=status < 0)
        running = box.run("squeue", "-h", "-t", "R", "-o", "%i %k").stdout.splitlines()
        for job, what in (line.split() for line in running):
            if what in disturbed:
                continue
            time.sleep(chance.uniform(0, 4))
            if snakemake.poll() is not None:
                break
            how = next(turns)
            if how == "lose its node" and (how in disturbed.values() or node_of(job, box) == "c1"):
                how = "cancel"
            disturb(how, job, box, snakemake)
            disturbed[what] = how
            print(f"{what}: {how}", flush=True)
        time.sleep(0.2)
    finish(snakemake, storm)
    assert len(disturbed) >= 15
    assert {*disturbed.values()} == {*DISTURBANCES}
    assert compare(digests(calm), storm) == []
    assert not box.say("squeue", "-h", "-t", "PD,R,CG")

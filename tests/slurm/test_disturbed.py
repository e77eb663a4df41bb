"""What happens on clusters, happening: every time all that is made is that of a calm run, byte by byte.

Most disturb a training that has a checkpoint; they let the profile or a second start mend it.
The first three stand for all where there is no time for more (.ci/run).
"""

import shutil
import signal
import time
from pathlib import Path

import pytest
from clusters import WEIGHTS, Run, interrupt
from fixtures import box, calm, run
from slurmbox import Box


def test_two_nodes_lose_one_and_go_on_with_another(run: Run, box: Box, tmp_path: Path) -> None:
    datasets = shutil.copytree(run.folder, tmp_path / "undisturbed")
    undisturbed = Run(box, datasets, train={"gpus": 2})  # as many ranks on a node: the same bytes
    undisturbed.finish()
    run = Run(box, run.folder, train={"nodes": 2})
    snakemake = run.start()
    run.wait_for_checkpoint()
    box.kill_node("g2")
    run.finish(snakemake)
    log = run.folder / "results" / "logs" / "train" / "teacher.log"
    assert "on g1 g3, ranks meet at g1" in log.read_text()
    of_ranks = run.folder.glob("results/models/teacher/train/logs/*")
    nodes = sorted(folder.name.partition("-")[2] for folder in of_ranks)
    assert nodes == ["g1", "g2", "restart1-g1", "restart1-g3"]
    run.check_end(undisturbed.folder)


def test_a_selection_whose_jobs_are_disturbed_has_the_same_tables_and_tars(
    box: Box, calm: Path, tmp_path: Path
) -> None:
    """The node that scores U dies, selecting is cancelled, packing is queued again."""
    runs = [Run(box, shutil.copytree(calm, tmp_path / name)) for name in ("undisturbed", "run")]
    for each in runs:
        each.configure(duplicates=None)
        each.target = "results/shards/top/manifest-00000.json"
    undisturbed, run = runs
    undisturbed.finish_here()
    to_come = {
        "score_shards": lambda job: box.kill_node(box.say("squeue", "-h", "-j", job, "-o", "%B")),
        "select": lambda job: box.say("scancel", job),
        "pack_selection": lambda job: box.say("scontrol", "requeue", job),
    }
    snakemake = run.start()
    while to_come and snakemake.poll() is None:
        running = box.say("squeue", "-h", "-t", "R", "-o", "%i %k").splitlines()
        for job, what in (line.split() for line in running):
            if rule := next((each for each in to_come if f"rule_{each}_" in what), None):
                to_come.pop(rule)(job)
        time.sleep(0.1)
    assert not to_come
    run.finish(snakemake)
    run.check_end(undisturbed.folder)


def test_a_job_that_is_requeued_goes_on(run: Run, calm: Path) -> None:
    snakemake = run.start()
    job = run.wait_for_checkpoint()
    run.box.say("scontrol", "requeue", job)
    said = run.finish(snakemake)
    run.check_end(calm)
    assert "Trying to restart" not in said
    assert "Restarts=1" in run.box.say("scontrol", "show", "job", job)
    assert max(map(int, run.box.say("squeue", "-h", "-t", "all", "-o", "%i").split())) == int(job)


def test_a_job_that_fails_is_tried_again_with_more_memory(run: Run, calm: Path) -> None:
    snakemake = run.start()
    run.wait_for_checkpoint()
    run.box.say("pkill", "-9", "-f", "semisup.steps.train")
    run.finish(snakemake)
    run.check_end(calm)
    memory = run.box.say("squeue", "-h", "-t", "all", "-o", "%i %m").split("\n")
    assert [line.split()[1] for line in sorted(memory)][-2:] == ["2000M", "4000M"]


@pytest.mark.parametrize("box", [False, True], ids=["", "accounting"], indirect=True)
def test_a_job_that_is_cancelled_from_outside_is_tried_again(run: Run, calm: Path) -> None:
    """The executor would ask sacct, with a database or without, and wait for ever."""
    snakemake = run.start()
    run.box.say("scancel", run.wait_for_checkpoint())
    assert "Trying to restart" in run.finish(snakemake)
    run.check_end(calm)


def test_a_training_longer_than_its_job_goes_on_in_the_next(run: Run, calm: Path) -> None:
    snakemake = run.start()
    job = run.wait(lambda: run.box.say("squeue", "-h", "-t", "R", "-o", "%i"))
    run.box.say("scontrol", "update", f"jobid={job}", "TimeLimit=1")
    run.wait_for_checkpoint()
    trainers = list(map(str, run.trainers()))
    run.box.say("kill", "-STOP", *trainers)  # as if it needed more than its minute
    run.wait(lambda: run.box.say("squeue", "-h", "-j", job, "-o", "%L") in LAST_SECONDS)
    run.box.say("kill", "-CONT", *trainers)
    run.wait(lambda: not run.trainers())
    run.box.say("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    said = run.finish(snakemake)
    run.check_end(calm)
    assert "Trying to restart" not in said  # queued again by itself, not by Snakemake


LAST_SECONDS = {f"0:0{second}" for second in range(6)}


def test_a_training_that_is_asked_to_make_room_goes_on_later(run: Run, calm: Path) -> None:
    """As administrators do, and `--signal=USR1@120`: by a signal to every process of its steps."""
    snakemake = run.start()
    job = run.wait_for_checkpoint()
    run.box.say("scancel", "--signal=USR1", job)
    said = run.finish(snakemake)
    run.check_end(calm)
    assert "Trying to restart" not in said
    assert "Restarts=1" in run.box.say("scontrol", "show", "job", job)


def test_a_node_without_its_network_does_no_harm(run: Run, calm: Path) -> None:
    """What runs on it trains on, beside the job that Slurm starts in its place: two writers."""
    snakemake = run.start()
    run.wait_for_checkpoint()
    cut_off = set(run.trainers())
    run.box.cut_off("g1")
    run.box.say("kill", "-STOP", *map(str, cut_off))
    run.wait(lambda: set(run.trainers()) - cut_off)
    before = set(run.checkpoints())
    run.wait(lambda: set(run.checkpoints()) - before)
    run.box.say("kill", "-CONT", *map(str, cut_off))
    run.wait(lambda: not cut_off & set(run.trainers()))
    run.finish(snakemake)
    run.check_end(calm)


def test_ctrl_c_cancels_the_jobs_and_the_next_start_goes_on(run: Run, calm: Path) -> None:
    snakemake = run.start()
    run.wait_for_checkpoint()
    trainers = list(map(str, run.trainers()))
    run.box.say("kill", "-STOP", *trainers)  # it takes seconds to plan, and the training no longer
    (line,) = (line for line in run.status().splitlines() if line.startswith("train "))
    assert line.split()[1:6] == ["0", "1", "0", "0", "1"]  # the teacher's; the baseline's waits
    run.box.say("kill", "-CONT", *trainers)
    interrupt(snakemake, run.box, signal.SIGINT)
    run.finish(snakemake, status=1)
    run.wait(lambda: not run.queue())
    run.finish()
    run.check_end(calm)


def test_sigterm_lets_the_jobs_finish(run: Run, calm: Path) -> None:
    snakemake = run.start()
    run.wait_for_checkpoint()
    interrupt(snakemake, run.box, signal.SIGTERM)
    run.finish(snakemake, status=1)
    assert not run.queue()
    assert "Nothing to be done" in run.finish()
    run.check_end(calm)


def test_after_a_killed_snakemake_the_message_tells_how_to_go_on(run: Run, calm: Path) -> None:
    snakemake = run.start()
    job = run.wait_for_checkpoint()
    interrupt(snakemake, run.box, signal.SIGKILL)
    snakemake.wait()
    said = run.finish(status=1)
    assert "Directory cannot be locked" in said
    assert f"  {job} RUNNING rule_train_wildcards_teacher" in said
    assert f"`scancel {job}`, then `snakemake --unlock`, and start again." in said
    run.box.say("scancel", job)
    run.wait(lambda: not run.queue())
    run.finish(run.start("--unlock"))
    run.finish()
    run.check_end(calm)


def test_what_a_killed_snakemake_left_is_neither_doubled_nor_trusted(run: Run) -> None:
    snakemake = run.start()
    job = run.wait_for_checkpoint()
    interrupt(snakemake, run.box, signal.SIGKILL)
    snakemake.wait()
    run.finish(run.start("--unlock"))
    said = run.finish(status=1)
    assert f"in the queue, and make what this one would:\n  {job} RUNNING rule_train_" in said
    run.wait(lambda: not run.queue())
    made = (run.folder / WEIGHTS).read_bytes()
    run.change_recipe(base_lr=0.01)
    run.finish()
    assert (run.folder / WEIGHTS).read_bytes() != made

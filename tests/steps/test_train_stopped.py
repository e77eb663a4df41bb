"""A training that is killed, asked to stop, or was run before: where it goes on, and what is left."""

import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from trainings import OFTEN, RECIPE, SHARDS, SLOW, Training, make_settings, run

from conftest import Dataset, make_dataset
from semisup import checkpoint, training

LONG = make_settings(RECIPE.model_copy(update={"images": 400}))


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Training:
    """A long training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    manifests = make_dataset.__wrapped__(folder)(SHARDS, 2)  # type: ignore[attr-defined]
    return Training(folder / "run", manifests, LONG).finish_here()


def test_a_training_cut_off_anywhere_ends_with_the_same_weights(
    tmp_path, make_dataset: Dataset, monkeypatch
):
    manifests = make_dataset(SHARDS, 2)
    calm = run(tmp_path / "calm", manifests)
    monkeypatch.setattr(training, "_is_due", lambda *_: True)
    save, saved = checkpoint.save, []

    def save_and_die(folder: Path, step: int, state: dict[str, object]) -> None:
        save(folder, step, state)
        saved.append(step)
        if len(saved) in (2, 5):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", manifests)
    cut = run(tmp_path / "cut", manifests)
    assert saved[0] == 1 and sorted(set(saved)) == saved  # no step was done twice
    assert (cut / "weights.pt").read_bytes() == (calm / "weights.pt").read_bytes()
    assert (cut / "metrics.parquet").read_bytes() == (calm / "metrics.parquet").read_bytes()


def test_checkpoints_do_not_wait_for_a_row_of_metrics(tmp_path, make_dataset: Dataset, monkeypatch):
    """A row of a large model may take an hour. A kill then costs a minute."""
    monkeypatch.setattr(training, "METRIC_ROWS", 2)
    manifests = make_dataset(SHARDS, 2)
    calm = run(tmp_path / "calm", manifests)
    monkeypatch.setattr(training, "_is_due", lambda *_: True)
    save = checkpoint.save

    def save_and_die(folder: Path, step: int, state: dict[str, object]) -> None:
        save(folder, step, state)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", manifests)
    cut = run(tmp_path / "cut", manifests)
    assert (cut / "weights.pt").read_bytes() == (calm / "weights.pt").read_bytes()
    assert (cut / "metrics.parquet").read_bytes() == (calm / "metrics.parquet").read_bytes()
    assert pd.read_parquet(cut / "metrics.parquet").step.tolist() == [6, 13]


@pytest.mark.parametrize(
    ("seconds", "since", "took", "due"),
    [
        (0, 1.4, 0.0, True),
        (0, 1.3, 0.0, False),
        (100, 34, 0.0, False),
        (100, 35, 0.0, True),
        (9999, 59, 0.0, False),
        (9999, 61, 0.0, True),
        (9999, 61, 21.0, False),  # a checkpoint of many GB on a slow disk
        (9999, 430, 21.0, True),
    ],
)
def test_checkpoints_come_less_and_less_often_and_cost_a_twentieth_of_the_time(
    monkeypatch, seconds: float, since: float, took: float, due: bool
):
    """``seconds`` since the start when one was saved, ``since`` then."""
    now = 10**6
    monkeypatch.setattr(training.time, "monotonic", lambda: now)
    assert training._is_due(now - seconds - since, now - since, took) is due


def test_a_finished_training_is_not_repeated(tmp_path, make_dataset: Dataset, monkeypatch):
    manifests = make_dataset(SHARDS, 2)
    stage = run(tmp_path, manifests)
    weights = (stage / "weights.pt").read_bytes()
    (stage / "weights.pt").unlink()
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: pytest.fail("trained again"))
    run(tmp_path, manifests)
    assert (stage / "weights.pt").read_bytes() == weights


def test_a_changed_training_starts_anew(tmp_path, make_dataset: Dataset):
    manifests = make_dataset(SHARDS, 2)
    stage = run(tmp_path, manifests)
    changed = make_settings(RECIPE.model_copy(update={"base_lr": 0.25}))
    run(tmp_path, manifests, changed)
    assert len(list((stage / "checkpoints").iterdir())) == 1
    fresh = run(tmp_path / "fresh", manifests, changed)
    assert (stage / "weights.pt").read_bytes() == (fresh / "weights.pt").read_bytes()


def test_a_killed_process_goes_on_at_its_checkpoint(tmp_path, calm):
    cut = Training(tmp_path, calm.manifests, LONG, OFTEN)
    process = cut.start()
    cut.wait_for_checkpoint(process)
    process.signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (cut.stage / "weights.pt").exists()
    again = cut.start()
    assert again.wait() == 0, again.said()
    assert "going on after step" in again.said()
    assert cut.outputs() == calm.outputs()


@pytest.mark.parametrize("moment", ["at its start", "later"])
def test_a_killed_worker_ends_the_process_and_the_other_workers(tmp_path, calm, moment):
    """They heed no signal that asks: the process that waits for them would hang."""
    cut = Training(tmp_path, calm.manifests, LONG, SLOW)
    process = cut.start()
    while len(process.children()) < 2 and process.is_running():
        time.sleep(0.01)
    if moment == "later":
        cut.wait_for_checkpoint(process)
    killed, other = process.children()
    killed.kill()
    assert process.wait() == 1
    assert process.said().splitlines()[-1].startswith("error: a worker process was killed")
    assert not other.is_running()
    if moment == "later":
        assert cut.finish_here().outputs() == calm.outputs()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_asks_to_be_run_again(tmp_path, calm, number):
    cut = Training(tmp_path, calm.manifests, LONG, SLOW)
    process = cut.start()
    cut.wait_for_checkpoint(process)
    seen = cut.checkpoints()[-1]
    process.signal(number)
    assert process.wait() == os.EX_TEMPFAIL, process.said()
    assert cut.checkpoints()[-1] > seen
    if number == signal.SIGTERM:
        assert cut.finish_here().outputs() == calm.outputs()


def test_a_training_that_was_taken_over_ends_without_a_word_in_the_results(tmp_path, calm):
    """As on a node that lost its network, while the job runs again elsewhere."""
    cut = Training(tmp_path, calm.manifests, LONG, SLOW)
    process = cut.start()
    cut.wait_for_checkpoint(process)
    checkpoint.claim(cut.checkpoints()[0].parent)
    assert process.wait() == 1
    assert "another process has taken this training over; this one ends." in process.said()
    assert not (cut.stage / "weights.pt").exists()

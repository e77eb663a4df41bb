"""Training by several processes, with gloo on CPU: ranks of the agent that torchrun is."""

import signal

import pandas as pd
import psutil
import pytest
import torch
from trainings import RECIPE, SHARDS, SLOW, TRAIN, Training, make_settings

from conftest import Dataset, make_jpeg
from semisup import checkpoint, settings


def of_recipe(**keys: object) -> settings.Train:
    own = {"device_batch_size": 4, "base_lr": 0.1}
    return make_settings(RECIPE.model_copy(update=own | keys))


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Training:
    """The training of two ranks that nothing disturbed."""
    from conftest import make_dataset

    folder = tmp_path_factory.mktemp("calm")
    manifests = make_dataset.__wrapped__(folder)(SHARDS, 2)  # type: ignore[attr-defined]
    return Training(folder / "run", manifests, of_recipe(ema_images=50)).finish(2)


def test_two_ranks_learn_what_one_does_in_two_passes(tmp_path, calm):
    one = Training(tmp_path, calm.manifests, of_recipe(ema_images=50)).finish_here()
    torch.testing.assert_close(one.weights(), calm.weights(), rtol=2e-2, atol=2e-3)
    losses = [pd.read_parquet(run.stage / "metrics.parquet").loss for run in (one, calm)]
    pd.testing.assert_series_equal(*losses, rtol=1e-3)


def test_killed_ranks_go_on_to_the_same_bytes(tmp_path, calm):
    cut = Training(tmp_path, calm.manifests, of_recipe(ema_images=50), SLOW)
    process = cut.start(2)
    cut.wait_for_checkpoint(process)
    agent = psutil.Process(process.pid)
    for each in (agent, *agent.children(recursive=True)):
        each.kill()
    process.wait()
    assert not (cut.stage / "weights.pt").exists()
    assert cut.finish(2).outputs() == calm.outputs()


def test_one_rank_goes_on_where_two_were_stopped(tmp_path, calm):
    cut = Training(tmp_path, calm.manifests, of_recipe(ema_images=50), SLOW)
    process = cut.start(2)
    cut.wait_for_checkpoint(process)
    process.signal(signal.SIGTERM)  # the agent hands it on
    assert process.wait() != 0
    assert "a checkpoint after" in process.said()
    before = checkpoint.load(cut.checkpoints()[0].parent)
    assert before is not None
    cut.finish_here()
    torch.testing.assert_close(cut.weights(), calm.weights(), rtol=2e-2, atol=2e-3)
    metrics = pd.read_parquet(cut.stage / "metrics.parquet")
    assert metrics.images.tolist()[: len(before["metrics"])] == [
        row["images"] for row in before["metrics"]
    ]
    assert metrics.images.is_monotonic_increasing
    assert metrics.images.iloc[-1] == 100


FAILS = 'raise MemoryError("rank 1 has no memory left")'
HANGS = "signal.signal(signal.SIGTERM, signal.SIG_DFL), time.sleep(1000)"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (FAILS, ["rank 1 has no memory left", "model train: rank 1 of 2, in step 6"]),
        (HANGS, ["model train: rank 0 of 2, in step 6"]),  # who waits in vain says where
    ],
)
def test_a_rank_in_trouble_stops_all(tmp_path, calm, trouble: str, said: list[str]):
    """For one that hangs the others wait ten minutes; here three seconds."""
    troubled = f"""
import os, signal, time
from datetime import timedelta
from semisup import distributed, optim
distributed.TIMEOUT = timedelta(seconds=3)
set_learning_rate = optim.set_learning_rate
def in_trouble(optimizer, recipe, images):
    if os.environ["RANK"] == "1" and images >= 40:
        {trouble}
    return set_learning_rate(optimizer, recipe, images)
optim.set_learning_rate = in_trouble
{TRAIN}
"""
    process = Training(tmp_path, calm.manifests, of_recipe(), troubled).start(2)
    assert process.wait() != 0
    assert all(each in process.said() for each in said), process.said()


def test_a_loss_that_is_not_finite_stops_all_ranks_with_the_step(tmp_path, calm):
    process = Training(tmp_path, calm.manifests, of_recipe(base_lr=1e30)).start(2)
    assert process.wait() != 0
    assert process.said().count("error: model train: the loss is nan in step") == 2


def test_a_rank_without_an_image_waits_for_nobody(tmp_path, make_dataset: Dataset):
    """17 images of which one can be decoded: most steps leave both ranks without an image."""
    broken = [(str(i), {"jpg": b"no image", "cls": b"0"}) for i in range(16)]
    manifests = make_dataset([[*broken, ("good", {"jpg": make_jpeg(1), "cls": b"1"})]], 2)
    own = of_recipe(images=34, device_batch_size=None)
    run = Training(tmp_path / "run", manifests, own).finish(2)
    metrics = pd.read_parquet(run.stage / "metrics.parquet")
    assert metrics.failed.iloc[-1] == 32


def test_a_signal_to_every_process_of_a_job_is_one_request(tmp_path, calm):
    """Slurm sends it to torchrun and to its ranks, and torchrun sends it to them again."""
    cut = Training(tmp_path, calm.manifests, of_recipe(images=1000), SLOW)
    process = cut.start(2)
    cut.wait_for_checkpoint(process)
    seen = cut.checkpoints()[-1]
    ranks = process.children()
    for each in (*ranks, psutil.Process(process.pid), *ranks):
        each.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert "SIGTERM; a checkpoint after" in process.said()
    assert cut.checkpoints()[-1] > seen

"""Training by several processes, started by the real torchrun, with gloo on CPU; and its signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from test_train import SHARDS, make_settings
from test_train import run as train_here

from conftest import Dataset, make_jpeg
from semisup import checkpoint, models, settings
from semisup.config import Recipe

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(
    images=100, global_batch_size=8, device_batch_size=4, base_lr=0.1, crop="padded", cpu_threads=1
)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "workflow"),
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
STEP = "import runpy, sys; runpy.run_module('semisup.steps.train', run_name='__main__')"
SLOW = f"""
import time
from semisup import optim, training
training._is_due = lambda *_: True
set_learning_rate = optim.set_learning_rate
def slowly(*of):
    time.sleep(0.1)
    return set_learning_rate(*of)
optim.set_learning_rate = slowly
{STEP}
"""
"""The step, a tenth of a second slower at each update of the weights, with many checkpoints."""


class Run:
    """A training in a process of its own, in several, or in the one of the tests."""

    def __init__(
        self, folder: Path, manifests: list[Path], settings: settings.Train, code: str = STEP
    ) -> None:
        self.folder, self.manifests, self.settings = folder, manifests, settings
        self.stage = folder / "model" / "train"
        self.script = folder / "script.py"
        folder.mkdir(exist_ok=True)
        self.script.write_text(code)
        self.options = [
            "--settings", settings.canonical(), "--manifests", *map(str, manifests), "--init",
            "--checkpoints", str(self.stage / "checkpoints"),
            "--weights", str(self.stage / "weights.pt"),
            "--classes", str(self.stage / "classes.txt"),
            "--metrics", str(self.stage / "metrics.parquet"), "--workers", "1",
        ]  # fmt: skip

    def start(self, ranks: int = 1) -> subprocess.Popen[str]:
        launch = TORCHRUN if ranks == 2 else []
        command = [sys.executable, *launch, str(self.script), *self.options]
        return subprocess.Popen(
            command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def finish(self) -> "Run":
        """By two ranks."""
        process = self.start(2)
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
        return self

    def finish_here(self) -> "Run":
        """By one rank, this process, which has imported everything."""
        train_here(self.folder, self.manifests, self.settings, workers=1)
        return self

    def wait_for_checkpoint(self, process: subprocess.Popen[str]) -> None:
        while not self.checkpoints() and process.poll() is None:
            time.sleep(0.02)

    def checkpoints(self) -> list[Path]:
        return sorted(self.stage.glob("checkpoints/*/step-*.pt"))

    def outputs(self) -> list[bytes]:
        return [(self.stage / name).read_bytes() for name in ("weights.pt", "metrics.parquet")]

    def weights(self) -> dict[str, torch.Tensor]:
        state = models.load(self.stage / "weights.pt").state
        return {
            name: state[name] for name in state if "running" not in name and "tracked" not in name
        }


def of_recipe(**keys: object) -> settings.Train:
    return make_settings(RECIPE.model_copy(update=keys))


@pytest.fixture(scope="module")
def calm(tmp_path_factory, request) -> tuple[list[Path], Run]:
    """A dataset, and the training of two ranks on it that nothing disturbed."""
    from conftest import make_dataset

    folder = tmp_path_factory.mktemp("calm")
    manifests = make_dataset.__wrapped__(folder)(SHARDS, 2)  # type: ignore[attr-defined]
    return manifests, Run(folder / "run", manifests, of_recipe(ema_images=50)).finish()


def test_two_ranks_learn_what_one_does_in_two_passes(tmp_path, calm):
    manifests, two = calm
    one = Run(tmp_path, manifests, of_recipe(ema_images=50)).finish_here()
    torch.testing.assert_close(one.weights(), two.weights(), rtol=2e-2, atol=2e-3)
    losses = [pd.read_parquet(run.stage / "metrics.parquet").loss for run in (one, two)]
    pd.testing.assert_series_equal(*losses, rtol=1e-3)


def test_killed_ranks_go_on_to_the_same_bytes(tmp_path, calm):
    manifests, undisturbed = calm
    run = Run(tmp_path, manifests, of_recipe(ema_images=50), SLOW)
    process = run.start(2)
    run.wait_for_checkpoint(process)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.kill()
    process.communicate()
    assert not (run.stage / "weights.pt").exists()
    assert run.finish().outputs() == undisturbed.outputs()


def test_one_rank_goes_on_where_two_were_stopped(tmp_path, calm):
    manifests, undisturbed = calm
    run = Run(tmp_path, manifests, of_recipe(ema_images=50), SLOW)
    process = run.start(2)
    run.wait_for_checkpoint(process)
    process.send_signal(signal.SIGTERM)  # torchrun hands it on
    _, text = process.communicate(timeout=60)
    assert process.returncode != 0
    print(text)
    assert "a checkpoint after" in text
    before = checkpoint.load(run.checkpoints()[0].parent)
    assert before is not None
    run.finish_here()
    torch.testing.assert_close(run.weights(), undisturbed.weights(), rtol=2e-2, atol=2e-3)
    metrics = pd.read_parquet(run.stage / "metrics.parquet")
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
{STEP}
"""
    process = Run(tmp_path, calm[0], of_recipe(), troubled).start(2)
    _, text = process.communicate(timeout=100)
    assert process.returncode != 0
    assert all(each in text for each in said), text


def test_a_loss_that_is_not_finite_stops_all_ranks_with_the_step(tmp_path, calm):
    process = Run(tmp_path, calm[0], of_recipe(base_lr=1e30)).start(2)
    _, text = process.communicate(timeout=100)
    assert process.returncode != 0
    assert text.count("error: model train: the loss is nan in step") == 2


def test_a_rank_without_an_image_waits_for_nobody(tmp_path, make_dataset: Dataset):
    """17 images of which one can be decoded: most steps leave both ranks without an image."""
    broken = [(str(i), {"jpg": b"no image", "cls": b"0"}) for i in range(16)]
    manifests = make_dataset([[*broken, ("good", {"jpg": make_jpeg(1), "cls": b"1"})]], 2)
    run = Run(tmp_path / "run", manifests, of_recipe(images=34, device_batch_size=None)).finish()
    metrics = pd.read_parquet(run.stage / "metrics.parquet")
    assert metrics.failed.iloc[-1] == 32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_asks_to_be_run_again(tmp_path, make_dataset, number):
    manifests = make_dataset(SHARDS, 2)
    run = Run(tmp_path / "run", manifests, of_recipe(images=1000), SLOW)
    process = run.start()
    run.wait_for_checkpoint(process)
    seen = run.checkpoints()[-1]
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL, text
    assert run.checkpoints()[-1] > seen
    if number == signal.SIGTERM:
        calm = Run(tmp_path / "calm", manifests, of_recipe(images=1000)).finish_here()
        assert run.finish_here().outputs() == calm.outputs()


def test_a_signal_to_every_process_of_a_job_is_one_request(tmp_path, make_dataset):
    """Slurm sends it to torchrun and to its ranks, and torchrun sends it to them again."""
    run = Run(tmp_path / "run", make_dataset(SHARDS, 2), of_recipe(images=1000), SLOW)
    process = run.start(2)
    run.wait_for_checkpoint(process)
    seen = run.checkpoints()[-1]
    ranks = psutil.Process(process.pid).children()
    for each in (*ranks, psutil.Process(process.pid), *ranks):
        each.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode != 0, text
    assert "SIGTERM; a checkpoint after" in text
    assert run.checkpoints()[-1] > seen


def test_a_training_that_was_taken_over_ends_without_a_word_in_the_results(tmp_path, make_dataset):
    """As on a node that lost its network, while the job runs again elsewhere."""
    manifests = make_dataset(SHARDS, 2)
    run = Run(tmp_path / "run", manifests, of_recipe(images=1000), SLOW)
    process = run.start()
    run.wait_for_checkpoint(process)
    checkpoint.claim(run.checkpoints()[0].parent)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "another process has taken this training over; this one ends." in text
    assert not (run.stage / "weights.pt").exists()

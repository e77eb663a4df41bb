"""Curves to look at while a training runs."""

import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semisup.tracking import Events


def row(images: int) -> dict[str, float]:
    return {"images": images, "loss": images / 100, "top1": 0.5, "lr": 0.1}


def test_tensorboard_shows_the_rows_by_images(tmp_path: Path) -> None:
    events = Events(tmp_path, "train", "")
    for images in (10, 20):
        events.add(row(images), 3.0)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, round(e.value, 3)) for e in shown.Scalars("loss")] == [(10, 0.1), (20, 0.2)]


@pytest.mark.skipif(bool(importlib.util.find_spec("wandb")), reason="Weights & Biases is there")
def test_without_weights_and_biases_the_training_goes_on(tmp_path: Path, caplog) -> None:
    Events(tmp_path, "train", "project").add(row(10), 3.0)
    assert "no curves in Weights & Biases: ModuleNotFoundError" in caplog.text
    assert list(tmp_path.glob("events.*"))

"""Weights from elsewhere, in the layouts people have."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from semisup import models, settings
from semisup.steps import import_weights
from semisup.tables import DataError

CLASSES = ["no", "yes", "maybe"]
OTHER = models.build("cifar_resnet8_w4", 3).state_dict()
ONE = torch.ones(1)
STATE = models.build("cifar_resnet8_w4", 3).state_dict()


def imported(tmp_path: Path, checkpoint: Any, classes: list[str] = CLASSES) -> models.Weights:
    torch.save(checkpoint, tmp_path / "mine.pth")
    own = settings.ImportWeights(
        arch="cifar_resnet8_w4",
        image_size=32,
        resize=36,
        weights=str(tmp_path / "mine.pth"),
        classes=classes,
    )
    import_weights.main(own, tmp_path / "weights.pt", tmp_path / "classes.txt")
    return models.load(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {
            "model": OTHER,
            "model_ema": {f"module.{name}": t for name, t in STATE.items()} | {"n_averaged": ONE},
            "optimizer": {"state": {}, "param_groups": []},
        },
        {"state_dict": OTHER, "state_dict_ema": STATE, "arch": "resnet"},
        {"state_dict": {f"model._orig_mod.{name}": t for name, t in STATE.items()}, "epoch": 3},
    ],
    ids=[
        "plain, as the released SSL and SWSL",
        "state_dict",
        "model with module.",
        "torchvision's reference with EMA",
        "timm's with EMA",
        "Lightning's, compiled",
    ],
)
def test_the_layouts_people_have_give_the_same_weights(tmp_path: Path, checkpoint: Any) -> None:
    weights = imported(tmp_path, checkpoint)
    assert (weights.image_size, weights.resize, weights.classes) == (32, 36, CLASSES)
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in STATE.items())
    assert (tmp_path / "classes.txt").read_text().splitlines() == CLASSES


def test_safetensors_give_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file({name: t.contiguous() for name, t in STATE.items()}, path)
    state = models.unwrap(models.read_checkpoint(path))
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext101_32x8d"])
def test_resnexts_are_torchvisions_where_it_has_them(name: str) -> None:
    with torch.device("meta"):
        own = models.build(name, 1000).state_dict()
        theirs = torchvision.models.get_model(name).state_dict()
    assert {k: t.shape for k, t in own.items()} == {k: t.shape for k, t in theirs.items()}


def test_the_widest_resnext_has_its_828_million_parameters() -> None:
    with torch.device("meta"):
        model = models.build("resnext101_32x48d", 1000)
    assert sum(p.numel() for p in model.parameters()) == 828_411_176


def test_another_number_of_classes_is_refused_with_the_shapes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fc\.weight \(3, 16\) instead of \(2, 16\)"):
        imported(tmp_path, STATE, CLASSES[:2])


def test_missing_and_unexpected_parameters_are_named(tmp_path: Path) -> None:
    state = {**STATE, "extra": torch.zeros(1)}
    del state["fc.bias"]
    with pytest.raises(DataError, match=r"1 missing \(fc\.bias\); 1 unexpected \(extra\)"):
        imported(tmp_path, state)


def test_checkpoints_from_before_batches_were_counted_are_read(tmp_path: Path) -> None:
    """Torchvision's resnet18, IMAGENET1K_V1, is one."""
    old = {name: t for name, t in STATE.items() if not name.endswith("num_batches_tracked")}
    weights = imported(tmp_path, old)
    assert len(old) < len(weights.state) == len(STATE)
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in STATE.items())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no state dict"):
        imported(tmp_path, [1, 2])


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a PyTorch checkpoint"):
        imported(tmp_path, {"state_dict": Path})


def test_weights_that_are_not_finite_are_refused_with_their_names(tmp_path: Path) -> None:
    state = STATE | {
        "fc.bias": torch.tensor([1, torch.nan, 2]),
        "fc.weight": STATE["fc.weight"] / 0,
    }
    with pytest.raises(DataError, match=r"2 tensors hold .* not finite \(fc\.weight, fc\.bias\)"):
        imported(tmp_path, state)

"""Weights from elsewhere, in the layouts people have."""

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from semisup import foreign, models, settings, transforms
from semisup.settings import Preprocessing
from semisup.steps import import_weights
from semisup.tables import DataError
from small import square

CLASSES = ["no", "yes", "maybe"]
OTHER = models.build("cifar_resnet8_w4", 3).state_dict()
ONE = torch.ones(1)
STATE = models.build("cifar_resnet8_w4", 3).state_dict()
HOW = Preprocessing(image_size=32, resize=36, interpolation="bicubic")


def imported(tmp_path: Path, checkpoint: Any, classes: list[str] = CLASSES) -> models.Weights:
    torch.save(checkpoint, tmp_path / "mine.pth")
    own = settings.ImportWeights(
        arch="cifar_resnet8_w4",
        preprocessing=HOW,
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
        {"ema": {"decay": 0.99, "n_averaged": ONE}, "state_dict": STATE},
        {0: "best", "model": STATE},
    ],
    ids=[
        "plain, as the released SSL and SWSL",
        "state_dict",
        "model with module.",
        "torchvision's reference with EMA",
        "timm's with EMA",
        "Lightning's, compiled",
        "an average without tensors",
        "a key that is a number, beside",
    ],
)
def test_the_layouts_people_have_give_the_same_weights(tmp_path: Path, checkpoint: Any) -> None:
    weights = imported(tmp_path, checkpoint)
    assert (weights.preprocessing, weights.classes) == (HOW, CLASSES)
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in STATE.items())
    assert (tmp_path / "classes.txt").read_text().splitlines() == CLASSES


def test_safetensors_give_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file({name: t.contiguous() for name, t in STATE.items()}, path)
    state = foreign.unwrap(foreign.read_checkpoint(path), path)
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_torchvisions_inceptions_say_what_they_say_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """They have auxiliary classifiers, and want pixels from -1 to 1."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(arch, transform_input=True, init_weights=True).eval()
    monkeypatch.setattr(
        torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: theirs.state_dict()
    )
    made = settings.ImportWeights(
        arch=arch, preprocessing=square(96), weights="torchvision:IMAGENET1K_V1",
        classes=[str(i) for i in range(1000)],
    )  # fmt: skip
    paths = tmp_path / "weights.pt", tmp_path / "classes.txt"
    import_weights.main(made, *paths)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        expected = theirs(transforms.normalize(images, torch.device("cpu")))
    weights = models.load(paths[0])
    logits = models.predictor(weights, "float32", 1)(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    finetuned = models.build(arch, 1000)
    models.start_from(finetuned, weights, made.classes)
    assert torch.equal(finetuned.get_buffer("input_scale"), weights.state["input_scale"])


def test_an_inception_of_another_program_sees_pixels_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model("googlenet", num_classes=3, init_weights=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    made = settings.ImportWeights(
        arch="googlenet", preprocessing=square(64), weights=str(tmp_path / "mine.pth"),
        classes=CLASSES,
    )  # fmt: skip
    import_weights.main(made, tmp_path / "weights.pt", tmp_path / "classes.txt")
    own = models.restore(models.load(tmp_path / "weights.pt")).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(own(images), theirs(images))


@pytest.mark.parametrize(("arch", "size"), [("vit_b_32", 64), ("maxvit_t", 448)])
def test_networks_of_one_size_are_built_for_theirs(arch: str, size: int) -> None:
    with torch.device("meta"):
        model = models.build(arch, 3, size).eval()
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 3)


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


WANTED = (
    " Weights are a dict from names to tensors, the file itself or in it under one of "
    "state_dict_ema, model_ema, ema, state_dict, model, state: torch.save the part you want alone."
)


def holding_itself() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["model"] = made
    return made


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1, 2], "holds no state dict but a list."),
        ({}, "holds no tensors where weights are looked for, only nothing."),
        (
            {"student": STATE, "teacher": STATE},
            "holds no tensors where weights are looked for, only 'student', 'teacher'.",
        ),
        (
            dict.fromkeys(range(6), STATE),
            "holds no tensors where weights are looked for, only 0, 1, 2, 3, 4 and 1 more.",
        ),
        (
            {"state": {0: {"exp_avg": ONE}}, "model_ema": {"n_averaged": ONE}},
            "holds no tensors where weights are looked for, only 'state', 'model_ema'.",
        ),
        (holding_itself(), "holds no tensors where weights are looked for, only 'model'."),
        (
            {"model": STATE | {3: ONE, b"fc.weight": ONE}},
            "2 tensors have names that are not text (3, b'fc.weight').",
        ),
    ],
)
def test_a_file_without_weights_is_refused_saying_what_it_holds(
    tmp_path: Path, found: Any, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        imported(tmp_path, found)
    assert str(caught.value) == f"{tmp_path / 'mine.pth'}: {message}{WANTED}"


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch is about to give up quantised tensors
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (torch.Tensor.char, "torch.int8"),
        (torch.Tensor.bool, "torch.bool"),
        (torch.Tensor.cfloat, "torch.complex64"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "torch.qint8"),
        (torch.Tensor.to_sparse, "torch.sparse_coo"),
        (lambda t: t.to("meta"), "without values"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_with_their_types(
    tmp_path: Path, make: Callable[[torch.Tensor], torch.Tensor], kind: str
) -> None:
    state = STATE | {name: make(STATE[name]) for name in ("fc.weight", "stem.0.weight")}
    with pytest.raises(DataError) as caught:
        imported(tmp_path, state)
    assert str(caught.value) == (
        f"{tmp_path / 'mine.pth'} does not fit the network: 2 of no plain floating-point numbers "
        f"(stem.0.weight {kind}, fc.weight {kind}). Quantised or otherwise encoded weights cannot be "
        "used: name those they are made from."
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_of_any_width_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in STATE.items()}
    weights = imported(tmp_path, state)
    assert torch.equal(weights.state["fc.weight"], state["fc.weight"].float())


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("open('ran', 'w')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_training_leaves_beside_its_weights_is_read(tmp_path: Path, zipped: bool) -> None:
    checkpoint = {
        "state_dict": STATE,
        "args": argparse.Namespace(lr=0.1, names=["a"], nested=argparse.Namespace()),
        "best_acc1": np.float64(76.1),
        "more": [np.float32(1), np.int64(2), np.bool_(True), np.dtype("float16")],
    }
    torch.save(checkpoint, tmp_path / "mine.pth", _use_new_zipfile_serialization=zipped)
    read = foreign.read_checkpoint(tmp_path / "mine.pth")
    assert read["args"] == checkpoint["args"]
    assert [read["best_acc1"], *read["more"]] == [76.1, 1, 2, True, np.dtype("float16")]
    assert foreign.unwrap(read, tmp_path / "mine.pth").keys() == STATE.keys()


def test_numbers_of_numpy_1_are_read(tmp_path: Path) -> None:
    torch.save({"best": np.float64(0.5)}, tmp_path / "2.pth")
    with (
        zipfile.ZipFile(tmp_path / "2.pth") as new,
        zipfile.ZipFile(tmp_path / "1.pth", "w") as old,
    ):
        for entry in new.infolist():
            content = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core" in content
            old.writestr(entry, content.replace(b"numpy._core", b"numpy.core"))
    assert foreign.read_checkpoint(tmp_path / "1.pth") == {"best": 0.5}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"state_dict": Path}, "pathlib.Path"),
        ({"state_dict": STATE, "args": argparse.Namespace(run=Code())}, "exec"),
    ],
)
def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, found: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(found, "mine.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError) as caught:
        foreign.read_checkpoint(Path("mine.pth"))
    assert str(caught.value).replace("builtins.", "") == (
        f"mine.pth: cannot be read as a PyTorch checkpoint (it holds {name}, which may run code; "
        "where you trust the file, read it with torch.load(..., weights_only=False) and torch.save "
        "its state dict alone)."
    )
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no checkpoint", "Unsupported operand 110"),
        (b"", "EOFError"),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><title>404",
            "it begins with <, as a web page does, most often an error saved under the name of the "
            "file; download it again",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "it is a pointer of git-lfs, not the file itself; run git lfs pull where it was cloned",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_in_plain_words(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "mine.pth").write_bytes(content)
    with pytest.raises(DataError) as caught:
        foreign.read_checkpoint(tmp_path / "mine.pth")
    assert str(caught.value).endswith(f": cannot be read as a PyTorch checkpoint ({reason}).")


def test_weights_that_are_not_finite_are_refused_with_their_names(tmp_path: Path) -> None:
    state = STATE | {
        "fc.bias": torch.tensor([1, torch.nan, 2]),
        "fc.weight": STATE["fc.weight"] / 0,
    }
    with pytest.raises(DataError, match=r"2 tensors hold .* not finite \(fc\.weight, fc\.bias\)"):
        imported(tmp_path, state)

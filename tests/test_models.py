"""Networks and what they say about a batch of images."""

from pathlib import Path

import pytest
import torch
from torch import nn

from semisup import models, transforms
from semisup.tables import DataError
from small import square

CPU = torch.device("cpu")
CLASSES = [str(i) for i in range(10)]


def make_weights(arch: str) -> models.Weights:
    """Random weights, with statistics as after a training."""
    torch.manual_seed(0)
    model = models.build(arch, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return models.Weights(arch, square(32), CLASSES, model.state_dict())


def noise(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    "arch", ["cifar_resnet8_w4", "cifar_resnet8_w16", "resnet18", "mobilenet_v2"]
)
def test_a_folded_network_says_what_the_network_says(arch: str) -> None:
    weights, images = make_weights(arch), noise(16)
    with torch.inference_mode():
        expected = models.restore(weights).eval()(transforms.normalize(images, CPU))
    logits = models.predictor(weights, "float32", 1)(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_keeps_the_resolution_of_logits() -> None:
    weights, images = make_weights("resnet18"), noise(32)
    exact = models.predictor(weights, "float32", 1)(images)
    fast = models.predictor(weights, "bfloat16", 1)(images)
    assert not torch.equal(fast, fast.bfloat16().float())
    torch.testing.assert_close(fast, exact, rtol=0.1, atol=0.1 * float(exact.std()))


def test_a_network_that_cannot_be_traced_is_not_folded(caplog: pytest.LogCaptureFixture) -> None:
    class Branching(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    model = Branching()
    caplog.set_level("INFO")
    assert models._fold(model) is model
    assert "BatchNorm is not folded" in caplog.text


@pytest.mark.parametrize("arch", ["cifar_resnet8_w4", "cifar_resnet8_w15", "squeezenet1_0"])
def test_narrow_networks_learn_without_a_crash(arch: str) -> None:
    """Channels last, they corrupt memory at some sizes of a batch."""
    torch.manual_seed(0)
    model = models.build(arch, 10).train()
    for count in (53, 31, 64, 47):
        model(torch.randn(count, 3, 32, 32)).sum().backward()


@pytest.mark.parametrize(
    ("before", "now", "kept", "said"),
    [
        (["cat", "dog"], ["cat", "dog"], True, ""),
        (
            ["0", "1"],
            ["cat", "dog"],
            True,
            "the last layer is kept: classes with numbers only are ",
        ),
        (
            ["cat", "dog"],
            ["0", "1"],
            True,
            "the last layer is kept: classes with numbers only are ",
        ),
        (["cat", "dog"], ["cat", "dig"], False, "are others: class 1 is 'dog', not 'dig'"),
        (["cat", "dog"], ["dog", "cat"], False, "are others: class 0 is 'cat', not 'dog'"),
        (["cat", "dog"], ["cat"], False, "are others: 2, not 1"),
    ],
)
def test_the_last_layer_is_kept_for_the_same_classes_and_else_said_to_be_random(
    before: list[str], now: list[str], kept: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = models.build("cifar_resnet8_w4", len(before)).state_dict()
    model = models.build("cifar_resnet8_w4", len(now))
    models.start_from(model, models.Weights("cifar_resnet8_w4", square(32), before, state), now)
    own = model.state_dict()
    assert torch.equal(own["stem.0.weight"], state["stem.0.weight"])
    assert torch.equal(own["fc.weight"], state["fc.weight"]) == kept
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
    assert ("WARNING" in caplog.text) == (not kept)


def test_weights_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """They do not say how their images were resized."""
    models.save(path := tmp_path / "weights.pt", make_weights("cifar_resnet8_w4"))
    content = torch.load(path)
    torch.save(content | {"format": 1}, path)
    with pytest.raises(DataError, match=r"weights\.pt: not weights of this version .* run again"):
        models.load(path)

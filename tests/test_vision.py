"""What a step imports before it begins, and that nothing is missed."""

import os
import subprocess
import sys

import pytest
import torch

from semisup import vision
from small import ROOT

LOOK = """
import torch
from semisup import models, settings, transforms
how = settings.Preprocessing(image_size=32, resize=32)
network = models.build("resnet18", 3).state_dict()
observe = models.observer(models.Weights("resnet18", how, ["a", "b", "c"], network), "bfloat16", 1)
fit = transforms.evaluation_transform(how)
assert observe(fit(torch.zeros(2, 3, 40, 50, dtype=torch.uint8))).logits_NC.shape == (2, 3)
"""


def imported(module: str, program: str) -> bool:
    """Whether a process that runs ``program`` has then imported a module."""
    path = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    program = f"{program}\nimport sys\nprint({module!r} in sys.modules)"
    command = [sys.executable, "-c", program]
    return subprocess.check_output(command, env=path, text=True) == "True\n"


def steps(*names: str) -> str:
    return "import " + ", ".join(f"semisup.steps.{name}" for name in names)


def test_steps_that_see_no_pixels_start_without_torchvision() -> None:
    """It takes a second, and there are thousands of such jobs."""
    names = "find_duplicates", "find_near_copies", "sort_into_cells", "train_cells", "select"
    assert not imported("torchvision", steps(*names))


def test_steps_that_only_look_at_images_do_without_the_compiler() -> None:
    """It takes another one: the workaround of pytorch/vision#8436."""
    looking = steps("score_shards", "extract_features", "score_and_describe", "evaluate")
    assert not imported("torch._dynamo", f"{looking}\n{LOOK}")


def test_who_compiles_finds_the_compiler() -> None:
    compile = "import torch\nassert torch.compile(abs, backend='eager')(torch.tensor(-1)) == 1"
    assert imported("torch._dynamo", f"from semisup.vision import v2\n{compile}")
    assert torch.compiler.disable.__module__ == "torch.compiler"


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_operator_that_asks_the_compiler_gets_its_answer(device: str) -> None:
    from torch._dynamo.utils import is_compile_supported

    assert vision.is_compile_supported(device) == is_compile_supported(device)

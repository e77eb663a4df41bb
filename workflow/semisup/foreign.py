"""Checkpoints of other programs: read without running code, their weights found, whatever the layout."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy._core import multiarray

from semisup import transforms
from semisup.tables import DataError
from semisup.wording import name_first

NUMBERS = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *NUMBERS,
    multiarray.scalar,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
]
"""What checkpoints of trainings hold beside tensors, their arguments and best accuracy: a bag of
values and single numbers, the making of which runs no code of the file's choice."""


def read_checkpoint(path: Path) -> Any:
    """Any checkpoint file, safetensors or PyTorch's, never executing code in it.

    Raises DataError when unreadable, naming what would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise DataError(
            f"{path}: cannot be read as a PyTorch checkpoint ({_reason(path, error)})."
        ) from None


def _reason(path: Path, raised: Exception) -> str:
    """Why in one line, and what to do where the file needs code to be run."""
    error = re.sub(r"\x1b\[[0-9;]*m", "", str(raised)) or type(raised).__name__
    try:
        with torch.serialization.safe_globals(HARMLESS):
            refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no zip file: its names are not to be had, but the first is in the error
        refused = re.findall(r"GLOBAL ([\w.]+)", error)[:1]
    if refused:
        return (
            f"it holds {name_first(refused)}, which may run code; where you trust the file, read it with "
            "torch.load(..., weights_only=False) and torch.save its state dict alone"
        )
    if mistaken := _mistaken(path):
        return mistaken
    said = re.search(r"WeightsUnpickler error:\s+(.+)", error)  # after torch's own advice
    return (said[1] if said else error.split("\n")[0].split(". In PyTorch 2.6")[0])[:200]


def _mistaken(path: Path) -> str:
    """What a file is that a download left in the place of a checkpoint, and what to do about it."""
    try:
        with path.open("rb") as file:
            begin = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return ""
    if begin.startswith(b"<"):
        return (
            "it begins with <, as a web page does, most often an error saved under the name of the "
            "file; download it again"
        )
    if begin.startswith(b"version https://git-lfs"):
        return (
            "it is a pointer of git-lfs, not the file itself; run git lfs pull where it was cloned"
        )
    return ""


LAYOUTS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "state")
"""Where checkpoints of timm, torchvision's reference, Lightning and others keep the weights. A
moving average comes first: it is what their figures are of."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Before every name: DataParallel's and AveragedModel's, torch.compile's, Lightning's."""
WANTED = (
    "Weights are a dict from names to tensors, the file itself or in it under one of "
    f"{', '.join(LAYOUTS)}: torch.save the part you want alone."
)


def unwrap(checkpoint: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in the layouts people have. Raises DataError, naming ``path``, without one."""
    if not isinstance(checkpoint, dict):
        raise DataError(f"{path}: holds no state dict but a {type(checkpoint).__name__}. {WANTED}")
    tensors = _find_tensors(checkpoint, LAYOUTS)
    if not tensors:
        keys = name_first(map(repr, checkpoint)) if checkpoint else "nothing"
        raise DataError(
            f"{path}: holds no tensors where weights are looked for, only {keys}. {WANTED}"
        )
    if others := [name for name in tensors if not isinstance(name, str)]:
        raise DataError(
            f"{path}: {len(others)} tensors have names that are not text ({name_first(map(repr, others))}). "
            f"{WANTED}"
        )
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _find_tensors(checkpoint: Any, layouts: Sequence[str]) -> dict[Any, torch.Tensor]:
    """The tensors of the first layout that holds any, else those beside it."""
    if not isinstance(checkpoint, dict):
        return {}
    for i, name in enumerate(layouts):
        if tensors := _find_tensors(checkpoint.get(name), layouts[i + 1 :]):
            return tensors
    tensors = {k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}
    tensors.pop("n_averaged", None)  # of AveragedModel
    return tensors


def without_auxiliary(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a GoogLeNet or Inception without its auxiliary classifiers, of use in training."""
    auxiliary = ("aux1.", "aux2.", "AuxLogits.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(auxiliary)}


def torchvision_input() -> dict[str, torch.Tensor]:
    """What torchvision's ``transform_input`` does to normalised pixels: from -1 to 1 again."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (transforms.MEAN, transforms.STD))
    return {"input_scale": std / 0.5, "input_shift": (mean - 0.5) / 0.5}

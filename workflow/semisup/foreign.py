"""Checkpoints of other programs: read without running code, their weights found, whatever the layout."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy._core import multiarray

from semisup import transforms
from semisup.tables import DataError

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

MAX_NAMED = 5


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
        names = ", ".join(refused[:MAX_NAMED]) + (", ..." if len(refused) > MAX_NAMED else "")
        return (
            f"it holds {names}, which may run code; where you trust the file, read it with "
            "torch.load(..., weights_only=False) and torch.save its state dict alone"
        )
    said = re.search(r"WeightsUnpickler error:\s+(.+)", error)  # after torch's own advice
    return (said[1] if said else error.split("\n")[0].split(". In PyTorch 2.6")[0])[:200]


LAYOUTS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "state")
"""Where checkpoints of timm, torchvision's reference, Lightning and others keep the weights. A
moving average comes first: it is what their figures are of."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Before every name: DataParallel's and AveragedModel's, torch.compile's, Lightning's."""


def unwrap(checkpoint: Any) -> dict[str, torch.Tensor]:
    """The state dict in the layouts people have. Raises DataError when there is none."""
    for name in LAYOUTS:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict):
        raise DataError("the checkpoint holds no state dict.")
    tensors = {k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}
    tensors.pop("n_averaged", None)  # of AveragedModel
    if not tensors:
        raise DataError("the checkpoint holds no tensors.")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def without_auxiliary(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a GoogLeNet or Inception without its auxiliary classifiers, of use in training."""
    auxiliary = ("aux1.", "aux2.", "AuxLogits.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(auxiliary)}


def torchvision_input() -> dict[str, torch.Tensor]:
    """What torchvision's ``transform_input`` does to normalised pixels: from -1 to 1 again."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (transforms.MEAN, transforms.STD))
    return {"input_scale": std / 0.5, "input_shift": (mean - 0.5) / 0.5}

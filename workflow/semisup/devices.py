"""What the networks of this process run on, and with which numbers.

Without torchvision: the half of the steps that need torch alone start in half the time.
"""

import torch


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the forward pass is autocast; ``auto``: where a GPU can."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def numerics(precision: str) -> str:
    """What the last bits of a prediction depend on, in words."""
    device = choose_device()
    name = "bfloat16" if is_bfloat16(precision, device) else "float32"
    return f"{name} on {device.type}, torch {torch.__version__.split('+')[0]}"

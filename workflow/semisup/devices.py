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


def is_tf32(device: torch.device) -> bool:
    """Whether float32 convolutions keep only 10 bits of the mantissa: torch's default, from Ampere on."""
    return (
        device.type == "cuda"
        and torch.backends.cudnn.allow_tf32
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def numerics(precision: str) -> str:
    """What the last bits of a prediction depend on, in words."""
    device = choose_device()
    name = "float32 (convolutions in TF32)" if is_tf32(device) else "float32"
    if is_bfloat16(precision, device):
        name = "bfloat16"
    return f"{name} on {device.type}, torch {torch.__version__.split('+')[0]}"

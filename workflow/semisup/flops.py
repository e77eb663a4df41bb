"""Floating-point operations: what a network needs, what a device could do."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from semisup import devices

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Dense bfloat16 operations per second by the makers' data sheets; the first name that is part of
the device's."""


def of_training(model: nn.Module, image_size: int) -> int:
    """Operations to learn from one image: the forward pass, and twice as many backward."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta").eval()(torch.zeros(1, 3, image_size, image_size).to("meta"))
    return 3 * counter.get_total_flops()


def peak(device: torch.device, precision: str) -> float | None:
    """Operations per second of a device in bfloat16, where it is used and known."""
    if device.type != "cuda" or not devices.is_bfloat16(precision, device):
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for known, value in PEAKS.items() if known in name), None)

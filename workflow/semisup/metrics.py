"""Accuracies and how far to trust them."""

import math

import torch


def label_ranks(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Rank of the true class among the predictions, from 1; equal logits: the lower id first."""
    own_N1 = logits_NC.gather(1, labels_N[:, None])
    ids_C = torch.arange(logits_NC.shape[1])
    ahead = (logits_NC > own_N1) | ((logits_NC == own_N1) & (ids_C < labels_N[:, None]))
    return ahead.sum(1) + 1


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)

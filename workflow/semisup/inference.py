"""From logits to what is stored: best classes and their log-odds, the rank of the true class."""

from typing import NamedTuple

import torch


class TopClasses(NamedTuple):
    """The P best classes of N images, best first."""

    class_ids_NP: torch.Tensor  # int64
    log_odds_NP: torch.Tensor  # float32
    logsumexp_N: torch.Tensor  # float32


def top_classes(logits_NC: torch.Tensor, classes_per_image: int) -> TopClasses:
    """The classes with the highest softmax probability p and their log(p / (1 - p)).

    The log-odds are monotone in p, so they rank as the paper's softmax does (section 3.2), but keep
    their resolution where a float32 p is 1.0: the best class is measured against the logsumexp of
    the others, not as 1 - p. Equal logits: the lower class id first. Needs at least two classes.
    """
    logits_NC = logits_NC.float()
    ordered_NC, class_ids_NC = torch.sort(logits_NC, dim=1, descending=True, stable=True)
    logsumexp_N = torch.logsumexp(logits_NC, dim=1)
    best_N1 = ordered_NC[:, :1] - torch.logsumexp(ordered_NC[:, 1:], dim=1, keepdim=True)
    # All classes but the best have p <= 1/2, where 1 - p loses nothing.
    log_p = ordered_NC[:, 1:classes_per_image] - logsumexp_N[:, None]
    others = log_p - torch.log1p(-log_p.exp())
    return TopClasses(
        class_ids_NC[:, :classes_per_image].contiguous(),
        torch.cat([best_N1, others], dim=1),
        logsumexp_N,
    )


def label_ranks(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Rank of the true class among the predictions, from 1; equal logits: the lower id first."""
    own_N1 = logits_NC.gather(1, labels_N[:, None])
    ids_C = torch.arange(logits_NC.shape[1])
    ahead = (logits_NC > own_N1) | ((logits_NC == own_N1) & (ids_C < labels_N[:, None]))
    return ahead.sum(1) + 1

"""How many of the selected images are what the selection says, by rank and by class.

Only where the unlabelled dataset secretly carries labels; nothing but the report reads them.
"""

from typing import NamedTuple

import numpy as np

from semisup.metrics import wilson_interval


class Share(NamedTuple):
    """``hits`` of ``total``, with the 95 % interval of the share."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.hits, self.total)


class Bucket(NamedTuple):
    """Ranks ``first`` to ``last`` of every class; ``so_far``: ranks 1 to ``last``."""

    first: int
    last: int
    share: Share
    so_far: Share
    clutter: int


class Precision(NamedTuple):
    overall: Share
    clutter: int
    table: list[Bucket]
    curve: list[Bucket]
    by_class: dict[int, Share]


def measure(class_ids: np.ndarray, class_ranks: np.ndarray, labels: np.ndarray) -> Precision:
    """Precision of selected rows given the true class of each image; -1 is none of the classes."""
    hits = class_ids == labels
    length = int(class_ranks.max(initial=0))
    counts = [
        np.bincount(class_ranks[chosen], minlength=length + 1)
        for chosen in (slice(None), hits, labels < 0)
    ]
    totals = np.bincount(class_ids) if len(class_ids) else np.zeros(0, np.int64)
    right = np.bincount(class_ids[hits], minlength=len(totals))
    return Precision(
        overall=Share(int(hits.sum()), len(hits)),
        clutter=int((labels < 0).sum()),
        table=_buckets(counts, table_edges(length)),
        curve=_buckets(counts, curve_edges(length, len(hits))),
        by_class={
            int(i): Share(int(right[i]), int(totals[i])) for i in np.flatnonzero(totals).tolist()
        },
    )


def table_edges(length: int) -> list[int]:
    """Last ranks of the rows of the table: 1, 2, 5, 10, ... (from 10 where there are many)."""
    steps = [m * 10**e for e in range(8) for m in (1, 2, 5)]
    first = 10 if length > 20 else 1
    return [edge for edge in steps if first <= edge < length] + ([length] if length else [])


def curve_edges(length: int, num_rows: int) -> list[int]:
    """Last ranks of the points of the curve: equally spaced, each of some 50 rows, at most 40."""
    num_points = min(max(num_rows // 50, 5), 40)
    return sorted({round(length * (i + 1) / num_points) for i in range(num_points)} - {0})


def _buckets(counts: list[np.ndarray], edges: list[int]) -> list[Bucket]:
    totals, hits, clutter = (np.cumsum(column) for column in counts)
    buckets = []
    for before, last in zip([0, *edges], edges, strict=False):
        buckets.append(
            Bucket(
                first=before + 1,
                last=last,
                share=Share(int(hits[last] - hits[before]), int(totals[last] - totals[before])),
                so_far=Share(int(hits[last]), int(totals[last])),
                clutter=int(clutter[last] - clutter[before]),
            )
        )
    return buckets

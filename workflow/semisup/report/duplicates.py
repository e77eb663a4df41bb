"""Near-duplicates of evaluation images in U, and copies within it: what was found and removed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from semisup import plots, schemas, tables
from semisup.config import Remove
from semisup.plan import Plan
from semisup.removal import COPY_OF_EVALUATION, DUPLICATE, read_closest, read_nearest
from semisup.report.gallery import Picture, read_pictures
from semisup.report.selections import read_rows

MAX_PAIRS = 24
MAX_COPIES = 8
BARS = 48


class Pair(NamedTuple):
    """An image of U beside the evaluation image it is closest to."""

    unlabeled: Picture
    evaluation: Picture
    key: str
    evaluation_key: str
    evaluation_dataset: str
    distance: float
    removed: bool


class Copied(NamedTuple):
    """An image that stands ``times`` more in U, in the same bytes or pixels."""

    picture: Picture
    times: int


class DuplicatesView(NamedTuple):
    unlabeled: str
    num_close: int
    num_removed: int
    removed_share: float
    record_distance: float
    remove: Remove
    cuts: list[tuple[str, float]]
    figure: Markup
    closest: list[Pair]
    at_cut: list[Pair]
    num_same: int
    num_copies: int
    num_copied: int
    copied: list[Copied]


def view_duplicates(plan: Plan, unlabeled: str, num_samples: int) -> DuplicatesView:
    """``num_samples``: of U.

    Memory: of the pairs, which are bounded, and of the copies in U; not of the images that are close.
    """
    duplicates = plan.config.duplicates
    assert duplicates is not None
    path = Path(f"{plan.results}/duplicates/{unlabeled}/pairs.parquet")
    table = tables.read_table(path, schemas.DUPLICATES, ["shard_id", "sample_index"])
    identities = tables.identity(table)
    # Pairs are sorted by distance: the first row of an image is its closest evaluation image.
    rows = np.sort(np.unique(identities, return_index=True)[1])
    gone = _removed(plan, unlabeled)
    removed = np.isin(identities[rows], gone)
    closest, at_cut = choose_pairs(removed)
    pairs = _pairs(plan, unlabeled, path, rows[[*closest, *at_cut]], removed[[*closest, *at_cut]])
    nearest = [Path(path) for path in plan.duplicate_tables(unlabeled, "nearest")]
    farthest = max(duplicates.record_distance, 1e-3)  # an axis has a length
    counts = count_distances(nearest, farthest)
    _, apart = read_closest(nearest, duplicates.remove.closest, None)
    cuts = cuts_in_force(duplicates.remove, apart)
    num_same, num_copies, num_copied, copied = _view_copies(plan, unlabeled)
    return DuplicatesView(
        unlabeled=unlabeled,
        num_close=int(counts.sum()),
        num_removed=len(gone),
        removed_share=len(gone) / max(num_samples, 1),
        record_distance=duplicates.record_distance,
        remove=duplicates.remove,
        cuts=cuts,
        figure=plots.distance_histogram(counts, farthest, cuts),
        closest=pairs[: len(closest)],
        at_cut=pairs[len(closest) :],
        num_same=num_same,
        num_copies=num_copies,
        num_copied=num_copied,
        copied=copied,
    )


def choose_pairs(removed: np.ndarray) -> tuple[list[int], list[int]]:
    """Places, by distance, of the images shown: the closest, and those next to the cut."""
    if len(removed) <= MAX_PAIRS:
        return list(range(len(removed))), []
    half = MAX_PAIRS // 2
    cut = int(np.flatnonzero(removed).max(initial=-1)) + 1
    if cut == 0:
        return list(range(MAX_PAIRS)), []
    start = min(max(half, cut - half // 2), len(removed) - half)
    return list(range(half)), list(range(start, start + half))


def count_distances(paths: list[Path], farthest: float) -> np.ndarray:
    """How many images of U are how far from the closest evaluation image: by BARS equal steps."""
    counts = np.zeros(BARS, np.int64)
    for _, distances in read_nearest(paths):
        within = np.minimum(distances.astype(float), farthest)  # a float32 may be rounded up
        counts += np.histogram(within, BARS, (0, farthest))[0]
    return counts


def cuts_in_force(remove: Remove, apart: np.ndarray) -> list[tuple[str, float]]:
    """Name and place of each rule that removes images, given how far the closest of them are."""
    cuts = []
    if remove.closest and len(apart):
        cuts.append((f"closest {remove.closest:,}", float(apart.max())))
    if remove.max_distance is not None:
        cuts.append((f"max_distance {remove.max_distance:g}", remove.max_distance))
    return cuts


def _removed(plan: Plan, unlabeled: str) -> np.ndarray:
    """Identities removed as near-duplicates; every selection from U removes the same."""
    name = next(n for n, s in plan.config.selections.items() if s.unlabeled == unlabeled)
    path = Path(f"{plan.results}/selections/{name}/removed.parquet")
    table = tables.read_table(path, schemas.REMOVED)
    reasons = pa.array([COPY_OF_EVALUATION, DUPLICATE])
    return tables.identity(table.filter(pc.is_in(table["reason"], reasons)))


def _pairs(
    plan: Plan, unlabeled: str, path: Path, rows: np.ndarray, removed: np.ndarray
) -> list[Pair]:
    order = rows.tolist()
    found = read_rows(path, sorted(order), schemas.DUPLICATES.names)
    details = dict(zip(sorted(order), found, strict=True))
    ours = {row: _identity(details[row], "") for row in order}
    theirs = {row: _identity(details[row], "evaluation_") for row in order}
    pictures = read_pictures(plan.manifests(unlabeled), ours.values())
    dataset = {row: str(details[row]["evaluation_dataset"]) for row in order}
    by_dataset = {
        name: read_pictures(
            plan.manifests(name), [theirs[row] for row in order if dataset[row] == name]
        )
        for name in set(dataset.values())
    }
    return [
        Pair(
            unlabeled=pictures[ours[row]],
            evaluation=by_dataset[dataset[row]][theirs[row]],
            key=details[row]["key"],
            evaluation_key=details[row]["evaluation_key"],
            evaluation_dataset=dataset[row],
            distance=details[row]["distance"],
            removed=bool(gone),
        )
        for row, gone in zip(order, removed, strict=True)
    ]


def _identity(row: dict[str, Any], prefix: str) -> int:
    return int(row[f"{prefix}shard_id"]) << 32 | int(row[f"{prefix}sample_index"])


def _view_copies(plan: Plan, unlabeled: str) -> tuple[int, int, int, list[Copied]]:
    """Copies of evaluation images, copies within U, images they are copies of, the most copied."""
    path = Path(f"{plan.results}/duplicates/{unlabeled}/copies.parquet")
    table = tables.read_table(path, schemas.COPIES)
    own = pc.equal(table["first_dataset"], unlabeled)
    num_same = len(np.unique(tables.identity(table.filter(pc.invert(own)))))
    table = table.filter(own)
    firsts, times = np.unique(tables.identity(table, "first_"), return_counts=True)
    most = np.lexsort((firsts, -times))[:MAX_COPIES]
    pictures = read_pictures(plan.manifests(unlabeled), firsts[most].tolist())
    copied = [Copied(pictures[int(firsts[i])], int(times[i])) for i in most]
    return num_same, len(table), len(firsts), copied

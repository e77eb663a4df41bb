"""The leak meter: evaluation images that models may have learned from, and what they are worth."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from semisup import plots, schemas, tables
from semisup.config import Config
from semisup.leaks import BITS, FEATURES, HASH
from semisup.metrics import wilson_interval
from semisup.plan import Plan
from semisup.report.accuracy import Line, read_hits
from semisup.report.comparison import Accuracy
from semisup.report.duplicates import DuplicatesView
from semisup.reviews import read_review
from semisup.stages import stage_names, trainings

CHANCES = (0.001, 0.01, 0.05, 0.2)
"""Shares of planted pictures for which a cut may take another evaluation image."""


class Source(NamedTuple):
    """Evaluation images with a near-duplicate in one source; ``by_hash``: None if not compared."""

    dataset: str
    source: str
    num_images: int
    by_features: int
    by_hash: int | None


class Split(NamedTuple):
    """A model's accuracy on the leaked and on the clean images of an evaluation set."""

    model: str
    stage: str
    dataset: str
    by: str
    sources: list[str]
    leaked: Accuracy
    clean: Accuracy


class LeaksView(NamedTuple):
    cut: float
    bits: int
    complete_to: dict[str, float]
    repeated_hashes: dict[str, int]
    not_compared: dict[str, dict[str, int]]
    sources: list[Source]
    splits: list[Split]


class Reviewed(NamedTuple):
    """What a person decided about pairs up to a distance."""

    distance: float
    num_kept: int
    num_removed: int


class CalibrationView(NamedTuple):
    num_images: int
    figure: Markup
    kinds: list[tuple[str, list[float], float]]
    cuts: list[float]
    by_chance: list[float]
    in_force: list[tuple[str, float]]
    reviewed: list[Reviewed]


def view_leaks(plan: Plan, lines: list[Line], num_images: dict[str, int]) -> LeaksView:
    """``num_images``: samples of each evaluation set."""
    folder = Path(f"{plan.results}/duplicates")
    table = tables.read_table(folder / "leaks.parquet", schemas.LEAKS)
    summary = tables.read_json(folder / "leaks.json")
    names = [*plan.compared(), *plan.config.selections]
    sources = [
        Source(
            dataset, name, num_images[dataset],
            len(_leaked(table, [name], FEATURES, dataset)),
            None if name in plan.unlabeled else len(_leaked(table, [name], HASH, dataset)),
        )
        for dataset in plan.config.evaluate.on
        for name in names
    ]  # fmt: skip
    splits = []
    for line in lines:
        learned = learned_from(plan.config, line.model, line.stage)
        if learned:
            identity, hits = read_hits(plan, line.model, line.stage, line.dataset)
            for by in (FEATURES, HASH):
                leaked = np.isin(identity, _leaked(table, learned, by, line.dataset))
                splits.append(
                    Split(
                        line.model, line.stage, line.dataset, by, learned,
                        _accuracy(hits[leaked]), _accuracy(hits[~leaked]),
                    )
                )  # fmt: skip
    return LeaksView(
        cut=summary["cut"],
        bits=BITS,
        complete_to=summary["complete_to"],
        repeated_hashes=summary["repeated_hashes"],
        not_compared=summary["not_compared"],
        sources=sources,
        splits=splits,
    )


def learned_from(config: Config, name: str, stage: str) -> list[str]:
    """The datasets and selections a model has seen after a stage, those of its ``init`` too."""
    model = config.models[name]
    found = []
    if model.init:
        found += learned_from(config, model.init, stage_names(config.models[model.init])[-1])
    for own, training in trainings(model).items():
        found.append(training.on)
        if own == stage:
            break
    return list(dict.fromkeys(found))


def _leaked(table: pa.Table, sources: list[str], by: str, dataset: str) -> np.ndarray:
    """Identities of the images of an evaluation set that are leaked into one of the sources."""
    own = pc.and_(pc.equal(table["by"], by), pc.equal(table["evaluation_dataset"], dataset))
    own = pc.and_(own, pc.is_in(table["source"], pa.array(sources, pa.string())))
    return np.unique(tables.identity(table.filter(own), "evaluation_"))


def _accuracy(hits: np.ndarray) -> Accuracy:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Accuracy(float(hits.mean()) if len(hits) else math.nan, low, high, len(hits))


def view_calibration(plan: Plan, close: list[DuplicatesView]) -> CalibrationView:
    """Recall of planted near-duplicates, kind by kind: as a figure, and at equal false positives.

    ``close``: of each U, with the cuts in force.
    """
    path = Path(f"{plan.results}/duplicates/calibration.parquet")
    table = tables.read_table(path, schemas.CALIBRATION)
    kind, distance = table["kind"].to_numpy().astype(str), table["distance"].to_numpy()
    bits, others = table["bits"].to_numpy(), table["distance_to_others"].to_numpy()
    kinds = list(dict.fromkeys(kind.tolist()))
    by_kind = {name: np.sort(distance[kind == name]) for name in kinds}
    cuts = sorted({round(float(np.quantile(others, share)), 4) for share in CHANCES})
    in_force = name_cuts({view.unlabeled: view.cuts for view in close})
    reviewed, removes = _read_review(plan)
    return CalibrationView(
        num_images=len(table) // max(len(kinds), 1),
        figure=plots.recall_curves(
            by_kind, np.sort(others), in_force, kept_up_to(reviewed, removes)
        ),
        kinds=[
            (name, [float((own <= cut).mean()) for cut in cuts],
             float((bits[kind == name] <= BITS).mean()))
            for name, own in by_kind.items()
        ],
        cuts=cuts,
        by_chance=[float((others <= cut).mean()) for cut in cuts],
        in_force=in_force,
        reviewed=_view_review(reviewed, removes),
    )  # fmt: skip


def name_cuts(of_each: dict[str, list[tuple[str, float]]]) -> list[tuple[str, float]]:
    """Name and place of each cut once, with the datasets it is of where it is not of all."""
    owners: dict[tuple[str, float], list[str]] = {}
    for unlabeled, cuts in of_each.items():
        for cut in cuts:
            owners.setdefault(cut, []).append(unlabeled)
    return [
        (name if len(own) == len(of_each) else f"{name} of {', '.join(own)}", place)
        for (name, place), own in owners.items()
    ]


def kept_up_to(distance: np.ndarray, removes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the pairs a person decided on, and the share of those up to each that were kept."""
    places, which = np.unique(distance, return_inverse=True)
    num_decided, num_kept = np.bincount(which), np.bincount(which[~removes], minlength=len(places))
    return places, num_kept.cumsum() / num_decided.cumsum()


def _read_review(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """A person's decisions: the distance of each, and whether it removes."""
    duplicates = plan.config.duplicates
    distances, decisions = [np.empty(0, np.float32)], [np.empty(0, bool)]
    if not (duplicates and duplicates.remove.reviewed):
        return distances[0], decisions[0]
    for name in sorted(plan.unlabeled):
        pairs = tables.read_table(Path(plan.merged_pairs(name)), schemas.DUPLICATES)
        manifests = [Path(path) for path in plan.manifests(name)]
        review = read_review(Path(duplicates.remove.reviewed), manifests)
        identity, first = np.unique(tables.identity(pairs), return_index=True)
        closest = pd.Series(pairs["distance"].to_numpy()[first], identity)
        apart = review["distance"].fillna(review["identity"].map(closest))
        review = review.assign(distance=apart).dropna()
        distances.append(review["distance"].to_numpy(np.float32))
        decisions.append(review["removes"].to_numpy(bool))
    return np.concatenate(distances), np.concatenate(decisions)


def _view_review(distance: np.ndarray, removes: np.ndarray, num_bins: int = 5) -> list[Reviewed]:
    """A person's decisions by distance: those kept are what a cut there would remove wrongly."""
    shares = np.linspace(0, 1, num_bins + 1)[1:]
    edges: np.ndarray = np.unique(np.quantile(distance, shares)) if len(distance) else distance
    found, last = [], -1.0
    for edge in edges:
        own = (distance > last) & (distance <= edge)
        found.append(Reviewed(float(edge), int((own & ~removes).sum()), int((own & removes).sum())))
        last = edge
    return found

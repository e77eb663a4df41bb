"""Accuracies of every stage of every model, and students against their baselines."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import schemas, tables
from semisup.books import Processed
from semisup.checks import trainings
from semisup.config import Config
from semisup.plan import Plan
from semisup.report.comparison import Accuracy, Comparison, compare_hits


class Line(NamedTuple):
    """One row of the table: a stage of a model on an evaluation set."""

    model: str
    stage: str
    dataset: str
    arch: str
    trained_on: str
    baseline_of: str
    role: str
    num_processed: int | None
    accuracy: Accuracy
    top5: float
    num_failed: int


def read_evaluations(plan: Plan) -> pa.Table:
    """All accuracies, in the order of the plan.

    Raises DataError when a stage is not measured once on every evaluation set.
    """
    parts = []
    for model, stage in plan.evaluated_stages():
        path = Path(f"{plan.results}/evaluations/{model}/{stage}.parquet")
        parts.append(tables.read_table(path, schemas.EVALUATIONS))
        measured = sorted(parts[-1]["dataset"].to_pylist())
        if measured != sorted(plan.config.evaluate.on):
            raise tables.DataError(
                f"{path}: measured on {measured}, not once on each of {plan.config.evaluate.on}. "
                "Delete it and run again."
            )
    return pa.concat_tables([schemas.EVALUATIONS.empty_table(), *parts])


def count_processed(plan: Plan) -> dict[tuple[str, str], Processed]:
    """Images that every stage that was trained has gone through."""
    counts = {}
    for name, model in plan.config.models.items():
        for stage in trainings(model):
            path = Path(f"{plan.results}/models/{name}/{stage}/metrics.parquet")
            table = tables.read_table(path, schemas.METRICS, [*Processed._fields])
            last = table.slice(len(table) - 1).to_pylist() if len(table) else []
            counts[name, stage] = Processed(**last[0]) if last else Processed(0, 0, 0, 0)
    return counts


def make_lines(
    plan: Plan, evaluations: pa.Table, processed: dict[tuple[str, str], Processed]
) -> list[Line]:
    """The table as people read it: teachers first, then students, each followed by its baseline."""
    order = model_order(plan.config)
    lines = []
    for row in evaluations.to_pylist():
        model = plan.config.models[row["model"]]
        shape = plan.config.models[model.baseline_of] if model.baseline_of else model
        training = trainings(model).get(row["stage"])
        done = processed.get((row["model"], row["stage"]))
        lines.append(
            Line(
                model=row["model"],
                stage=row["stage"],
                dataset=row["dataset"],
                arch=shape.arch or "",
                trained_on=training.on if training else model.weights or "",
                baseline_of=model.baseline_of or "",
                role=_role(plan.config, row["model"]),
                num_processed=done.images if done else None,
                accuracy=_accuracy(row),
                top5=row["top5"],
                num_failed=row["num_failed"],
            )
        )
    stages = ["imported", "train", "pretrain", "finetune"]
    sets = plan.config.evaluate.on
    return sorted(
        lines,
        key=lambda line: (
            sets.index(line.dataset), order.index(line.model), stages.index(line.stage)
        ),
    )  # fmt: skip


def model_order(config: Config) -> list[str]:
    """Models such that each stands after those it needs, and a baseline right after its student."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        model = config.models[name]
        needed = [other for other in (model.init, model.baseline_of) if other]
        sources = [training.on for training in trainings(model).values()]
        needed += [config.selections[on].teacher for on in sources if on in config.selections]
        for other in needed:
            visit(other)
        order.append(name)
        for other, candidate in config.models.items():
            if candidate.baseline_of == name:
                visit(other)

    for name, model in config.models.items():
        if not model.baseline_of:
            visit(name)
    return order


def students(config: Config) -> list[str]:
    """Models trained on a selection."""
    return [
        name
        for name in model_order(config)
        if any(t.on in config.selections for t in trainings(config.models[name]).values())
    ]


def _role(config: Config, name: str) -> str:
    if config.models[name].baseline_of:
        return "baseline"
    return "student" if name in students(config) else ""


def _accuracy(row: dict[str, Any]) -> Accuracy:
    top1 = row["top1"] if row["num_images"] else math.nan
    return Accuracy(top1, row["top1_low"], row["top1_high"], row["num_images"])


def compare(plan: Plan, evaluations: pa.Table) -> list[Comparison]:
    """The last stage of every student against that of each of its baselines, on each set."""
    found = {(r["model"], r["stage"], r["dataset"]): r for r in evaluations.to_pylist()}
    comparisons = []
    for baseline in model_order(plan.config):
        student = plan.config.models[baseline].baseline_of
        if not student:
            continue
        ends = (student, plan.stages(student)[-1]), (baseline, plan.stages(baseline)[-1])
        for dataset in plan.config.evaluate.on:
            rows = [found.get((*end, dataset)) for end in ends]
            if rows[0] is None or rows[1] is None:
                continue
            comparisons.append(
                Comparison(
                    *ends[0], *ends[1], dataset, _accuracy(rows[0]), _accuracy(rows[1]),
                    compare_hits(*_common_hits(plan, ends, dataset)),
                )
            )  # fmt: skip
    return comparisons


def _common_hits(
    plan: Plan, ends: tuple[tuple[str, str], tuple[str, str]], dataset: str
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of two models was right, on the images both were measured on."""
    first, second = (read_hits(plan, *end, dataset) for end in ends)
    _, in_first, in_second = np.intersect1d(
        first[0], second[0], assume_unique=True, return_indices=True
    )
    return first[1][in_first], second[1][in_second]


def read_hits(plan: Plan, model: str, stage: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Identities of the images a model was measured on, and whether it was right."""
    path = Path(f"{plan.results}/predictions/{model}/{stage}.parquet")
    columns = ["dataset", "shard_id", "sample_index", "label", "class_id"]
    table = tables.read_table(path, schemas.PREDICTIONS, columns)
    table = table.filter(pc.equal(table["dataset"], dataset))
    hits = table["label"].to_numpy() == table["class_id"].to_numpy()
    return tables.identity(table), hits


class Axis(NamedTuple):
    """Where values between ``low`` and ``high`` stand on a track, in percent of its width."""

    low: float
    high: float
    ticks: list[float]

    def place(self, value: float) -> float:
        span = self.high - self.low
        return round(100 * min(max((value - self.low) / span, 0.0), 1.0), 2)


def make_axis(accuracies: list[Accuracy]) -> Axis:
    """An axis that holds all intervals, with ticks at round shares."""
    known = [a for a in accuracies if not math.isnan(a.top1)]
    low, high = min((a.low for a in known), default=0.0), max((a.high for a in known), default=1.0)
    steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25]
    step = next((s for s in steps if (high - low) / s <= 5), 0.25)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return Axis(first * step, last * step, [round(i * step, 6) for i in range(first, last + 1)])

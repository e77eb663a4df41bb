"""How the trainings went, how long every rule took, and what made these results."""

import csv
import importlib.metadata
import math
import platform
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from markupsafe import Markup

from semisup import plots, schemas, tables
from semisup.checks import trainings
from semisup.plan import Plan
from semisup.report.accuracy import model_order

MAX_POINTS = 400
RULES = (
    "make_digits", "make_cifar10", "pack_folder", "index_shards", "import_weights", "train",
    "extract_features", "find_duplicates", "merge_duplicates", "find_copies", "score_shards",
    "count_images", "select", "pack_selection", "pretrain", "finetune_candidate",
    "evaluate_candidate", "choose_candidate", "finetune", "evaluate",
)  # fmt: skip
PACKAGES = (
    "snakemake",
    "torch",
    "torchvision",
    "faiss-gpu",
    "faiss-cpu",
    "pyarrow",
    "numpy",
    "pillow",
)


class Curve(NamedTuple):
    model: str
    stage: str
    trained_on: str
    recipe: str
    loss: float
    top1: float
    failed: int
    figure: Markup


class RuleTime(NamedTuple):
    rule: str
    jobs: int
    seconds: float
    longest: float
    max_rss_mib: float


def view_curves(plan: Plan) -> list[Curve]:
    curves = []
    for name in model_order(plan.config):
        for stage, training in trainings(plan.config.models[name]).items():
            path = Path(f"{plan.results}/models/{name}/{stage}/metrics.parquet")
            table = tables.read_table(path, schemas.METRICS)
            if not len(table):
                continue
            images, lrs, losses = (
                thin(table[column].to_numpy(), MAX_POINTS) for column in ("images", "lr", "loss")
            )
            last = table.slice(len(table) - 1).to_pylist()[0]
            figure = plots.training_curves(images, losses, lrs)
            curves.append(
                Curve(
                    name, stage, training.on, training.recipe,
                    last["loss"], last["top1"], last["failed"], figure,
                )
            )  # fmt: skip
    return curves


def view_sweeps(plan: Plan) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of each model whose finetuning is a sweep, the rows of SWEEP."""
    return [
        (path.parent.parent.name, tables.read_table(path, schemas.SWEEP).to_pylist())
        for path in map(Path, plan.report_inputs()["sweeps"])
    ]


def thin(values: np.ndarray, limit: int) -> list[float]:
    """At most ``limit`` values: means of consecutive runs."""
    if len(values) <= limit:
        return [float(value) for value in values]
    return [float(run.mean()) for run in np.array_split(values, limit)]


def read_times(results: Path) -> list[RuleTime]:
    """Wall time and memory by rule, in the order of the pipeline, from Snakemake's benchmarks."""
    folder = results / "benchmarks"
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        with open(path, encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                seconds = _number(row.get("s"))
                if rule != "report" and not math.isnan(seconds):
                    found.setdefault(rule, []).append((seconds, _number(row.get("max_rss"))))
    times = [
        RuleTime(
            rule,
            len(jobs),
            sum(seconds for seconds, _ in jobs),
            max(seconds for seconds, _ in jobs),
            max((rss for _, rss in jobs if not math.isnan(rss)), default=math.nan),
        )
        for rule, jobs in found.items()
    ]
    return sorted(times, key=lambda time: (_place(time.rule), time.rule))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _place(rule: str) -> int:
    base = rule.split("-")[0]
    return RULES.index(base) if base in RULES else len(RULES)


def config_yaml(plan: Plan) -> str:
    """The configuration as it was given; presets that no training names are left out."""
    config = plan.config.model_dump(mode="json", exclude_unset=True)
    used = {t.recipe for m in plan.config.models.values() for t in trainings(m).values()}
    recipes = {name: recipe for name, recipe in config.get("recipes", {}).items() if name in used}
    config["recipes"] = recipes
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=88)
    return re.sub(r"^( +)'on':", r"\1on:", text, flags=re.MULTILINE)


def read_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

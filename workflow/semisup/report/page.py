"""Gathers every section, and renders the page."""

import math
from pathlib import Path

import jinja2
from pyarrow import Table

from semisup import tables
from semisup.books import count_samples, words
from semisup.ledger import Summary
from semisup.plan import Plan
from semisup.progress import duration
from semisup.report import (
    accounts,
    accuracy,
    attention,
    duplicates,
    failures,
    leaks,
    selections,
    training,
)
from semisup.report.comparison import headline, p_text, points

MAX_CLASSES_ON_PAGE = 60


def gather(plan: Plan, evaluations: Table) -> dict[str, object]:
    """Everything the template shows. Raises DataError where the books do not balance."""
    config = plan.config
    processed = accuracy.count_processed(plan)
    lines = accuracy.make_lines(plan, evaluations, processed)
    comparisons = accuracy.compare(plan, evaluations)

    scorings: dict[tuple[str, str], accounts.Account] = {}
    num_samples: dict[str, int] = {}
    failed = []
    for teacher, unlabeled in sorted(
        {(s.teacher, s.unlabeled) for s in config.selections.values()}
    ):
        scorings[teacher, unlabeled] = accounts.account_for_scoring(plan, teacher, unlabeled)
        num_samples[unlabeled] = scorings[teacher, unlabeled].scale
        manifests = accounts.read_manifests(plan, unlabeled)
        failed.append(failures.view_scoring(plan, teacher, unlabeled, manifests))

    views, selected = [], []
    max_classes = max(
        3, min(selections.MAX_CLASSES, MAX_CLASSES_ON_PAGE // max(len(config.selections), 1))
    )
    for name, selection in config.selections.items():
        summary: Summary = tables.read_json(Path(f"{plan.results}/selections/{name}/summary.json"))
        chosen = selections.read_chosen(plan, name)
        scoring = scorings[selection.teacher, selection.unlabeled]
        account = accounts.account_for_selection(
            plan, name, scoring, summary, chosen.identities, processed
        )
        selected.append(account)
        views.append(selections.view_selection(plan, name, summary, chosen, max_classes))

    labelled = []
    for name in plan.labelled():
        labelled.append(accounts.account_for_dataset(plan, name, evaluations, processed))
        failed.append(failures.view_dataset(plan, name, accounts.read_manifests(plan, name)))

    close = [
        duplicates.view_duplicates(plan, name, num_samples[name])
        for name in sorted(plan.unlabeled)
        if config.duplicates
    ]
    curves = training.view_curves(plan)
    sizes = {
        name: count_samples(accounts.read_manifests(plan, name)) for name in config.evaluate.on
    }
    leak_view = leaks.view_leaks(plan, lines, sizes) if close else None
    return {
        "headline": headline(comparisons, len(lines)),
        "comparisons": comparisons,
        "warnings": attention.find_warnings(
            plan, lines, views, [*scorings.values(), *labelled], failed, close, curves, leak_view
        ),
        "datasets": [
            (name, own, accuracy.make_axis([line.accuracy for line in own]))
            for name in config.evaluate.on
            if (own := [line for line in lines if line.dataset == name])
        ],
        "lines": lines,
        "selections": views,
        "duplicates": close,
        "leaks": leak_view,
        "calibration": leaks.view_calibration(plan, close) if close else None,
        "accounts": selected,
        "labelled": labelled,
        "failures": [view for view in failed if view.total],
        "curves": curves,
        "sweeps": training.view_sweeps(plan),
        "times": training.read_times(Path(plan.results)),
        "config": training.config_yaml(plan),
        "versions": training.read_versions(),
        "seed": config.seed,
    }


def render(context: dict[str, object]) -> str:
    """One page without any reference to the outside; everything from data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "percent": percent,
        "interval": interval,
        "score": score,
        "words": words,
        "points": points,
        "duration": duration,
        "p_text": p_text,
    }
    return environment.get_template("page.html.j2").render(context)


DASH = "–"


def interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}{DASH}{100 * bounds[1]:.1f}"


def percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{100 * share:.1f} %"


def score(probability: float | None) -> str:
    """A softmax probability to three digits; never 0 or 1, which it never is."""
    if probability is None:
        return DASH
    if probability < 0.001:
        return "< 0.001"
    return "> 0.999" if probability > 0.999 else f"{probability:.3f}"

"""What the plan says for every job there can be, laid out to be compared."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from semisup.checks import load_config, trainings
from semisup.plan import Plan
from small import read_config

Raw = dict[str, Any]
Laid = dict[str, Any]

TRAINING = {"on": "labeled", "recipe": "supervised"}


def at(**wildcards: object) -> Any:
    return SimpleNamespace(**wildcards)


def make(**changes: Any) -> Plan:
    """The plan of the tests' configuration, changed at keys joined by two underscores."""
    return Plan(load_config(change(read_config(), changes)))


def change(raw: Raw, changes: dict[str, Any]) -> Raw:
    for path, value in changes.items():
        *sections, key = path.split("__")
        section = raw
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return raw


def lay_out(plan: Plan) -> Laid:
    """What the plan says for every job there can be, by rule and wildcards."""
    config = plan.config
    by_part = [
        {"dataset": name, "part": f"{part:05d}"}
        for name in config.datasets
        if name in plan.unlabeled | set(plan.labelled())
        for part in range(len(plan.parts(name)))
    ]
    folders = [{"dataset": name} for name, d in config.datasets.items() if d.folder is not None]
    stages = [
        {"model": m, "stage": s} for m, model in config.models.items() for s in trainings(model)
    ]
    imported = [{"model": name} for name, model in config.models.items() if model.weights]
    scored = [{"teacher": s.teacher, "unlabeled": s.unlabeled} for s in config.selections.values()]
    searched = [{"dataset": name} for name in sorted(plan.unlabeled)]
    selections = [{"selection": name} for name in config.selections]
    packed = [
        {"selection": name, "part": f"{part:05d}"}
        for name in config.selections
        for part in range(len(plan.packed_parts(name)))
    ]
    evaluated = [{"model": m, "stage": s} for m, s in plan.evaluated_stages()]
    calls: dict[Callable[..., Any], list[dict[str, str]]] = {
        plan.make_digits: [{}],
        plan.pack_folder: folders,
        plan.index_shards: by_part,
        plan.shards_to_make: by_part,
        plan.train: stages,
        plan.training_data: stages,
        plan.training_samples: stages,
        plan.training_tars: stages,
        plan.initial_weights: stages,
        plan.import_weights: imported,
        plan.weights_file: imported,
        plan.teacher_weights: scored,
        plan.score_shards: scored,
        plan.scores_parts: scored,
        plan.images_parts: scored,
        plan.count_images: scored,
        plan.unlabeled_manifests: scored,
        plan.unlabeled_samples: scored,
        plan.unlabeled_tars: scored,
        plan.duplicate_parts: searched,
        plan.select: selections,
        plan.selection_scores: selections,
        plan.selection_manifests: selections,
        plan.selection_samples: selections,
        plan.selection_classes: selections,
        plan.selection_tars: selections,
        plan.selection_counts: selections,
        plan.selection_failures: selections,
        plan.selection_nearest: selections,
        plan.first_selection_nearest: selections,
        plan.selection_pairs: selections,
        plan.selection_near_copies: selections,
        plan.selection_copies: selections,
        plan.reviewed: selections,
        plan.reviewed_manifests: selections,
        plan.reviewed_samples: selections,
        plan.pack_selection: packed,
        plan.evaluate: evaluated,
        plan.evaluation_manifests: [{}],
        plan.evaluation_samples: [{}],
        plan.evaluation_tars: [{}],
        plan.report: [{}],
    }
    if config.duplicates:
        once = [plan.extract_features, plan.find_duplicates, plan.descriptor_weights]
        for function in [*once, plan.calibrate_duplicates, plan.measure_leaks]:
            calls[function] = [{}]
        searches = [
            plan.merge_duplicates,
            plan.find_copies,
            plan.fingerprints,
            plan.make_review_page,
        ]
        for function in searches:
            calls[function] = searched
        if config.duplicates.within_unlabeled:
            cells = [plan.train_cells, plan.merge_near_copies, plan.sorted_parts]
            for function in [*cells, plan.near_copies_groups, plan.dataset_features]:
                calls[function] = searched
            for function in (plan.sort_into_cells, plan.find_near_copies):
                calls[function] = [{**where, "part": "00001"} for where in searched]
        if plan.read_with:
            for function in (plan.score_and_describe, plan.read_with_weights):
                calls[function] = [{}]
    return {
        f"{function.__name__} {' '.join(where.values())}".strip(): function(at(**where))
        for function, jobs in calls.items()
        for where in jobs
    } | {"report_inputs": plan.report_inputs()}


def differing(one: Laid, other: Laid) -> set[str]:
    """The rules and wildcards for which two plans say different things."""
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    return {key for key in keys if key.split()[0] not in ("report", "report_inputs")}

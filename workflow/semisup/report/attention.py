"""What a person should know before trusting the numbers: one sentence each."""

from collections.abc import Iterator
from pathlib import Path

from semisup.plan import Plan
from semisup.report.accounts import Account
from semisup.report.accuracy import Line, students
from semisup.report.duplicates import DuplicatesView
from semisup.report.failures import FailuresView
from semisup.report.leaks import LeaksView
from semisup.report.selections import SelectionView
from semisup.report.training import Curve
from semisup.tables import read_json
from semisup.wording import name_first

MAX_FAILURE_RATE = 0.05
MAX_REMOVED_RATE = 0.1


def find_warnings(
    plan: Plan,
    lines: list[Line],
    selections: list[SelectionView],
    accounts: list[Account],
    failures: list[FailuresView],
    duplicates: list[DuplicatesView],
    curves: list[Curve],
    leaks: LeaksView | None = None,
) -> list[str]:
    return [
        *(_not_compared(plan, leaks) if leaks else []),
        *_missing_parts(plan, lines),
        *_mixed_numerics(plan),
        *(text for view in selections for text in _short_classes(view)),
        *(
            f"{100 * view.removed_share:.0f} % of the images of {view.unlabeled} were removed as "
            "near-duplicates of evaluation images: look at the pairs on both sides of the cut."
            for view in duplicates
            if view.removed_share > MAX_REMOVED_RATE
        ),
        *(
            f"duplicates.remove.closest is {view.remove.closest:,}, but only {view.num_close:,} images of "
            f"{view.unlabeled} are within record_distance {view.record_distance:g} of an evaluation "
            "image: raise duplicates.record_distance, or lower closest."
            for view in duplicates
            if view.remove.closest > view.num_close
        ),
        *(
            f"{100 * account.failure_rate:.1f} % of the samples of {account.name} failed."
            for account in accounts
            if account.failure_rate > MAX_FAILURE_RATE
        ),
        *(
            f"{name_first(view.lost_shards)} of {view.name}: not one usable sample."
            for view in failures
            if view.lost_shards
        ),
        *(
            f"{line.num_failed:,} samples of {line.dataset} could not be evaluated by "
            f"{line.model}/{line.stage}; they count neither as right nor as wrong."
            for line in lines
            if line.num_failed
        ),
        *(
            f"{curve.failed:,} images were left out of the training of {curve.model}/{curve.stage}: "
            "they could not be decoded."
            for curve in curves
            if curve.failed
        ),
    ]


def _not_compared(plan: Plan, leaks: LeaksView) -> Iterator[str]:
    for name, statuses in leaks.not_compared.items():
        if name in plan.config.evaluate.on and statuses:
            number = sum(statuses.values())
            what = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
            yield (
                f"{number:,} images of {name} could not be described ({what}): near-duplicates of "
                "them were not looked for."
            )
        elif zeros := statuses.get("zero_feature", 0):
            yield (
                f"Of {zeros:,} images of {name} the descriptor says nothing (zero_feature): they were "
                "compared with no evaluation image, but may be selected."
            )


def _missing_parts(plan: Plan, lines: list[Line]) -> Iterator[str]:
    config = plan.config
    baselines = {model.baseline_of for model in config.models.values()}
    for name in students(config):
        if name not in baselines:
            yield (
                f"{name} has no baseline: add a model with baseline_of: {name} to see what the "
                "unlabelled images brought."
            )
    if config.selections and not config.duplicates:
        yield (
            "No near-duplicates of evaluation images were looked for: what the students learned "
            "from may contain them. Add the section duplicates."
        )
    remove = config.duplicates.remove if config.duplicates else None
    decides = remove and (
        remove.closest or remove.max_distance is not None or remove.reviewed is not None
    )
    if config.selections and remove and not decides:
        yield "Near-duplicates were looked for, but no rule in duplicates.remove removes any."
    if not lines:
        yield "No model predicts the classes of the evaluation sets, so nothing was measured."


def _mixed_numerics(plan: Plan) -> Iterator[str]:
    for path in map(Path, plan.report_inputs()["images"]):
        made_by = read_json(path).get("numerics", [])
        if len(made_by) > 1:
            yield (
                f"The scores of {path.parent.name} by {path.parent.parent.name} were made in different "
                f"ways ({'; '.join(made_by)}): their last digits are not comparable."
            )


def _short_classes(view: SelectionView) -> Iterator[str]:
    empty = [c["class_name"] for c in view.short if not c["num_images"]]
    short = [c["class_name"] for c in view.short if c["num_images"]]
    if empty:
        yield f"{view.name}: {_classes(empty)} got no image at all ({name_first(empty)})."
    chance = 1 / max(len(view.summary["classes"]), 1)
    unsure = [
        c["class_name"]
        for c in view.summary["classes"]
        if c["cut_score"] is not None and c["cut_score"] < chance
    ]
    if unsure:
        yield (
            f"{view.name}: {_classes(unsure)} took images that the teacher gives less than chance "
            f"({name_first(unsure)}). Lower images_per_class, or give a min_score."
        )
    if short:
        yield (
            f"{view.name}: {_classes(short)} got fewer images than wanted ({name_first(short)})."
        )


def _classes(names: list[str]) -> str:
    return "1 class" if len(names) == 1 else f"{len(names):,} classes"

from pathlib import Path

import pytest
from laid_out import at, make

from semisup import settings as step_settings


@pytest.mark.parametrize(("stored", "expected"), [(None, 10), (3, 3), (10, 10)])
def test_p_stored_is_ten_or_what_is_told(stored: int | None, expected: int) -> None:
    assert make(score={"classes_per_image": stored}).stored_classes("teacher") == expected


def test_p_stored_is_at_most_the_number_of_classes() -> None:
    few = {f"datasets__{name}__classes": 4 for name in ("labeled", "validation", "test")}
    assert make(**few).stored_classes("teacher") == 4


def test_a_selection_without_p_takes_all_that_is_stored() -> None:
    plan = make(score={"classes_per_image": 7}, selections__top__classes_per_image=None)
    made = step_settings.Select.model_validate_json(plan.select(at(selection="top")))
    assert made.classes_per_image == 7


def test_without_duplicates_nothing_is_removed_and_nothing_is_read_for_it() -> None:
    plan = make(duplicates=None)
    made = step_settings.Select.model_validate_json(plan.select(at(selection="top")))
    assert made.remove is None
    job = at(selection="top")
    assert plan.selection_nearest(job) == plan.selection_copies(job) == plan.reviewed(job) == []
    assert plan.report_inputs()["pairs"] == []
    assert plan.descriptor() == ""


def test_a_selection_starts_from_scores_that_are_proved_complete() -> None:
    folder = "results/scores/teacher/unlabeled"
    assert make().selection_counts(at(selection="top")) == f"{folder}/images.json"
    assert make().selection_failures(at(selection="top")) == f"{folder}/failures.parquet"


def test_class_names_of_a_selection_are_its_teachers() -> None:
    path = make().selection_classes(at(selection="top"))
    assert path == "results/models/teacher/train/classes.txt"


def test_a_review_page_names_the_classes_of_u_where_they_are_its_own() -> None:
    own = {"datasets__unlabeled__labels": True, "datasets__unlabeled__classes": ["fox", "elk"]}
    for plan, classes in ((make(), None), (make(**own), ["fox", "elk"])):
        raw = plan.make_review_page(at(dataset="unlabeled"))
        assert step_settings.MakeReviewPage.model_validate_json(raw).own_classes == classes


def test_a_review_is_read(tmp_path: Path) -> None:
    (tmp_path / "review.csv").touch()
    plan = make(duplicates__remove__reviewed=f"{tmp_path}/review.csv")
    assert plan.reviewed(at(selection="top")) == [f"{tmp_path}/review.csv"]
    assert plan.report_inputs()["reviewed"] == [f"{tmp_path}/review.csv"]
    manifests = plan.reviewed_manifests(at(selection="top"))
    assert manifests == [*plan.manifests("validation"), *plan.manifests("test")]
    assert make().reviewed_manifests(at(selection="top")) == []
    assert make().report_inputs()["reviewed"] == []


def test_features_are_made_by_one_rule_or_by_the_other() -> None:
    alone, together = make(), make(duplicates__read_with="teacher")
    assert (alone.read_once(False), alone.read_once(True)) == (
        "labeled|unlabeled|validation|test", "$^",
    )  # fmt: skip
    assert (together.read_once(False), together.read_once(True)) == (
        "labeled|validation|test", "unlabeled",
    )  # fmt: skip
    assert together.other_teachers() == "student|baseline"
    assert together.scores_read_with == "results/scores/teacher"

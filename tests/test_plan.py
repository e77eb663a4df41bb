import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from semisup import data_checks
from semisup import settings as step_settings
from semisup.checks import ConfigError, load_config, trainings
from semisup.datasets import DIGITS
from semisup.network_checks import read_architectures
from semisup.plan import Plan
from semisup.settings import Settings
from small import ROOT, mutated, read_config

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


@settings(max_examples=200)
@given(mutated())
def test_what_the_checks_accept_can_be_laid_out(raw: Raw) -> None:
    try:
        config = load_config(raw)
    except ConfigError:
        return
    lay_out(Plan(config))


# --- datasets ------------------------------------------------------------------------------


def test_a_builtin_part_needs_its_own_tars_alone() -> None:
    needed = make().shards_to_make(at(dataset="unlabeled", part="00003"))
    assert needed == ["results/datasets/builtin/digits/unlabeled-00009.tar"]


def test_a_part_of_a_folder_needs_its_tars(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    plan = make(datasets__unlabeled={"folder": str(tmp_path)})
    assert plan.shards_to_make(at(dataset="unlabeled", part="00000")) == [
        "results/datasets/unlabeled/tars"
    ]


def test_tars_of_the_user_are_no_declared_inputs_but_their_change_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    plan = make(datasets__unlabeled={"shards": f"{tmp_path}/a.tar"})
    job = at(dataset="unlabeled", part="00000")
    assert plan.shards_to_make(job) == []
    before = plan.index_shards(job)
    (tmp_path / "a.tar").write_bytes(b"x")
    assert plan.index_shards(job) != before


def test_parts_cover_all_shards_with_their_ids() -> None:
    plan = make()
    parts = [
        step_settings.IndexShards.model_validate_json(
            plan.index_shards(at(dataset="unlabeled", part=p))
        )
        for p in ("00000", "00001", "00002", "00003")
    ]
    assert [part.first_shard for part in parts] == [0, 3, 6, 9]
    assert [path for part in parts for path in part.shards] == plan.shards("unlabeled")
    assert [part.part for part in parts] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("labeled", None, True),
        ("test", None, True),
        ("unlabeled", None, False),
        ("unlabeled", True, True),
        ("unlabeled", False, False),
    ],
)
def test_labels_are_read_except_of_u_unless_told(
    name: str, labels: bool | None, expected: bool
) -> None:
    plan = make(**{f"datasets__{name}__labels": labels})
    made = step_settings.IndexShards.model_validate_json(
        plan.index_shards(at(dataset=name, part="00000"))
    )
    assert plan.has_labels(name) is expected
    assert made.num_classes == (10 if expected else None)


def test_a_folder_without_labels_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    plan = make(datasets__unlabeled={"folder": str(tmp_path)})
    made = step_settings.PackFolder.model_validate_json(plan.pack_folder(at(dataset="unlabeled")))
    assert made.classes is None


def test_a_labelled_folder_is_packed_with_its_classes(tmp_path: Path) -> None:
    for name in DIGITS.classes:
        (tmp_path / name).mkdir()
    plan = make(datasets__unlabeled={"folder": str(tmp_path), "labels": True})
    made = step_settings.PackFolder.model_validate_json(plan.pack_folder(at(dataset="unlabeled")))
    assert made.classes == sorted(DIGITS.classes)


def test_manifests_of_a_dataset_and_of_a_selection() -> None:
    plan = make()
    assert plan.manifests("unlabeled")[1] == "results/datasets/unlabeled/manifest-00001.json"
    assert len(plan.manifests("unlabeled")) == 4
    assert plan.manifests("top") == ["results/shards/top/manifest-00000.json"]


def test_by_default_a_hundred_thousand_shards_make_250_parts(tmp_path, monkeypatch) -> None:
    shards = str(tmp_path / "u-{00000..99999}.tar")
    monkeypatch.setattr(data_checks, "check_files", lambda config: ())
    plan = make(datasets__unlabeled={"shards": shards})
    assert len(plan.parts("unlabeled")) == 250
    assert len(make(datasets__unlabeled__shards_per_part=3).parts("unlabeled")) == 4


def test_a_selection_is_packed_in_parts_that_hold_every_class_full() -> None:
    plan = make(pack__samples_per_shard=7, pack__shards_per_part=4)
    parts = plan.packed_parts("top")
    assert [len(part) for part in parts] == [4] * 7 + [1]  # 20 images x 10 classes / 7
    assert len(plan.manifests("top")) == 8


def test_however_large_a_selection_its_parts_fit_into_one_command() -> None:
    plan = make(selections__top__images_per_class=2**31 - 1)
    assert len(plan.packed_parts("top")) == 256


def test_samples_stand_beside_manifests() -> None:
    plan = make()
    assert plan.samples("top") == ["results/shards/top/samples-00000.parquet"]
    assert plan.samples("test") == ["results/datasets/test/samples-00000.parquet"]


def test_builtin_shards_name_every_split() -> None:
    names = make().builtin_shards("digits")
    assert len(names) == sum(DIGITS.num_shards.values())
    assert names[-1] == "unlabeled-00009"
    assert "test-00001" in make().builtin_shards("cifar10")


# --- models --------------------------------------------------------------------------------


def test_stages_and_the_weights_each_starts_from() -> None:
    plan = make()
    assert plan.stages("student") == ["pretrain", "finetune"]
    assert plan.initial_weights(at(model="student", stage="pretrain")) == []
    assert plan.initial_weights(at(model="student", stage="finetune")) == [
        "results/models/student/pretrain/weights.pt"
    ]
    assert plan.weights("student") == "results/models/student/finetune/weights.pt"


def test_imported_weights_are_where_the_first_stage_starts(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    weights = {"arch": "resnet18", "weights": str(tmp_path / "w.pt"), "classes": 3}
    plan = make(models__other={**weights, "finetune": TRAINING})
    assert plan.stages("other") == ["imported", "finetune"]
    assert plan.weights_file(at(model="other")) == [str(tmp_path / "w.pt")]
    assert plan.initial_weights(at(model="other", stage="finetune")) == [
        "results/models/other/imported/weights.pt"
    ]


def test_torchvisions_weights_are_no_file() -> None:
    plan = make(models__other={"arch": "resnet18", "weights": "torchvision:IMAGENET1K_V1"})
    assert plan.weights_file(at(model="other")) == []


def test_a_model_may_start_from_the_last_weights_of_another() -> None:
    other = {"arch": "cifar_resnet8_w8", "init": "student", "finetune": TRAINING}
    assert make(models__other=other).initial_weights(at(model="other", stage="finetune")) == [
        "results/models/student/finetune/weights.pt"
    ]


def test_a_baseline_has_its_students_arch_size_and_budget() -> None:
    plan = make(models__student__interpolation="bicubic")
    made = step_settings.Train.model_validate_json(plan.train(at(model="baseline", stage="train")))
    how = step_settings.Preprocessing(image_size=28, resize=32, interpolation="bicubic")
    assert (made.arch, made.preprocessing) == ("cifar_resnet8_w8", how)
    assert made.recipe.images == 300 + 50
    own = plan.config.recipes["supervised"]
    assert made.recipe == own.model_copy(update={"images": 350})


def test_a_teacher_has_the_budget_of_its_recipe() -> None:
    made = step_settings.Train.model_validate_json(make().train(at(model="teacher", stage="train")))
    assert made.recipe.images == 1000


@given(st.integers(8, 4096))
def test_images_are_resized_in_imagenets_proportion_unless_told(image_size: int) -> None:
    plan = make(models__teacher__image_size=image_size)
    made = step_settings.Train.model_validate_json(plan.train(at(model="teacher", stage="train")))
    how = made.preprocessing
    assert (how.image_size, how.interpolation) == (image_size, "bilinear")
    assert how.resize == round(image_size * 256 / 224) >= image_size


def preprocessing(*models: dict[str, Any]) -> list[step_settings.Preprocessing]:
    plan = make(**{f"models__m{i}": model for i, model in enumerate(models)})
    places = [at(model=f"m{i}", stage="imported") for i in range(len(models))]
    made = step_settings.ImportWeights
    return [made.model_validate_json(plan.import_weights(each)).preprocessing for each in places]


def test_images_are_resized_as_torchvisions_weights_expect() -> None:
    """All of them, at their own size: with another filter they are worse than they are said to be."""
    names = [
        (arch, name)
        for arch, weights in read_architectures().items()
        for name, asked in weights.items()
        if "other_normalization" not in asked
    ]
    theirs = [torchvision.models.get_model_weights(arch)[name].transforms() for arch, name in names]
    ours = preprocessing(
        *(
            {"arch": arch, "weights": f"torchvision:{name}", "image_size": their.crop_size[0]}
            for (arch, name), their in zip(names, theirs, strict=True)
        )
    )
    for how, their in zip(ours, theirs, strict=True):
        assert [how.resize] == their.resize_size
        assert how.interpolation == their.interpolation.value
    assert sum(how.interpolation == "bicubic" for how in ours) > 20
    assert sum(how.resize != round(how.image_size * 256 / 224) for how in ours) > 50


def test_images_are_resized_as_the_configuration_says_whatever_the_weights() -> None:
    model = {"arch": "efficientnet_b3", "weights": "torchvision:IMAGENET1K_V1", "image_size": 300}
    told = {"resize": 310, "interpolation": "bilinear"}
    default, how = preprocessing(model, model | told)
    assert (default.resize, default.interpolation) == (320, "bicubic")
    assert (how.resize, how.interpolation) == (310, "bilinear")


def test_a_file_named_as_torchvisions_weights_asks_nothing_of_images(tmp_path: Path) -> None:
    file = tmp_path / "IMAGENET1K_V1"
    file.touch()
    model = {"arch": "efficientnet_b3", "weights": str(file), "classes": ["a", "b"]}
    (how,) = preprocessing(model | {"image_size": 300})
    assert (how.resize, how.interpolation) == (round(300 * 256 / 224), "bilinear")


def test_a_student_learns_the_classes_of_its_teacher() -> None:
    plan = make(datasets__labeled__classes=10, datasets__test__classes=10,
                datasets__validation__classes=10)  # fmt: skip
    made = step_settings.Train.model_validate_json(
        plan.train(at(model="student", stage="pretrain"))
    )
    assert made.classes == [str(i) for i in range(10)]


def test_a_preset_and_its_copy_are_the_same_training() -> None:
    plan = make(recipes__supervised={"preset": "paper_finetune"})
    other = make(models__teacher__train__recipe="paper_finetune")
    job = at(model="teacher", stage="train")
    assert plan.train(job) == other.train(job)


# --- scores and selections -----------------------------------------------------------------


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


# --- results -------------------------------------------------------------------------------


def test_every_stage_that_predicts_the_measured_classes_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    weights = {"arch": "resnet18", "weights": str(tmp_path / "w.pt"), "classes": 3}
    plan = make(models__other={**weights, "finetune": TRAINING})
    assert plan.evaluated_stages() == [
        ("teacher", "train"), ("student", "pretrain"), ("student", "finetune"),
        ("baseline", "train"), ("other", "finetune"),
    ]  # fmt: skip


def test_the_report_reads_every_table_once() -> None:
    inputs = make().report_inputs()
    paths = [path for group in inputs.values() for path in group]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("results/") for path in paths)
    assert "results/selections/top/summary.json" in inputs["selections"]
    assert "results/models/student/finetune/metrics.parquet" in inputs["metrics"]


def test_all_paths_begin_with_the_folder_of_results() -> None:
    laid = lay_out(make(results="/elsewhere/out"))
    paths = [path for value in laid.values() if isinstance(value, list) for path in value]
    assert len(paths) > 20
    assert all(path.startswith("/elsewhere/out/") for path in paths)


# --- what makes a job run again ------------------------------------------------------------

SETTINGS = {name: kind for name, kind in vars(step_settings).items() if isinstance(kind, type)
            and issubclass(kind, Settings) and kind is not Settings}  # fmt: skip


def test_the_settings_of_every_job_are_canonical_json_of_its_step() -> None:
    found = 0
    for key, value in lay_out(make()).items():
        kind = SETTINGS.get("".join(word.title() for word in key.split()[0].split("_")))
        if kind:
            assert kind.model_validate_json(value).canonical() == value
            found += 1
    assert found > 15


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"selections__top__images_per_class": 21}, {"select top"}),
        ({"selections__top__min_score": 0.5}, {"select top"}),
        ({"selections__top__fraction": 0.5}, {"select top"}),
        ({"selections__top__variant": "zipf"}, {"select top"}),
        ({"selections__top__rank_by": "logit"}, {"select top"}),
        ({"duplicates__remove__closest": 4}, {"select top", "measure_leaks"}),
        ({"duplicates__leak_distance": 0.1}, {"measure_leaks"}),
        ({"duplicates__calibration_images": 9}, {"calibrate_duplicates"}),
        ({"duplicates__review_pairs": 9}, {"make_review_page unlabeled"}),
        ({"duplicates__record_distance": 0.6}, {"find_duplicates", "measure_leaks"}),
        ({"recipes__pretrain__base_lr": 0.2}, {"train student pretrain"}),
        ({"recipes__finetune__flip": False}, {"train student finetune"}),
        ({"recipes__finetune__images": 51},
         {"train student finetune", "train baseline train"}),
        ({"recipes__supervised__images": 999}, {"train teacher train"}),
        ({"models__student__arch": "cifar_resnet8_w4"},
         {"train student pretrain", "train student finetune", "train baseline train"}),
        ({"duplicates__max_pairs": 9}, {"find_duplicates", "merge_duplicates unlabeled", "measure_leaks"}),
        ({"duplicates__precision": "bfloat16"}, {"extract_features", "calibrate_duplicates"}),
        ({"score__batch_size": 8}, {"score_shards teacher unlabeled", "extract_features"}),
        ({"pack__samples_per_shard": 100}, {"pack_selection top 00000"}),
        ({"datasets__labeled__classes": DIGITS.classes}, set()),
        ({"datasets__unlabeled__num_shards": 3}, set()),
        ({"recipes__unused": {"images": 1}}, set()),
    ],
)  # fmt: skip
def test_a_changed_key_changes_only_the_jobs_that_depend_on_it(
    changes: Raw, expected: set[str]
) -> None:
    assert differing(lay_out(make()), lay_out(make(**changes))) == expected


def test_the_seed_changes_what_is_random_and_nothing_else() -> None:
    changed = {key.split()[0] for key in differing(lay_out(make()), lay_out(make(seed=8)))}
    assert changed == {"make_digits", "train", "pack_selection", "calibrate_duplicates"}
    for drawn in ({"fraction": 0.5}, {"variant": "random", "classes_per_image": None}):
        changes = {f"selections__top__{key}": value for key, value in drawn.items()}
        changes["datasets__unlabeled__labels"] = True
        one, other = (lay_out(make(seed=seed, **changes)) for seed in (7, 8))
        assert "select" in {key.split()[0] for key in differing(one, other)}


def test_the_report_depends_on_the_whole_configuration() -> None:
    assert make().report(at()) != make(recipes__unused={"images": 1}).report(at())


def test_the_order_of_keys_changes_nothing() -> None:
    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(item) for key, item in reversed(value.items())}
        return value

    jobs, others = (lay_out(Plan(load_config(raw))) for raw in
                    (read_config(), backwards(read_config())))  # fmt: skip
    assert {key: sorted(v) if isinstance(v, list) else v for key, v in jobs.items()
            if key != "report_inputs"} == {
        key: sorted(v) if isinstance(v, list) else v for key, v in others.items()
        if key != "report_inputs"
    }  # fmt: skip


def test_where_results_lie_changes_no_settings_but_those_that_name_the_tars() -> None:
    differences = differing(lay_out(make()), lay_out(make(results="out")))
    changed = {key.split()[0] for key in differences}
    functions = {name for name in changed if name in re.findall(r"settings=plan\.(\w+)", RULES)}
    assert functions == {"index_shards"}


RULES = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))


def test_the_rules_name_only_methods_of_the_plan() -> None:
    named = set(re.findall(r"\bplan\.(\w+)", RULES)) - {"smk"}
    assert len(named) > 25
    assert all(hasattr(make(), name) for name in named), named


def test_every_method_the_rules_name_is_laid_out_by_these_tests() -> None:
    within = {"max_distance": 0.1, "cells": 3}
    plans = make(duplicates__within_unlabeled=within), make(duplicates__read_with="teacher")
    laid = {key.split()[0] for plan in plans for key in lay_out(plan)}
    named = set(re.findall(r"(?:params:\s+settings=|=|ancient\()plan\.(\w+)(?=[,)])", RULES))
    assert named - laid <= {
        "make_cifar10", "pack_folder", "import_weights", "weights_file", "dataset_manifests",
        "dataset_samples", "dataset_tars", "choosing_tars", "candidate_weights", "candidate_classes", "candidate_metrics",
        "candidate_evaluations", "choosing_manifests", "choosing_samples", "train_candidate",
        "evaluate_candidate", "choose_candidate", "wandb",
    }  # fmt: skip


def test_a_sweep_trains_the_recipe_with_each_rate_and_measures_it_on_the_images_that_choose() -> (
    None
):
    sweep = {"base_lr": [0.01, 2e-7], "choose_on": "validation"}
    plan = make(evaluate__on=["test"], models__student__finetune__sweep=sweep)
    student = at(model="student", stage="finetune", candidate="base_lr-2e-07")
    recipe = json.loads(plan.train_candidate(student))["recipe"]
    assert recipe == {**json.loads(plan.train(student))["recipe"], "base_lr": 2e-7}
    folder = "results/models/student/finetune/base_lr"
    assert plan.candidate_weights(student) == [
        f"{folder}-{x}/weights.pt" for x in ("0.01", "2e-07")
    ]
    assert json.loads(plan.evaluate_candidate(student))["datasets"] == ["validation"]
    assert plan.choosing_manifests(student) == plan.manifests("validation")
    assert json.loads(plan.choose_candidate(student))["base_lr"] == [0.01, 2e-7]
    assert plan.models_with_sweep(True) == "student"
    assert plan.models_with_sweep(False) == "teacher|baseline"
    assert plan.report_inputs()["sweeps"] == ["results/models/student/finetune/sweep.parquet"]


def test_without_a_sweep_no_model_matches() -> None:
    assert make().models_with_sweep(True) == "$^"

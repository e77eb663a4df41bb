"""What makes a job run again, and what does not."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from laid_out import Raw, at, differing, lay_out, make

from semisup import settings as step_settings
from semisup.checks import ConfigError, load_config
from semisup.datasets import DIGITS
from semisup.plan import Plan
from semisup.settings import Settings
from small import ROOT, mutated, read_config


@settings(max_examples=200)
@given(mutated())
def test_what_the_checks_accept_can_be_laid_out(raw: Raw) -> None:
    try:
        config = load_config(raw)
    except ConfigError:
        return
    lay_out(Plan(config))


RULES = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))

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

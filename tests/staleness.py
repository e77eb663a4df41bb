"""What runs again when a key of the configuration changes: the expectation, key by key.

`test_staleness.py` compares it with dry-runs, `docs/generate.py` renders it. A key of the
configuration that has no row here fails the test.
"""

from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from semisup.config import Config, Section

CONFIG = """
seed: 3
datasets:
  labeled: {shards: "data/labeled.tar", classes: [ant, bee, cow]}
  photos: {folder: photos, num_shards: 2}
  held_out: {shards: "data/held-out.tar", classes: [ant, bee, cow]}
  test: {shards: "data/test.tar", classes: [ant, bee, cow]}
  unlabeled: {shards: "data/unlabeled-{0..4}.tar", shards_per_part: 2}
  digits: {builtin: digits/unlabeled, labels: true}
  cifar: {builtin: cifar10-40/unlabeled}
models:
  teacher: {arch: cifar_resnet8_w8, image_size: 32, train: {on: labeled, recipe: learn}}
  given: {arch: cifar_resnet8_w8, image_size: 32, weights: data/given.pt, classes: [ant, bee, cow]}
  student:
    arch: cifar_resnet8_w4
    image_size: 32
    pretrain: {on: top, recipe: learn}
    finetune: {on: labeled, recipe: sweep, sweep: {base_lr: [0.1, 0.2], choose_on: held_out}}
  plain:
    arch: cifar_resnet8_w8
    image_size: 32
    init: given
    finetune: {on: photos, recipe: fine}
  baseline: {baseline_of: student, train: {on: labeled, recipe: learn}}
selections:
  top: {teacher: teacher, unlabeled: unlabeled, images_per_class: 9, classes_per_image: 2}
  tagged: {teacher: teacher, unlabeled: digits, images_per_class: 3, variant: random}
  third: {teacher: given, unlabeled: cifar, images_per_class: 3}
recipes:
  learn: {images: 600}
  sweep: {images: 300}
  fine: {preset: paper_finetune, images: 200}
score: {classes_per_image: 3}
duplicates:
  descriptor: given
  record_distance: 0.3
  remove: {closest: 5}
  within_unlabeled: {max_distance: 0.1, cells: 2}
evaluate: {on: [test]}
pack: {samples_per_shard: 9}
"""
"""A configuration that has every rule, and whose keys may all be changed."""

EVALUATE = "evaluate report"
FINETUNE = f"finetune {EVALUATE}"
SWEEP = f"finetune_candidate evaluate_candidate choose_candidate {EVALUATE}"
PRETRAIN = f"pretrain {SWEEP}"
PACK = f"pack_selection {PRETRAIN}"
SELECT = f"select measure_leaks {PACK}"
SCORE = f"score_shards count_images {SELECT}"
DUPLICATES = "find_duplicates merge_duplicates make_review_page measure_leaks"
NEAR_COPIES = "find_near_copies merge_near_copies"
CELLS = f"train_cells sort_into_cells {NEAR_COPIES}"
DESCRIBE_D = "extract_features find_duplicates merge_duplicates measure_leaks"
DESCRIBE = f"extract_features {DUPLICATES} find_copies"
UNLABELED = f"index_shards {DESCRIBE} {CELLS} {SCORE}"
LABELED = f"index_shards {DESCRIBE} train {SCORE}"
TEST = f"index_shards {DESCRIBE} calibrate_duplicates {SELECT}"
EVERYTHING = (
    "make_digits make_cifar10 pack_folder index_shards import_weights calibrate_duplicates "
    f"{DESCRIBE} {CELLS} train finetune {SCORE}"
)


class Row(NamedTuple):
    """A change of a key and the rules that run again for it.

    ``change``: dotted keys of CONFIG and their new values; None removes one. ``only``: where a job
    that runs again has such a wildcard, it is one of these.
    """

    key: str
    what: str
    change: dict[str, Any]
    stale: str
    only: dict[str, str] = {}


STUDENT = {"model": "student", "selection": "top"}
MODELS = {"model": "student"}
TEACHER = {"teacher": "teacher", "model": "teacher student", "selection": "top tagged"}


def of_recipe(key: str, value: Any, what: str = "of a finetuning") -> Row:
    """A key of the recipe of one finetuning."""
    return Row(f"recipes.*.{key}", what, {f"recipes.fine.{key}": value}, FINETUNE, PLAIN)


PLAIN = {"model": "plain", "stage": "finetune"}

ROWS = [
    Row("results", "another folder", {"results": "elsewhere"}, EVERYTHING),
    Row(
        "seed", "", {"seed": 4},
        f"make_digits make_cifar10 index_shards {DESCRIBE} calibrate_duplicates {CELLS} train finetune "
        f"{SCORE}",
        {"dataset": "digits cifar unlabeled"},
    ),
    Row("wandb", "", {"wandb": "curves"}, ""),
    Row(
        "datasets.*.shards", "one more shard of U",
        {"datasets.unlabeled.shards": "data/unlabeled-{0..5}.tar"}, UNLABELED,
        {**STUDENT, "dataset": "unlabeled", "unlabeled": "unlabeled"},
    ),
    Row(
        "datasets.*.folder", "another folder", {"datasets.photos.folder": "other"},
        f"pack_folder index_shards {DESCRIBE_D} {FINETUNE}", {**PLAIN, "dataset": "photos"},
    ),
    Row(
        "datasets.*.builtin", "another set for a U that trains no model",
        {"datasets.cifar.builtin": "cifar10-50/unlabeled"},
        f"make_cifar10 index_shards {DESCRIBE} {CELLS} score_shards count_images select "
        "pack_selection report",
        {"dataset": "cifar", "unlabeled": "cifar", "selection": "third"},
    ),
    Row(
        "datasets.*.classes", "another class name: what is trained on it, and all it teaches",
        {f"datasets.{name}.classes": ["ant", "bee", "dog"] for name in ("labeled", "held_out", "test")}
        | {"datasets.photos.folder": "renamed", "models.given.classes": ["ant", "bee", "dog"]},
        f"pack_folder import_weights calibrate_duplicates {CELLS} finetune {LABELED}",
    ),
    Row(
        "datasets.*.labels", "of U", {"datasets.unlabeled.labels": True, "datasets.unlabeled.classes": 3},
        UNLABELED, {**STUDENT, "dataset": "unlabeled", "unlabeled": "unlabeled"},
    ),
    Row(
        "datasets.*.num_shards", "of a folder", {"datasets.photos.num_shards": 3},
        f"pack_folder index_shards {DESCRIBE_D} {FINETUNE}", {**PLAIN, "dataset": "photos"},
    ),
    Row(
        "datasets.*.shards_per_part", "of U; scores are taken over, but with `read_with`",
        {"datasets.unlabeled.shards_per_part": 3}, UNLABELED,
        {**STUDENT, "dataset": "unlabeled", "unlabeled": "unlabeled"},
    ),
    Row(
        "datasets.*.max_pixels", "of U", {"datasets.unlabeled.max_pixels": 1000}, UNLABELED,
        {**STUDENT, "dataset": "unlabeled", "unlabeled": "unlabeled"},
    ),
    Row(
        "datasets.*.max_failure_rate", "of U", {"datasets.unlabeled.max_failure_rate": 0.2},
        f"count_images {SELECT}", {**STUDENT, "unlabeled": "unlabeled"},
    ),
    Row("models.*.arch", "of a student", {"models.student.arch": "cifar_resnet8_w5"},
        f"train {PRETRAIN}", {"model": "student baseline"}),
    Row("models.*.image_size", "of a teacher", {"models.teacher.image_size": 28},
        f"train {SCORE}", TEACHER),
    Row("models.*.resize", "of a student", {"models.student.resize": 40},
        f"train {PRETRAIN}", {"model": "student baseline"}),
    Row("models.*.interpolation", "of a teacher", {"models.teacher.interpolation": "bicubic"},
        f"train {SCORE}", TEACHER),
    Row("models.*.weights", "of a descriptor that is a teacher too",
        {"models.given.weights": "data/other.pt"},
        f"import_weights {DESCRIBE} calibrate_duplicates {CELLS} finetune {SCORE}",
        {"teacher": "given", "model": "given plain student"}),
    Row("models.*.classes", "of a descriptor that is a teacher too",
        {"models.given.classes": ["ant", "bee", "dog"]},
        f"import_weights {DESCRIBE} calibrate_duplicates {CELLS} finetune {SCORE}",
        {"teacher": "given", "model": "given plain student"}),
    Row("models.*.init", "of a finetuning", {"models.plain.init": "teacher"}, FINETUNE, PLAIN),
    Row("models.*.baseline_of", "none: an arch of its own",
        {"models.baseline.baseline_of": None, "models.baseline.arch": "cifar_resnet8_w4"},
        f"train {EVALUATE}", {"model": "baseline"}),
    Row("models.*.train", "one more model",
        {"models.more": {"arch": "cifar_resnet8_w4", "train": {"on": "labeled", "recipe": "learn"}}},
        f"train {EVALUATE}", {"model": "more"}),
    Row("models.*.train.on", "of a baseline", {"models.baseline.train.on": "photos"},
        f"train {EVALUATE}", {"model": "baseline"}),
    Row("models.*.train.recipe", "of a teacher", {"models.teacher.train.recipe": "sweep"},
        f"train {SCORE}", TEACHER),
    Row("models.*.pretrain", "none: given weights instead",
        {"models.student.pretrain": None, "models.student.weights": "data/other.pt",
         "models.student.classes": ["ant", "bee", "cow"]},
        f"import_weights train {SWEEP}", {"model": "student baseline"}),
    Row("models.*.pretrain.on", "another selection", {"models.student.pretrain.on": "third"},
        PRETRAIN, STUDENT),
    Row("models.*.pretrain.recipe", "", {"models.student.pretrain.recipe": "fine"},
        f"train {PRETRAIN}", {"model": "student baseline"}),
    Row("models.*.finetune", "none", {"models.student.finetune": None},
        "train evaluate report", {"model": "baseline"}),
    Row("models.*.finetune.on", "", {"models.plain.finetune.on": "labeled"},
        f"measure_leaks {FINETUNE}", PLAIN),
    Row("models.*.finetune.recipe", "", {"models.plain.finetune.recipe": "learn"}, FINETUNE, PLAIN),
    Row("models.*.finetune.sweep", "none", {"models.student.finetune.sweep": None},
        FINETUNE, {"model": "student", "stage": "finetune"}),
    Row("models.*.finetune.sweep.base_lr", "one more", {"models.student.finetune.sweep.base_lr": [0.1, 0.2, 0.3]},
        SWEEP, {"model": "student", "candidate": "base_lr-0.3"}),
    Row("models.*.finetune.sweep.choose_on", "", {"models.student.finetune.sweep.choose_on": "photos"},
        f"evaluate_candidate choose_candidate {EVALUATE}", {"model": "student", "stage": "finetune"}),
    Row("selections.*.teacher", "to one that has scored another U", {"selections.top.teacher": "given"},
        SCORE, {**STUDENT, "teacher": "given", "unlabeled": "unlabeled"}),
    Row("selections.*.unlabeled", "to one scored by another teacher", {"selections.top.unlabeled": "cifar"},
        SCORE, {**STUDENT, "teacher": "teacher", "unlabeled": "cifar"}),
    Row("selections.*.images_per_class", "", {"selections.top.images_per_class": 8}, SELECT, STUDENT),
    Row("selections.*.classes_per_image", "up to what is stored",
        {"selections.top.classes_per_image": 3}, SELECT, STUDENT),
    Row("selections.*.variant", "", {"selections.top.variant": "zipf"}, SELECT, STUDENT),
    Row("selections.*.rank_by", "", {"selections.top.rank_by": "logit"}, SELECT, STUDENT),
    Row("selections.*.min_score", "", {"selections.top.min_score": 0.5}, SELECT, STUDENT),
    Row("selections.*.fraction", "", {"selections.top.fraction": 0.5}, SELECT, STUDENT),
    Row("recipes.*.preset", "of a finetuning",
        {"recipes.fine": {"preset": "paper_supervised", "images": 200, "warmup_images": 0}}, FINETUNE, PLAIN),
    of_recipe("images", 100),
    of_recipe("global_batch_size", 32),
    of_recipe("device_batch_size", 16),
    of_recipe("cpu_threads", 3),
    of_recipe("base_lr", 0.5),
    of_recipe("warmup_images", 10),
    of_recipe("schedule", "cosine"),
    of_recipe("decay_factor", 0.5),
    of_recipe("num_decays", 2),
    of_recipe("momentum", 0.8),
    of_recipe("nesterov", True),
    of_recipe("weight_decay", 0.1),
    of_recipe("weight_decay_on", "weights"),
    of_recipe("sync_batchnorm", True),
    of_recipe("ema_images", 100),
    of_recipe("label_smoothing", 0.1),
    of_recipe("mixup", 0.2),
    of_recipe("cutmix", 1.0),
    of_recipe("crop", "none"),
    of_recipe("flip", False),
    of_recipe("rand_augment", 9),
    of_recipe("random_erasing", 0.1),
    of_recipe("precision", "float32"),
    of_recipe("channels_last", False),
    of_recipe("compile", True),
    Row("recipes.*.images", "of a student: its baseline has the same budget",
        {"recipes.sweep.images": 200}, f"train {SWEEP}", {"model": "student baseline"}),
    Row("score.classes_per_image", "", {"score.classes_per_image": 2}, SCORE, MODELS),
    Row("score.batch_size", "of the descriptor too", {"score.batch_size": 9},
        f"{DESCRIBE} calibrate_duplicates {CELLS} {SCORE}", MODELS),
    Row("score.precision", "", {"score.precision": "bfloat16"}, SCORE, MODELS),
    Row("duplicates", "none", {"duplicates": None}, f"select {PACK}", MODELS),
    Row("duplicates.descriptor", "", {"duplicates.descriptor": "teacher"},
        f"{DESCRIBE} calibrate_duplicates {CELLS} {SELECT}"),
    Row("duplicates.record_distance", "", {"duplicates.record_distance": 0.4}, f"{DUPLICATES} {SELECT}"),
    Row("duplicates.precision", "of a descriptor", {"duplicates.precision": "bfloat16"},
        f"{DESCRIBE} calibrate_duplicates {CELLS} {SELECT}", MODELS),
    Row("duplicates.read_with", "a teacher", {"duplicates.read_with": "teacher"},
        f"score_and_describe count_images {DUPLICATES} find_copies {CELLS} {SELECT}",
        {**MODELS, "unlabeled": "unlabeled digits"}),
    Row("duplicates.max_pairs", "", {"duplicates.max_pairs": 7}, f"{DUPLICATES} {SELECT}", MODELS),
    Row("duplicates.review_pairs", "", {"duplicates.review_pairs": 7}, "make_review_page report"),
    Row("duplicates.leak_distance", "", {"duplicates.leak_distance": 0.2}, "measure_leaks report"),
    Row("duplicates.calibration_images", "", {"duplicates.calibration_images": 7},
        "calibrate_duplicates report"),
    Row("duplicates.within_unlabeled", "none", {"duplicates.within_unlabeled": None}, SELECT, MODELS),
    Row("duplicates.within_unlabeled.max_distance", "", {"duplicates.within_unlabeled.max_distance": 0.2},
        f"sort_into_cells {NEAR_COPIES} {SELECT}", MODELS),
    Row("duplicates.within_unlabeled.cells", "", {"duplicates.within_unlabeled.cells": 3},
        f"{CELLS} {SELECT}", MODELS),
    Row("duplicates.remove.evaluation_copies", "", {"duplicates.remove.evaluation_copies": False},
        SELECT, MODELS),
    Row("duplicates.remove.near_copies", "", {"duplicates.remove.near_copies": False}, SELECT, MODELS),
    Row("duplicates.remove.closest", "", {"duplicates.remove.closest": 6}, SELECT, MODELS),
    Row("duplicates.remove.max_distance", "", {"duplicates.remove.max_distance": 0.1}, SELECT, MODELS),
    Row("duplicates.remove.reviewed", "a file", {"duplicates.remove.reviewed": "data/reviewed.csv"}, SELECT, MODELS),
    Row("duplicates.remove.copies", "", {"duplicates.remove.copies": False}, SELECT, MODELS),
    Row("evaluate.on", "one more dataset",
        {"datasets.more": {"shards": "data/unlabeled-5.tar", "classes": ["ant", "bee", "cow"]},
         "evaluate.on": ["test", "more"]},
        TEST),
    Row("evaluate.batch_size", "", {"evaluate.batch_size": 9},
        f"evaluate_candidate choose_candidate {EVALUATE}"),
    Row("pack.samples_per_shard", "", {"pack.samples_per_shard": 5}, PACK, MODELS),
    Row("pack.shards_per_part", "", {"pack.shards_per_part": 2}, PACK, MODELS),
]  # fmt: skip


def list_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every key of the configuration, dotted; ``*`` stands for a name."""
    keys = []
    for name, field in section.model_fields.items():
        key, below = f"{prefix}{name}", _section(field.annotation)
        if below is None:
            keys.append(key)
        else:
            is_mapping = str(field.annotation).startswith("dict")
            if not is_mapping and not field.is_required() and field.default_factory is None:
                keys.append(key)  # may be absent
            keys += list_keys(below, f"{key}.*." if is_mapping else f"{key}.")
    return keys


def _section(annotation: Any) -> type[Section] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None

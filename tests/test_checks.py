import copy
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from semisup.checks import ConfigError, load_config, read_presets
from semisup.config import Config
from semisup.config_errors import refuse_repeated_keys
from semisup.network_checks import read_architectures
from small import JUNK, ROOT, mutated, read_config

Raw = dict[str, Any]
REMOVE = object()


def changed(changes: dict[str, Any]) -> Raw:
    """The configuration in which nothing is wrong, changed at dotted keys."""
    raw = read_config()
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = raw
        for name in sections:
            section = section.setdefault(name, {})
        if value is REMOVE:
            del section[key]
        else:
            section[key] = value
    return raw


def refusal(raw: Raw) -> list[str]:
    """The lines of the error."""
    with pytest.raises(ConfigError) as caught:
        load_config(raw)
    lines = str(caught.value).split("\n")
    assert all(line.startswith("  ") and line.endswith(".") for line in lines), lines
    return [line.strip() for line in lines]


def load(**changes: Any) -> Config:
    return load_config(changed({key.replace("__", "."): value for key, value in changes.items()}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: some tars, one also by another name, weights, class names, photos."""
    monkeypatch.chdir(tmp_path)
    for name in ("a-0.tar", "a-1.tar", "a-2.tar", "weights.pt", "data/x.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.tar").symlink_to("a-0.tar")
    (tmp_path / "linked").symlink_to("data")
    (tmp_path / "classes.txt").write_text("zero\nzero\n")
    for name in ("photos/cat", "photos/dog", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "same").symlink_to("photos")
    return tmp_path


# --- what is right -------------------------------------------------------------------------


def test_nothing_is_wrong_with_the_configuration_the_tests_change() -> None:
    assert load_config(read_config()).models["student"].finetune is not None


@pytest.mark.parametrize(
    "path",
    [
        "config.yaml",
        *sorted(
            str(p.relative_to(ROOT)) for p in ROOT.glob("examples/*.yaml") if "-site" not in p.name
        ),
    ],
)
def test_the_configurations_that_ship_are_accepted(path: str) -> None:
    text = (ROOT / path).read_text()
    if "shards:" not in text and "folder:" not in text:  # those need the user's own data
        load_config(yaml.safe_load(text))


def test_presets_are_valid_recipes_that_need_no_definition() -> None:
    recipes = load_config(read_config()).recipes
    assert set(read_presets()) <= set(recipes)
    assert all(recipes[name].preset is None for name in read_presets())


def test_a_recipe_may_change_single_keys_of_a_preset() -> None:
    recipe = load(recipes__pretrain={"preset": "paper_pretrain", "images": 500_000_000})
    own, paper = recipe.recipes["pretrain"], recipe.recipes["paper_pretrain"]
    assert own.images == 500_000_000
    assert own.model_copy(update={"images": paper.images, "preset": None}) == paper


def test_a_recipe_may_replace_a_preset_of_its_name() -> None:
    assert load(recipes__paper_pretrain={"images": 5}).recipes["paper_pretrain"].images == 5


def test_recipes_may_be_left_empty_when_presets_do() -> None:
    raw = changed({"recipes": None})
    for model in raw["models"].values():
        for stage in {"train", "pretrain", "finetune"} & model.keys():
            model[stage]["recipe"] = "paper_supervised"
    assert set(load_config(raw).recipes) == set(read_presets())


def test_loading_does_not_change_what_was_parsed() -> None:
    raw = changed({"recipes.pretrain.preset": "paper_pretrain"})
    before = copy.deepcopy(raw)
    load_config(raw)
    assert raw == before


def test_presets_are_not_changed_by_a_configuration() -> None:
    before = copy.deepcopy(read_presets())
    load(recipes__paper_pretrain__images=5)
    assert read_presets() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets.unlabeled": {"shards": "a-{0..1}.tar"}},
        {"datasets.unlabeled": {"shards": ["a-{0..1}.tar", "data/x.tar"]}},
        {"datasets.unlabeled": {"folder": "photos"}},
        {"datasets.extra": {"folder": "photos"}, "datasets.more": {"folder": "empty"}},
        {"datasets.extra": {"shards": "a-{0..2}.tar"}},
        {"models.other": {"arch": "resnet50", "weights": "torchvision:IMAGENET1K_V2"}},
        {"models.other": {"arch": "resnet50", "weights": "weights.pt", "classes": 3}},
        {"models.other": {"arch": "cifar_resnet14_w16", "init": "teacher",
                          "finetune": {"on": "labeled", "recipe": "finetune"}}},
        {"models.other": {"arch": "cifar_resnet8_w8", "init": "baseline",
                          "finetune": {"on": "labeled", "recipe": "finetune"}}},
        {"duplicates": REMOVE},
        {"selections.top.classes_per_image": 10},
        {"score.classes_per_image": 3, "selections.top.classes_per_image": 3},
        {"models.student.resize": 28},
        {"recipes.pretrain.warmup_images": 300},
        {"duplicates.remove.max_distance": 0.5},
        {"duplicates.leak_distance": 0.5},
        {"selections.second": {"teacher": "student", "unlabeled": "unlabeled",
                               "images_per_class": 1},
         "models.third": {"arch": "resnet18", "pretrain": {"on": "second", "recipe": "pretrain"}}},
    ],
)  # fmt: skip
def test_what_can_work_is_accepted(folder: Path, changes: dict[str, Any]) -> None:
    load_config(changed(changes))


# --- what is wrong: each case is the changes and what the only line must say ---------------

TRAINING = {"on": "labeled", "recipe": "supervised"}

FORM: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"sed": 1}, "sed: unknown key; did you mean seed? known here: results, seed, "),
    "unknown key of a dataset": (
        {"datasets.labeled.shard": "x"},
        "datasets.labeled.shard: unknown key; did you mean shards? known here: shards, folder, ",
    ),
    "unknown key of a training": (
        {"models.teacher.train.recipes": "x"},
        "models.teacher.train.recipes: unknown key; did you mean recipe? known here: on, recipe.",
    ),
    "unknown key of an optional section": (
        {"duplicates.remove.farthest": 1},
        "duplicates.remove.farthest: unknown key; known here: closest, max_distance, ",
    ),
    "unknown key unlike any": ({"zzz": 1}, "zzz: unknown key; known here: "),
    "key of another case": ({"Seed": 1}, "Seed: unknown key; did you mean seed?"),
    "missing key": (
        {"selections.top.teacher": REMOVE},
        "selections.top.teacher: missing; add it (see docs/config.md).",
    ),
    "missing section": ({"datasets": REMOVE}, "datasets: missing; add it"),
    "text for a number": (
        {"recipes.pretrain.base_lr": "fast"},
        "recipes.pretrain.base_lr: 'fast' must be a number; see docs/config.md.",
    ),
    "a power YAML reads as text": (
        {"recipes.pretrain.base_lr": "1e-3"},
        "recipes.pretrain.base_lr: '1e-3' must be a number; YAML reads 1e-3 as text: "
        "write 1.0e-3.",
    ),
    "a power for a whole number": (
        {"recipes.pretrain.images": "1e6"},
        "recipes.pretrain.images: '1e6' must be a whole number; write it in full, as 1_000_000.",
    ),
    "a fraction for a whole number": (
        {"recipes.pretrain.images": 1.0e6},
        "recipes.pretrain.images: 1000000.0 must be a whole number; write it in full, ",
    ),
    "a number in quotes": (
        {"seed": "0"}, "seed: '0' must be a whole number; remove the quotes."
    ),
    "a number for text": (
        {"results": 2024}, "results: 2024 must be text; put it in quotes."
    ),
    "text for true or false": (
        {"recipes.pretrain.flip": "maybe"},
        "recipes.pretrain.flip: 'maybe' must be true or false;",
    ),
    "nothing where a section is wanted": (
        {"models.teacher": None}, "models.teacher: nothing must be a section of keys;"
    ),
    "a list where a section is wanted": (
        {"models": []}, "models: [] must be a section of names;"
    ),
    "recipes that are no section": (
        {"recipes": "fast"}, "recipes: 'fast' must be a section of names;"
    ),
    "a name where a list is wanted": (
        {"evaluate.on": "test"}, "evaluate.on: 'test' must be a list;"
    ),
    "an empty list": ({"evaluate.on": []}, "evaluate.on: [] must have at least 1 item, not 0;"),
    "a bad name in a list": (
        {"evaluate.on": ["te st"]},
        "evaluate.on: 'te st' must be a letter, then letters, digits, _ and -;",
    ),
    "a bad name of a dataset": (
        {"datasets.te st": {"builtin": "digits/test"}},
        "datasets.te st: 'te st' must be a letter, then letters, digits, _ and -;",
    ),
    "a name that YAML reads as true": (
        {"selections": {True: {"teacher": "teacher", "unlabeled": "unlabeled",
                               "images_per_class": 1}}},
        ": true must be text; put it in quotes.",
    ),
    "classes of the wrong type": (
        {"datasets.labeled.classes": {}},
        "datasets.labeled.classes: {} must be a whole number or a list or text;",
    ),
    "class names that YAML reads as numbers": (
        {"datasets.labeled.classes": ["a", 1, 2]},
        "datasets.labeled.classes: 1 must be text; put it in quotes.",
    ),
    "shards of the wrong type": (
        {"datasets.labeled": {"shards": 5}}, "datasets.labeled.shards: 5 must be text or a list;"
    ),
    "a choice that does not exist": (
        {"recipes.pretrain.schedule": "linear"},
        "recipes.pretrain.schedule: 'linear' must be 'cosine', 'step' or 'constant';",
    ),
    "a number out of range": (
        {"recipes.pretrain.images": 0},
        "recipes.pretrain.images: 0 must be greater than or equal to 1;",
    ),
    "no number at all": (
        {"recipes.pretrain.base_lr": math.nan},
        "recipes.pretrain.base_lr: nan must be a finite number;",
    ),
    "a number too large": (
        {"recipes.pretrain.images": 10**30},
        "recipes.pretrain.images: the number is too large; lower it.",
    ),
    "a number too long to print": (
        {"results": 16**5000}, "results: this must be text;"
    ),
    "a huge value": (
        {"results": ["x" * 10_000]}, "results: ['" + "x" * 195 + "... must be text;"
    ),
    "a folder of results with a space": (
        {"results": "my results"},
        "results: 'my results' is empty, or holds a space or one of {}*?[]\\, or begins with -; ",
    ),
    "two sources of a dataset": (
        {"datasets.labeled.folder": "x"},
        "datasets.labeled: give exactly one of shards, folder, builtin; found folder and builtin.",
    ),
    "a model without anything to do": (
        {"models.teacher.train": REMOVE}, "models.teacher: nothing to do: give weights, train, "
    ),
    "a preset that does not exist": (
        {"recipes.pretrain": {"preset": "paper_pretran"}},
        "recipes.pretrain.preset: 'paper_pretran' does not exist; did you mean paper_pretrain? "
        "there are: paper_pretrain, paper_finetune, paper_supervised, modern_supervised.",
    ),
    "a preset that is no name": (
        {"recipes.pretrain.preset": ["paper_pretrain"]},
        "recipes.pretrain.preset: ['paper_pretrain'] does not exist; ",
    ),
}  # fmt: skip

NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "a dataset to train on": (
        {"models.teacher.train.on": "labelled"},
        "models.teacher.train.on: 'labelled' does not exist; did you mean labeled? "
        "there are: labeled, unlabeled, validation, test, top.",
    ),
    "a selection to train on": (
        {"models.student.pretrain.on": "tops"},
        "models.student.pretrain.on: 'tops' does not exist; did you mean top?",
    ),
    "a recipe": (
        {"models.student.finetune.recipe": "finetun"},
        "models.student.finetune.recipe: 'finetun' does not exist; did you mean finetune?",
    ),
    "a teacher": (
        {"selections.top.teacher": "Teacher"},
        "selections.top.teacher: 'Teacher' does not exist; did you mean teacher? "
        "there are: teacher, student, baseline.",
    ),
    "an unlabelled dataset": (
        {"selections.top.unlabeled": "top"},
        "selections.top.unlabeled: 'top' does not exist; there are: labeled, ",
    ),
    "a descriptor": (
        {"duplicates.descriptor": "resnet18"},
        "duplicates.descriptor: 'resnet18' does not exist; there are: teacher, ",
    ),
    "a teacher that describes too": (
        {"duplicates.read_with": "student"},
        "duplicates.read_with: 'student' does not exist; there are: teacher.",
    ),
    "a dataset to evaluate on": (
        {"evaluate.on": ["tset"]}, "evaluate.on: 'tset' does not exist; did you mean test?"
    ),
    "a selection to evaluate on": ({"evaluate.on": ["top"]}, "evaluate.on: 'top' does not exist;"),
    "a model to start from": (
        {"models.other": {"arch": "resnet18", "init": "techer", "train": TRAINING}},
        "models.other.init: 'techer' does not exist; did you mean teacher?",
    ),
    "a student": (
        {"models.baseline.baseline_of": "studnet"},
        "models.baseline.baseline_of: 'studnet' does not exist; did you mean student?",
    ),
    "a selection named like a dataset": (
        {"selections.test": {"teacher": "teacher", "unlabeled": "unlabeled",
                             "images_per_class": 1}},
        "selections: 'test' is the name of a dataset too; rename one of them.",
    ),
}  # fmt: skip

CYCLES: dict[str, tuple[dict[str, Any], str]] = {
    "a student of itself": (
        {"selections.top.teacher": "student"},
        "models.student: needs itself (models.student needs selections.top needs models.student); "
        "a student cannot be its own teacher: name another model.",
    ),
    "a teacher that is a student of its student": (
        {
            "selections.back": {
                "teacher": "student", "unlabeled": "unlabeled", "images_per_class": 1
            },
            "models.teacher.train.on": "back",
            "duplicates": REMOVE,
        },
        "models.teacher: needs itself (models.teacher needs selections.back needs models.student "
        "needs selections.top needs models.teacher);",
    ),
    "a descriptor trained on what it cleans": (
        {"duplicates.descriptor": "student"},
        "models.student: needs itself (models.student needs selections.top needs models.student);",
    ),
    "a model that starts from itself": (
        {"models.teacher.init": "teacher"},
        "models.teacher: needs itself (models.teacher needs models.teacher);",
    ),
    "a baseline of itself": (
        {"models.baseline.baseline_of": "baseline"},
        "models.baseline: needs itself (models.baseline needs models.baseline);",
    ),
}  # fmt: skip

MEANING: dict[str, tuple[dict[str, Any], str]] = {
    "training on U": (
        {"models.teacher.train.on": "unlabeled"},
        "models.teacher.train.on: 'unlabeled' is the unlabelled dataset of a selection; "
        "train on a labelled dataset or a selection.",
    ),
    "training on an evaluation set": (
        {"models.student.finetune.on": "validation"},
        "models.student.finetune.on: 'validation' is in evaluate.on, which measures the model; ",
    ),
    "evaluating on U": (
        {"evaluate.on": ["unlabeled"]},
        "evaluate.on: 'unlabeled' is the unlabelled dataset of a selection; choose a labelled ",
    ),
    "evaluating without labels": (
        {"datasets.test.labels": False},
        "evaluate.on: 'test' has labels: false; choose a labelled dataset.",
    ),
    "evaluating twice": (
        {"evaluate.on": ["test", "test"]}, "evaluate.on: 'test' stands twice; remove one."
    ),
    "an architecture that does not exist": (
        {"models.teacher.arch": "ResNet5O"},
        "models.teacher.arch: 'ResNet5O' does not exist; did you mean resnet50? "
        "it must be a torchvision classifier, resnext101_32x{4,8,16,32,48}d or cifar_resnet{6n+2}_w{width}.",
    ),
    "an architecture that is no classifier": (
        {"models.teacher.arch": "fcn_resnet50"}, "models.teacher.arch: 'fcn_resnet50' does not "
    ),
    "a depth that cannot be": (
        {"models.teacher.arch": "cifar_resnet10_w8"},
        "models.teacher.arch: 'cifar_resnet10_w8' cannot be built; the depth must be 6n+2 "
        "(8, 14, 20, ...) and the width 1 to 4096.",
    ),
    "a depth too small": ({"models.teacher.arch": "cifar_resnet2_w8"}, "cannot be built; "),
    "a width too small": ({"models.teacher.arch": "cifar_resnet8_w0"}, "cannot be built; "),
    "a width too large": ({"models.teacher.arch": "cifar_resnet8_w5000"}, "cannot be built; "),
    "a number too long to print": (
        {"models.teacher.arch": f"cifar_resnet{'9' * 5000}_w1"}, "does not exist; "
    ),
    "a crop larger than the image": (
        {"models.student.resize": 27},
        "models.student.resize: 27 is smaller than image_size 28, the crop would not fit; raise ",
    ),
    "torchvision's weights that do not exist": (
        {"models.other": {"arch": "resnet18", "weights": "torchvision:IMAGENET1K_V2"}},
        "models.other.weights: 'torchvision:IMAGENET1K_V2' does not exist; did you mean "
        "torchvision:IMAGENET1K_V1? there are: torchvision:IMAGENET1K_V1.",
    ),
    "torchvision's weights of a small architecture": (
        {"models.other": {"arch": "cifar_resnet8_w8", "weights": "torchvision:IMAGENET1K_V1"}},
        "models.other.weights: 'torchvision:IMAGENET1K_V1' does not exist; there are none.",
    ),
    "weights of pixels of another scale": (
        {"models.other": {"arch": "efficientnet_v2_l", "weights": "torchvision:IMAGENET1K_V1"}},
        "models.other.weights: 'torchvision:IMAGENET1K_V1' was trained on pixels of another mean "
        "and deviation than those here; choose other weights or arch.",
    ),
    "a transformer's weights for images of another size": (
        {"models.other": {"arch": "vit_b_16", "weights": "torchvision:IMAGENET1K_SWAG_E2E_V1"}},
        "models.other.image_size: 224 is not the size of torchvision:IMAGENET1K_SWAG_E2E_V1; "
        "set it to 384, or choose other weights.",
    ),
    "a transformer that does not exist": (
        {"models.teacher.arch": "vit_b_x"}, "models.teacher.arch: 'vit_b_x' does not exist; "
    ),
    "a size that a transformer's patches do not fill": (
        {"models.other": {"arch": "vit_b_16", "image_size": 100, "weights": "weights.pt",
                          "classes": 5}},
        "models.other.image_size: 100 is no multiple of 16, as vit_b_16 needs; set it to 96.",
    ),
    "classes of torchvision's weights": (
        {"models.other": {"arch": "resnet18", "weights": "torchvision:IMAGENET1K_V1",
                          "classes": 5}},
        "models.other.classes: 5 classes, but torchvision's weights have 1000; name "
        "them all or remove it.",
    ),
    "local weights without classes": (
        {"models.other": {"arch": "resnet18", "weights": "weights.pt"}},
        "models.other.classes: missing; name the classes of 'weights.pt', or their number.",
    ),
    "weights of another architecture": (
        {"models.other": {"arch": "resnet18", "init": "teacher", "train": TRAINING}},
        "models.other.arch: 'resnet18' differs from 'cifar_resnet14_w16' of init: teacher, "
        "whose weights would not fit; make them the same.",
    ),
    "a baseline of a model that is no student": (
        {"models.baseline.baseline_of": "teacher"},
        "models.baseline.baseline_of: 'teacher' is no student, it has neither pretrain nor ",
    ),
    "a baseline of a baseline": (
        {"models.other": {"baseline_of": "baseline", "train": TRAINING}},
        "models.other.baseline_of: 'baseline' is no student, ",
    ),
    "a warm-up that ends after the first cut": (
        {"recipes.pretrain": {"preset": "paper_pretrain", "images": 20_000_000}},
        "recipes.pretrain.warmup_images: 20000000 goes beyond the first of 13 cuts, after 1428571 "
        "of 20000000 images; lower it or num_decays, or raise images.",
    ),
    "a warm-up longer than the training": (
        {"recipes.finetune.warmup_images": 51},
        "recipes.finetune.warmup_images: 51 is more than all 50 images of the recipe; lower it.",
    ),
    "a distance farther than recorded": (
        {"duplicates.remove.max_distance": 0.6},
        "duplicates.remove.max_distance: 0.6 is more than record_distance 0.5, so not all such "
        "pairs are recorded; raise that one.",
    ),
    "leaks farther than recorded": (
        {"duplicates.leak_distance": 0.6},
        "duplicates.leak_distance: 0.6 is more than record_distance 0.5, so not all such pairs are ",
    ),
}  # fmt: skip

FILES: dict[str, tuple[dict[str, Any], str]] = {
    "shards that match no file": (
        {"datasets.unlabeled": {"shards": "a-{1..4}.tar"}},
        "datasets.unlabeled.shards: 'a-{1..4}.tar' names 2 files of 4 that do not exist, first "
        "'a-3.tar'; correct the pattern.",
    ),
    "a folder where a tar is wanted": (
        {"datasets.unlabeled": {"shards": "photos"}}, "names 1 files of 1 that do not exist, "
    ),
    "no shards": (
        {"datasets.unlabeled": {"shards": []}},
        "datasets.unlabeled.shards: [] must name 1 to 1,000,000 files; correct the pattern.",
    ),
    "shards without a name": ({"datasets.unlabeled": {"shards": ""}}, "do not exist, first '';"),
    "more shards than memory": (
        {"datasets.unlabeled": {"shards": "a-{0..999999999}.tar"}},
        "datasets.unlabeled.shards: 'a-{0..999999999}.tar' must name 1 to 1,000,000 files;",
    ),
    "braces that do not match": (
        {"datasets.unlabeled": {"shards": "a-{0..1.tar"}},
        "datasets.unlabeled.shards: 'a-{0..1.tar' has braces that do not match or are nested too ",
    ),
    "a shard twice": (
        {"datasets.unlabeled": {"shards": ["a-{0..1}.tar", "./a-1.tar"]}}, "a-1.tar' twice; "
    ),
    "a shard twice by a link": (
        {"datasets.unlabeled": {"shards": ["a-0.tar", "link.tar"]}},
        "a-0.tar' twice; list every shard once.",
    ),
    "a shard in two datasets": (
        {"datasets.unlabeled": {"shards": "a-{0..1}.tar"}, "datasets.test": {
            "shards": "a-{1..2}.tar", "classes": 10}},
        "a-1.tar' with datasets.unlabeled; datasets must not overlap.",
    ),
    "a shard in two datasets by a link": (
        {"datasets.unlabeled": {"shards": "a-{0..1}.tar"}, "datasets.other": {
            "shards": "link.tar"}},
        "datasets.other.shards: 'link.tar' shares '",
    ),
    "a shard in two datasets by a linked folder": (
        {"datasets.unlabeled": {"shards": "data/x.tar"}, "datasets.other": {
            "shards": "linked/x.tar"}},
        "x.tar' with datasets.unlabeled; datasets must not overlap.",
    ),
    "a built-in set in two datasets": (
        {"datasets.other": {"builtin": "digits/test"}},
        "datasets.other.builtin: 'digits/test' shares '",
    ),
    "a built-in set that does not exist": (
        {"datasets.test.builtin": "digit/test"},
        "datasets.test.builtin: 'digit/test' is no built-in set; there are digits/SPLIT and ",
    ),
    "a built-in set without a name": (
        {"datasets.test.builtin": ""}, "datasets.test.builtin: '' is no built-in set; "
    ),
    "a split that does not exist": (
        {"datasets.test.builtin": "digits/tset"},
        "datasets.test.builtin: 'digits/tset' has no split of that name; there are labeled, ",
    ),
    "labels that cannot be balanced": (
        {"datasets.test.builtin": "cifar10-15/test"}, "a multiple of 10 up to 50,000."
    ),
    "a folder that is not there": (
        {"datasets.unlabeled": {"folder": "nowhere"}},
        "datasets.unlabeled.folder: 'nowhere' is not a folder; check the path.",
    ),
    "a file where a folder is wanted": (
        {"datasets.unlabeled": {"folder": "a-0.tar"}},
        "datasets.unlabeled.folder: 'a-0.tar' is not a folder;",
    ),
    "a folder in two datasets by a link": (
        {"datasets.unlabeled": {"folder": "photos"}, "datasets.other": {"folder": "same"}},
        "datasets.other.folder: 'same' shares its images with the folder of datasets.unlabeled; "
        "datasets must not overlap.",
    ),
    "a folder in the folder of another dataset": (
        {"datasets.unlabeled": {"folder": "photos"}, "datasets.other": {"folder": "photos/cat"}},
        "datasets.other.folder: 'photos/cat' shares its images with ",
    ),
    "a folder that holds the folder of another dataset": (
        {"datasets.unlabeled": {"folder": "photos/cat"}, "datasets.other": {"folder": "photos"}},
        "datasets.other.folder: 'photos' shares its images with ",
    ),
    "weights that are not there": (
        {"models.other": {"arch": "resnet18", "weights": "none.pt", "classes": 5}},
        "models.other.weights: 'none.pt' is not a file; check the path.",
    ),
    "a review that is not there": (
        {"duplicates.remove.reviewed": "review.csv"},
        "duplicates.remove.reviewed: 'review.csv' is not a file; check the path.",
    ),
    "a path with a null byte": (
        {"datasets.unlabeled": {"shards": "a\0.tar"}}, r"'a\x00.tar' names 1 files of 1 that do "
    ),
}  # fmt: skip

CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": (
        {"datasets.labeled": {"shards": "a-0.tar"}},
        "datasets.labeled.classes: missing; add the class names: a list, a file, or just their ",
    ),
    "a random choice of images without labels": (
        {"selections.top.variant": "random", "selections.top.classes_per_image": None},
        "selections.top.variant: 'random' needs labels, but datasets.unlabeled.labels is not true;",
    ),
    "a random choice that is to follow scores": (
        {"selections.top.variant": "random", "selections.top.min_score": 0.5,
         "datasets.unlabeled.labels": True},
        "classes_per_image is about scores, variant random chooses by chance: remove it",
    ),
    "no classes of U though its labels are read": (
        {"datasets.unlabeled": {"shards": "a-0.tar", "labels": True}},
        "datasets.unlabeled.classes: missing; ",
    ),
    "a folder without sub-folders": (
        {"datasets.labeled": {"folder": "empty"}},
        "datasets.labeled.classes: 'empty' has no sub-folder; there must be one per class.",
    ),
    "a file of classes that is not there": (
        {"datasets.labeled.classes": "none.txt"},
        "datasets.labeled.classes: 'none.txt' cannot be read (No such file or directory); check ",
    ),
    "a class that stands twice": (
        {"datasets.labeled.classes": "classes.txt"},
        "datasets.labeled.classes: class names must differ; these stand twice: zero.",
    ),
    "more classes than ids": (
        {"datasets.labeled.classes": 10**9},
        "datasets.labeled.classes: more than 32,768 classes; give 1 to 32,768.",
    ),
    "no classes of weights that are finetuned": (
        {"models.other": {"arch": "resnet18", "weights": "weights.pt", "classes": 0,
                          "finetune": {"on": "labeled", "recipe": "finetune"}}},
        "models.other.classes: no class at all; give 1 to 32,768.",
    ),
    "other classes of an evaluation set": (
        {"datasets.test.classes": 10},
        "evaluate.on: 'validation' has other classes than 'test' (class 0 is 'zero', not '0'); "
        "they must be the same, in the same order.",
    ),
    "a star in place of braces": (
        {"datasets.labeled": {"shards": "train-*.tar", "classes": 10}},
        "datasets.labeled.shards: 'train-*.tar' names 1 files of 1 that do not exist, first "
        "'train-*.tar'; name all with braces, as in train-{000..099}.tar; * is not expanded.",
    ),
    "P larger than the number of classes": (
        {"score.classes_per_image": 11},
        "score.classes_per_image: 11 is more than the 10 classes of models.teacher; lower it to ",
    ),
    "P of a selection larger than the number of classes": (
        {"selections.top.classes_per_image": 11},
        "selections.top.classes_per_image: 11 is more than the 10 of 10 classes that scoring stores; "
        "lower it to 10.",
    ),
    "P of a selection larger than what is stored": (
        {"score.classes_per_image": 3, "selections.top.classes_per_image": 4},
        "selections.top.classes_per_image: 4 is more than the 3 of 10 classes that scoring stores; "
        "lower it to 3 or raise score.classes_per_image.",
    ),
}  # fmt: skip

KINDS = {"form": FORM, "names": NAMES, "cycles": CYCLES, "meaning": MEANING, "files": FILES}
KINDS["classes"] = CLASSES
WRONG = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_in_one_line_with_key_value_and_remedy(
    folder: Path, case: str
) -> None:
    changes, expected = WRONG[case]
    (line,) = refusal(changed(changes))
    assert expected in line


def test_training_without_labels_is_refused_for_each_model() -> None:
    lines = refusal(changed({"datasets.labeled.labels": False}))
    assert lines == [
        f"models.{key}.on: 'labeled' has labels: false; train on a labelled dataset or a selection."
        for key in ("teacher.train", "student.finetune", "baseline.train")
    ]


def test_models_that_do_not_predict_the_classes_measured_are_refused_each(folder: Path) -> None:
    lines = refusal(changed({"datasets.labeled.classes": 12}))
    assert lines == [
        f"evaluate.on: 'validation' has other classes than models.{name} (10, not 12); "
        "they must be the same, in the same order."
        for name in ("teacher", "student", "baseline")
    ]


def test_all_problems_of_a_kind_are_listed_once_each() -> None:
    lines = refusal(changed({"sed": 1, "seed": "x", "models.teacher.image_size": 7}))
    assert [line.split(":")[0] for line in lines] == ["seed", "models.teacher.image_size", "sed"]


def test_the_same_problem_of_two_selections_is_one_line() -> None:
    second = {"teacher": "teacher", "unlabeled": "unlabeled", "images_per_class": 1}
    changes = {"score.classes_per_image": 11, "selections.second": second}
    assert len(refusal(changed(changes))) == 1


def test_a_circle_is_named_once() -> None:
    raw = changed({"selections.top.teacher": "student"})
    raw["models"]["other"] = {**raw["models"]["student"]}
    assert len(refusal(raw)) == 1


def test_a_wrong_preset_does_not_hide_what_else_is_wrong() -> None:
    lines = refusal(changed({"recipes.finetune": {"preset": "paper", "imags": 1}}))
    assert [line.split(":")[0] for line in lines] == [
        "recipes.finetune.preset", "recipes.finetune.imags"
    ]  # fmt: skip


def test_a_long_list_of_names_is_cut_short() -> None:
    other = {"arch": "resnet18", "train": TRAINING}
    changes = {f"models.m{i}": other for i in range(50)}
    (line,) = refusal(changed({**changes, "selections.top.teacher": "none"}))
    assert line.endswith(", m26 and 23 more.")


def test_every_architecture_of_the_list_is_accepted() -> None:
    for arch in read_architectures():
        load(models__teacher__arch=arch, models__teacher__image_size=224)


def test_a_transformer_learns_from_images_of_any_size_its_patches_fill() -> None:
    load(models__teacher__arch="vit_b_16", models__teacher__image_size=96)


def test_all_weights_of_the_list_but_those_of_another_normalization_are_accepted() -> None:
    refused = set()
    for arch, weights in read_architectures().items():
        for name, asked in weights.items():
            model = {"arch": arch, "weights": f"torchvision:{name}"}
            model |= {"image_size": asked["image_size"]} if "image_size" in asked else {}
            if "other_normalization" not in asked:
                load(models__other=model)
            else:
                refused.add((arch, name))
                assert (
                    "of another mean and deviation" in refusal(changed({"models.other": model}))[0]
                )
    assert refused == {("efficientnet_v2_l", "IMAGENET1K_V1"), ("vgg16", "IMAGENET1K_FEATURES")}


# --- keys that stand twice -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("datasets:\n  test: {folder: a}\n  other: {}\n  test: {folder: b}", {"datasets.test": "2, 4"}),
        ("seed: 1\nevaluate:\n  'on': [a]\n  on: [b]\nseed: 2\nseed: 1",
         {"seed": "1, 5, 6", "evaluate.on": "3, 4"}),
        ("a: {b: [{c: 1}, {c: 2, d: 1, d: 2}]}", {"a.b.d": "1, 1"}),
        ("a: &a\n  b: 1\n  b: 2\nc: *a", {"a.b": "2, 3"}),
        ("{\"a\": 1,\n  \"a\": 2}", {"a": "1, 2"}),
        ("a: &a {b: 1}\nc: &c {b: 2}\nd: {<<: *a, <<: *c, b: 3}", {}),
        ("a: {b: 1}\nb: {b: 1}", {}),
        ("a: &a\n  b: *a", {}),
        ("", {}),
        ("{\n\t\"a\": 1}", {}),
    ],
    ids=["a dataset", "several", "in a list", "with an alias", "JSON", "merged", "in other sections",
         "one that holds itself", "nothing", "JSON with tabs"],
)  # fmt: skip
def test_keys_that_stand_twice_are_named_with_their_lines(
    tmp_path: Path, text: str, repeated: dict[str, str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    said = ""
    try:
        refuse_repeated_keys(path)
    except ConfigError as error:
        said = str(error)
    assert said == "\n".join(
        f"  {key}: stands {len(lines.split())} times in {path}, in lines {lines}; keep one, or rename them."
        for key, lines in repeated.items()
    )


# --- anything at all -----------------------------------------------------------------------


@settings(max_examples=600)
@given(mutated())
def test_anything_is_a_configuration_or_a_config_error(raw: Raw) -> None:
    try:
        load_config(raw)
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert re.match(r"  \S.*\.$", line), line


@pytest.mark.parametrize("key", [*read_config(), "recipe", "score", "pack"])
@pytest.mark.parametrize("i", range(len(JUNK)))
def test_any_section_may_be_anything(key: str, i: int) -> None:
    try:
        load_config({**read_config(), key: JUNK[i]})
    except ConfigError as error:
        assert str(error).strip()


def test_nothing_at_all_is_a_config_error() -> None:
    assert [line.split(":")[0] for line in refusal({})] == ["datasets", "models", "evaluate"]


def test_a_configuration_that_holds_itself_is_a_config_error() -> None:
    raw = read_config()
    raw["models"]["teacher"]["train"] = raw
    assert refusal(raw)


def test_checking_makes_no_file(folder: Path) -> None:
    before = sorted(os.listdir(folder))
    load_config(read_config())
    assert sorted(os.listdir(folder)) == before


SWEEP = {"base_lr": [0.1, 0.2], "choose_on": "validation"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {
                "evaluate.on": ["test"],
                "models.student.finetune.sweep": SWEEP | {"base_lr": [0.1, 0.10000001]},
            },
            "models.student.finetune.sweep.base_lr: 'base_lr-0.1' stands twice, to six digits; remove one.",
        ),
        (
            {"models.student.finetune.sweep": SWEEP},
            "models.student.finetune.sweep.choose_on: 'validation' is in evaluate.on, whose accuracies must "
            "not choose; name other labelled images.",
        ),
        (
            {"models.student.finetune.sweep": SWEEP | {"choose_on": "labeled"}},
            "models.student.finetune.sweep.choose_on: 'labeled' is what the model learns from; name other "
            "labelled images.",
        ),
        (
            {
                "evaluate.on": ["test"],
                "models.teacher.train.on": "validation",
                "models.student.finetune.sweep": SWEEP,
            },
            "models.student.finetune.sweep.choose_on: 'validation' is what models.teacher learns from, and "
            "through that this model; name other labelled images.",
        ),
        (
            {
                "evaluate.on": ["test"],
                "models.first": {
                    "arch": "cifar_resnet14_w16",
                    "train": TRAINING | {"on": "validation"},
                },
                "models.teacher": {
                    "arch": "cifar_resnet14_w16",
                    "init": "first",
                    "finetune": TRAINING,
                },
                "models.student.finetune.sweep": SWEEP,
            },
            "models.student.finetune.sweep.choose_on: 'validation' is what models.first learns from, and "
            "through that this model; name other labelled images.",
        ),
        (
            {"models.student.finetune.sweep": SWEEP | {"choose_on": "unlabeled"}},
            "models.student.finetune.sweep.choose_on: 'unlabeled' is the unlabelled dataset of a selection; "
            "name other labelled images.",
        ),
    ],
)
def test_a_sweep_that_cannot_choose_fairly_is_refused(changes: Raw, expected: str) -> None:
    assert expected in refusal(changed(changes))


def test_only_finetuning_may_be_a_sweep() -> None:
    lines = refusal(changed({"models.teacher.train.sweep": SWEEP}))
    assert any(line.startswith("models.teacher.train.sweep") for line in lines)

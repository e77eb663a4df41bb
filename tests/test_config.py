import os
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from semisup import config
from semisup.config import Config, Dataset, Evaluate, Finetuning, Model, Recipe, Selection, Training
from small import read_config

TRAINING = {"on": "labeled", "recipe": "supervised"}


def refused(section: type[BaseModel], raw: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(raw)
    return str(caught.value)


def sections(section: type[BaseModel] = Config) -> set[type[BaseModel]]:
    """This section and all below it."""
    found = {section}
    for field in section.model_fields.values():
        for option in (field.annotation, *get_args(field.annotation)):
            if isinstance(option, type) and issubclass(option, BaseModel):
                found |= sections(option)
    return found


# --- the definition ------------------------------------------------------------------------


def test_every_key_and_every_section_says_what_it_means() -> None:
    for section in sections():
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_defaults_are_valid() -> None:
    values = {"on": ["test"], "descriptor": "teacher", "images": 1, "images_per_class": 1}
    values |= {"teacher": "teacher", "unlabeled": "unlabeled", "recipe": "x"}
    values |= {"base_lr": [0.1, 0.2], "choose_on": "validation", "max_distance": 0.1}
    for section in sections() - {Config, Dataset, Model, Training, Finetuning}:
        required = [name for name, field in section.model_fields.items() if field.is_required()]
        made = section.model_validate({name: values[name] for name in required})
        assert section.model_validate(made.model_dump(exclude={"preset"})) == made


def test_a_configuration_round_trips_through_its_own_yaml() -> None:
    made = Config.model_validate(read_config())
    assert Config.model_validate(yaml.safe_load(yaml.safe_dump(made.model_dump()))) == made


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config.model_validate(read_config()).seed = 1  # type: ignore[misc]


# --- YAML ----------------------------------------------------------------------------------


def test_the_key_on_that_yaml_reads_as_true_is_a_word() -> None:
    raw = yaml.safe_load("on: labeled\nrecipe: supervised")
    assert True in raw
    assert Training.model_validate(raw).on == "labeled"
    assert Evaluate.model_validate({True: ["test"]}).on == ["test"]


def test_the_key_1_is_not_taken_for_on() -> None:
    assert "Keys should be strings" in refused(
        Training, {1: "labeled", "on": "labeled", "recipe": "supervised"}
    )


def test_a_name_that_yaml_reads_as_true_is_not_taken_for_on() -> None:
    raw = read_config()
    raw["models"][True] = raw["models"]["teacher"]
    assert "models" in refused(Config, raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", 1.0), ("images", "1"), ("images", True), ("base_lr", "1e-3"), ("base_lr", True),
     ("flip", "no"), ("flip", 0), ("schedule", 1), ("base_lr", float("nan")),
     ("base_lr", float("inf"))],
)  # fmt: skip
def test_nothing_is_converted(key: str, value: object) -> None:
    refused(Recipe, {"images": 1, key: value})


def test_a_whole_number_may_stand_where_a_number_is_wanted() -> None:
    assert Recipe.model_validate({"images": 1, "base_lr": 1}).base_lr == 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", 0), ("images", 2**53), ("global_batch_size", 0),
     ("base_lr", 0), ("momentum", 1), ("momentum", -0.1), ("label_smoothing", 1),
     ("decay_factor", 0), ("decay_factor", 1), ("num_decays", 0), ("warmup_images", -1),
     ("weight_decay", -1e-9), ("schedule", "linear"), ("crop", "center"),
     ("precision", "float16")],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(key: str, value: object) -> None:
    assert key in refused(Recipe, {"images": 1, key: value})


def test_a_number_too_long_to_print_is_refused() -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"images": 16**5000})


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 100])
def test_a_name_that_can_be_a_path_is_accepted(name: str) -> None:
    assert Evaluate.model_validate({"on": [name]}).on == [name]


@pytest.mark.parametrize("name", ["", "9", "-a", "a b", "a/b", "..", "a.b", "é", "a\n", "x" * 101])
def test_a_name_that_cannot_be_a_path_is_refused(name: str) -> None:
    refused(Evaluate, {"on": [name]})


@pytest.mark.parametrize(
    ("path", "normal"),
    [("results", "results"), ("results/", "results"), ("./results", "results"),
     ("a//b", "a/b"), ("/scratch/me/out", "/scratch/me/out"), ("../out-1.0", "../out-1.0")],
)  # fmt: skip
def test_the_folder_of_results_is_normalised(path: str, normal: str) -> None:
    assert Config.model_validate({**read_config(), "results": path}).results == normal


@given(st.text(st.sampled_from("ab/-é+ \t\n{}*?[]\\\0"), max_size=6))
def test_a_folder_of_results_holds_no_wildcard_and_nothing_a_shell_expands(path: str) -> None:
    raw = {**read_config(), "results": path}
    if set(path) <= set("ab/-é+") and path and path[0] != "-":
        assert Config.model_validate(raw).results == os.path.normpath(path)
    else:
        assert "choose another folder" in refused(Config, raw)


# --- what belongs together -----------------------------------------------------------------


@pytest.mark.parametrize("source", [{"shards": "a"}, {"folder": "a"}, {"builtin": "digits/test"}])
def test_a_dataset_has_one_source(source: dict[str, str]) -> None:
    Dataset.model_validate(source)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, "found none of them"),
        ({"labels": True}, "found none of them"),
        ({"shards": "a", "folder": "b"}, "found shards and folder"),
        ({"folder": "", "builtin": ""}, "found folder and builtin"),
    ],
)
def test_a_dataset_with_no_source_or_several_is_refused(raw: dict[str, Any], found: str) -> None:
    assert f"give exactly one of shards, folder, builtin; {found}" in refused(Dataset, raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"arch": "resnet18", "train": TRAINING},
        {"arch": "resnet18", "pretrain": TRAINING},
        {"arch": "resnet18", "pretrain": TRAINING, "finetune": TRAINING},
        {"arch": "resnet18", "weights": "a.pt", "classes": 3},
        {"arch": "resnet18", "weights": "a.pt", "classes": 3, "finetune": TRAINING},
        {"arch": "resnet18", "init": "teacher", "finetune": TRAINING},
        {"baseline_of": "student", "train": TRAINING},
    ],
)
def test_a_model_that_can_be_made(raw: dict[str, Any]) -> None:
    Model.model_validate(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"arch": "a"}, "nothing to do: give weights, train, pretrain or finetune"),
        ({"train": TRAINING}, "arch is missing"),
        ({"arch": "a", "train": TRAINING, "pretrain": TRAINING}, "give train alone"),
        ({"arch": "a", "train": TRAINING, "finetune": TRAINING}, "give train alone"),
        ({"arch": "a", "weights": "x", "init": "y", "train": TRAINING}, "give one"),
        ({"arch": "a", "finetune": TRAINING}, "finetune needs a start"),
        ({"arch": "a", "train": TRAINING, "classes": 3}, "classes belongs to weights"),
        ({"baseline_of": "s", "finetune": TRAINING, "init": "x"}, "a baseline needs train"),
        ({"baseline_of": "s", "arch": "a", "train": TRAINING}, "remove it"),
        ({"baseline_of": "s", "weights": "x", "train": TRAINING}, "remove weights and init"),
        ({"baseline_of": "s", "init": "x", "train": TRAINING}, "remove weights and init"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(raw: dict[str, Any], message: str) -> None:
    assert message in refused(Model, raw)


@pytest.mark.parametrize("num", [0, -1, 2**31])
def test_images_per_class_are_those_a_rank_can_count(num: int) -> None:
    raw = {"teacher": "t", "unlabeled": "u", "images_per_class": num}
    assert "images_per_class" in refused(Selection, raw)


def test_the_schema_for_editors_knows_every_section() -> None:
    names = {section.__name__ for section in sections()} - {"Config"}
    assert names == set(config.Config.model_json_schema()["$defs"])

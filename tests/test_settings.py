import json
import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from semisup import settings as step_settings
from semisup.config import Recipe, Remove
from semisup.settings import Evaluate, ExtractFeatures, Report, ScoreShards, Select, Settings, Train
from semisup.tables import DataError

KINDS = [
    kind
    for kind in vars(step_settings).values()
    if isinstance(kind, type) and issubclass(kind, Settings) and kind is not Settings
]
text = st.text(st.characters(codec="utf-8"), max_size=8)
values = {
    bool: st.booleans(),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: text,
    list[str]: st.lists(text, max_size=3),
    list[float]: st.lists(st.floats(0, 1), max_size=3),
    list[int] | None: st.none() | st.lists(st.integers(), max_size=3),
    list[str] | None: st.none() | st.lists(text, max_size=3),
    int | None: st.none() | st.integers(),
    dict[str, str]: st.dictionaries(text, text),
    float | None: st.none() | st.floats(0, 2),
    Remove: st.builds(Remove, closest=st.integers(0, 9)),
    step_settings.Preprocessing: st.builds(
        step_settings.Preprocessing, image_size=st.integers(1, 9), resize=st.integers(1, 9)
    ),
    Recipe: st.builds(Recipe, images=st.integers(1, 10**9), base_lr=st.floats(1e-9, 10.0)),
    step_settings.Classes | None: st.none() | st.lists(text, max_size=3),
    Remove | None: st.none() | st.builds(Remove, closest=st.integers(0, 9)),
    ScoreShards: st.builds(ScoreShards, classes_per_image=st.integers(1, 9)),
    ExtractFeatures: st.builds(ExtractFeatures, batch_size=st.integers(1, 9)),
    dict[str, int]: st.dictionaries(text, st.integers(1, 9)),
    dict[str, object]: st.dictionaries(text, text | st.integers() | st.lists(text, max_size=2)),
}


def any_of(kind: type[Settings]) -> st.SearchStrategy[Settings]:
    fields = {name: field.annotation for name, field in kind.model_fields.items()}
    del fields["version"]
    return st.builds(kind, **{name: values[kind] for name, kind in fields.items()})


any_settings = st.sampled_from(KINDS).flatmap(any_of)


def train(**changes: Any) -> Train:
    made = {
        "arch": "resnet18",
        "preprocessing": {"image_size": 224, "resize": 256},
        "classes": ["a", "b"],
    }
    return Train.model_validate({**made, "recipe": Recipe(images=1), "seed": 0, **changes})


def test_there_are_settings_for_every_step() -> None:
    assert len(KINDS) > 10
    assert Settings not in KINDS


@given(any_settings)
def test_settings_survive_the_command_line(made: Settings) -> None:
    assert type(made).model_validate_json(made.canonical()) == made


@given(any_settings)
def test_settings_are_one_line_of_ascii_with_sorted_keys(made: Settings) -> None:
    line = made.canonical()
    assert line.isascii()
    assert "\n" not in line
    assert line == json.dumps(json.loads(line), sort_keys=True)


@given(any_settings, any_settings)
def test_settings_are_equal_when_their_text_is(one: Settings, other: Settings) -> None:
    if type(one) is type(other):
        assert (one == other) == (one.canonical() == other.canonical())


def test_the_order_of_keys_is_not_part_of_the_text() -> None:
    one = Report(config={"a": {"x": 1, "y": 2}, "b": 3})
    other = Report(config={"b": 3, "a": {"y": 2, "x": 1}})
    assert one.canonical() == other.canonical()


def test_the_order_of_classes_is_part_of_the_text() -> None:
    assert train(classes=["a", "b"]).canonical() != train(classes=["b", "a"]).canonical()


def test_swapped_values_are_other_text() -> None:
    sides = {"image_size": 224, "resize": 256}, {"image_size": 256, "resize": 224}
    one, other = (train(preprocessing=each) for each in sides)
    assert one.canonical() != other.canonical()


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_a_version_that_is_part_of_its_text(kind: type[Settings]) -> None:
    (version,) = get_args(kind.model_fields["version"].annotation)
    assert version >= 1
    assert kind.model_fields["version"].default == version


@pytest.mark.parametrize("kind", KINDS)
def test_no_setting_says_how_or_where_a_step_runs(kind: type[Settings]) -> None:
    how = {"workers", "threads", "nodes", "results", "output", "device", "log"}
    assert not how & kind.model_fields.keys()


def test_settings_of_another_version_are_refused() -> None:
    line = re.sub(r'"version": \d+', '"version": 999', train().canonical())
    with pytest.raises(ValidationError):
        Train.model_validate_json(line)


def test_an_unknown_key_is_refused() -> None:
    content = {"model": "m", "stage": "s", "datasets": [], "batch_size": 1, "workers": 2}
    with pytest.raises(ValidationError, match="workers"):
        Evaluate.model_validate(content)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        train().seed = 1  # type: ignore[misc]


def test_what_is_not_removed_is_said() -> None:
    made = Select(
        num_parts=1,
        variant="balanced",
        rank_by="softmax",
        tags=None,
        images_per_class=1,
        classes_per_image=1,
        stored_classes=1,
        min_score=0.0,
        fraction=1.0,
        seed=0,
        remove=None,
    )
    assert json.loads(made.canonical())["remove"] is None


def test_classes_that_are_numbers_are_handed_over_as_their_number() -> None:
    """21,841 of them would fill a command."""
    classes = [str(i) for i in range(21_841)]
    made = step_settings.ImportWeights(
        arch="resnet18",
        preprocessing={"image_size": 224, "resize": 256},
        weights="w.pt",
        classes=classes,
    )
    assert json.loads(made.canonical())["classes"] == 21_841
    assert step_settings.ImportWeights.model_validate_json(made.canonical()) == made


def test_settings_that_do_not_fit_into_a_command_are_refused_naming_what_is_long() -> None:
    made = step_settings.IndexShards(
        dataset="u", part=0, first_shard=0, shards=[f"{i:0500}.tar" for i in range(300)],
        num_classes=None, max_pixels=1, stamp="",
    )  # fmt: skip
    with pytest.raises(
        DataError, match=r"IndexShards: settings of 15\d,\d+ bytes .* most .* shards\."
    ):
        made.canonical()

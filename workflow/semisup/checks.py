"""Refuse a configuration that cannot work, before any job starts, naming key, value and remedy."""

import difflib
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from semisup import datasets
from semisup.config import Config, Model, Selection, Training

SMALL_ARCH = re.compile(r"cifar_resnet(\d+)_w(\d+)")


class ConfigError(Exception):
    """Everything found wrong with a configuration, one line each."""


@functools.cache
def read_presets() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text())


@functools.cache
def read_architectures() -> dict[str, list[str]]:
    """Torchvision's classifiers and the names of their weights (generated: importing it is slow)."""
    return json.loads(Path(__file__).with_name("architectures.json").read_text())


def load_config(raw: dict[str, Any]) -> Config:
    """A checked configuration from the parsed YAML.

    Raises ConfigError listing every problem, each with its key, value and remedy.
    """
    raw, problems = _apply_presets(_restore_on(raw))
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems += [_explain(dict(item)) for item in error.errors()]
        config = None
    if config is not None:
        problems += list(_check_references(config))
        if not problems:
            problems += list(_check_cycles(config))
        if not problems:
            problems += list(_check_meaning(config))
        if not problems:
            problems += list(_check_files(config))
    if problems or config is None:
        raise ConfigError("\n".join(f"  {problem}" for problem in problems))
    return config


def _restore_on(value: Any) -> Any:
    """YAML 1.1 reads the key ``on`` as true; make it a word again."""
    if isinstance(value, dict):
        return {"on" if key is True else key: _restore_on(item) for key, item in value.items()}
    return value


def _apply_presets(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    problems = []
    merged: dict[str, Any] = dict(read_presets())
    for name, recipe in (raw.get("recipes") or {}).items():
        preset = recipe.get("preset") if isinstance(recipe, dict) else None
        if preset is not None and preset not in read_presets():
            problems.append(_unknown(f"recipes.{name}.preset", preset, read_presets()))
            preset = None
        merged[name] = {**read_presets()[preset], **recipe} if preset else recipe
    return {**raw, "recipes": merged}, problems


def _nearest(name: object, known: Any) -> str:
    found = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}? " if found else ""


def _unknown(key: str, name: object, known: Any) -> str:
    return f"{key}: {name!r} does not exist; {_nearest(name, known)}There are: {', '.join(known)}."


def _section_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys allowed in the section of the configuration at this path."""
    section: Any = Config
    for step in path:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(step)].annotation
        else:
            section = section.__args__[1]  # dict[Name, Section]
        for option in getattr(section, "__args__", ()):
            if (
                isinstance(option, type)
                and issubclass(option, BaseModel)
                and type(None) in section.__args__
            ):
                section = option
                break
    return list(section.model_fields)


def _explain(error: dict[str, Any]) -> str:
    """One line from one of pydantic's errors."""
    path = tuple(step for step in error["loc"] if step != "[key]")
    # The branches of a union are named in the path; people did not write them.
    branches = {"str", "int", "list[str]", "constrained-str"}
    key = ".".join(str(step) for step in path if step not in branches) or "config"
    value = error["input"]
    if error["type"] == "extra_forbidden":
        known = _section_keys(path[:-1])
        return f"{key}: unknown key; {_nearest(path[-1], known)}Known here: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{key}: missing; add it (see docs/config.md)."
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}."
    remedy = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        remedy = f" YAML reads {value} as text: write {float(value)!r} or {_yaml_float(value)}."
    elif isinstance(value, str) and value and "string" not in error["type"]:
        remedy = " Remove the quotes?" if _is_number(value) else ""
    return f"{key}: {value!r}: {error['msg'][0].lower()}{error['msg'][1:]}.{remedy}"


def _yaml_float(text: str) -> str:
    mantissa, exponent = re.split("[eE]", text)
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(\.\d*)?", text) is not None


def trainings(model: Model) -> dict[str, Training]:
    """The stages of a model that are trained, in order."""
    stages = {"train": model.train, "pretrain": model.pretrain, "finetune": model.finetune}
    return {stage: training for stage, training in stages.items() if training}


def _check_references(config: Config) -> Iterator[str]:
    sources = {**config.datasets, **config.selections}
    for name in config.datasets.keys() & config.selections.keys():
        yield f"selections.{name}: a dataset has this name too; rename one of them."
    for name, model in config.models.items():
        for stage, training in trainings(model).items():
            if training.on not in sources:
                yield _unknown(f"models.{name}.{stage}.on", training.on, sources)
            if training.recipe not in config.recipes:
                yield _unknown(f"models.{name}.{stage}.recipe", training.recipe, config.recipes)
        for key in ("init", "baseline_of"):
            if getattr(model, key) and getattr(model, key) not in config.models:
                yield _unknown(f"models.{name}.{key}", getattr(model, key), config.models)
    for name, selection in config.selections.items():
        if selection.teacher not in config.models:
            yield _unknown(f"selections.{name}.teacher", selection.teacher, config.models)
        if selection.unlabeled not in config.datasets:
            yield _unknown(f"selections.{name}.unlabeled", selection.unlabeled, config.datasets)
    if config.duplicates and config.duplicates.descriptor not in config.models:
        yield _unknown("duplicates.descriptor", config.duplicates.descriptor, config.models)
    for name in config.evaluate.on:
        if name not in config.datasets:
            yield _unknown("evaluate.on", name, config.datasets)


def _check_cycles(config: Config) -> Iterator[str]:
    def needs(kind: str, name: str) -> Iterator[tuple[str, str]]:
        if kind == "models":
            model = config.models[name]
            yield from (("models", other) for other in (model.init, model.baseline_of) if other)
            for training in trainings(model).values():
                if training.on in config.selections:
                    yield "selections", training.on
        else:
            yield "models", config.selections[name].teacher
            if config.duplicates:
                yield "models", config.duplicates.descriptor

    done: set[tuple[str, str]] = set()

    def walk(node: tuple[str, str], trail: list[tuple[str, str]]) -> Iterator[str]:
        if node in trail:
            circle = [*trail[trail.index(node) :], node]
            names = " needs ".join(f"{kind}.{name}" for kind, name in circle)
            yield f"{node[0]}.{node[1]}: needs itself ({names}); a student cannot be its own teacher: name another model."
        elif node not in done:
            for other in needs(*node):
                yield from walk(other, [*trail, node])
            done.add(node)

    for name in config.models:
        yield from walk(("models", name), [])


def model_classes(config: Config, name: str) -> list[str]:
    """Class names a model predicts after its last stage. Raises ValueError, OSError."""
    model = config.models[name]
    stages = list(trainings(model).values())
    if stages:
        return source_classes(config, stages[-1].on)
    if model.classes is not None:
        return datasets.list_classes(model.classes)
    return [str(i) for i in range(1000)]  # torchvision's ImageNet weights


def source_classes(config: Config, name: str) -> list[str]:
    """Class names of what a model is trained on: a dataset or a selection."""
    if name in config.selections:
        return model_classes(config, config.selections[name].teacher)
    return datasets.dataset_classes(config.datasets[name])


def _check_meaning(config: Config) -> Iterator[str]:
    unlabeled = {selection.unlabeled for selection in config.selections.values()}
    for name, dataset in config.datasets.items():
        if dataset.builtin:
            try:
                datasets.find_builtin(dataset.builtin)
            except ValueError as error:
                yield f"datasets.{name}.builtin: {dataset.builtin!r}: {error}."
    for name, model in config.models.items():
        yield from _check_model(config, name, model)
        for stage, training in trainings(model).items():
            key = f"models.{name}.{stage}.on"
            if training.on in unlabeled:
                yield f"{key}: {training.on!r} is the unlabelled dataset of a selection; train on the selection."
            elif training.on in config.evaluate.on:
                yield f"{key}: {training.on!r} is in evaluate.on; a model must not be trained on what measures it."
            elif training.on in config.datasets and config.datasets[training.on].labels is False:
                yield f"{key}: {training.on!r} has labels: false; training needs labels."
    for name in config.evaluate.on:
        if name in unlabeled:
            yield f"evaluate.on: {name!r} is the unlabelled dataset of a selection; choose another."
        elif config.datasets[name].labels is False:
            yield f"evaluate.on: {name!r} has labels: false; measuring needs labels."


def _check_model(config: Config, name: str, model: Model) -> Iterator[str]:
    key = f"models.{name}"
    if model.arch and model.arch not in read_architectures():
        small = SMALL_ARCH.fullmatch(model.arch)
        if not small:
            known = [*read_architectures(), "cifar_resnet8_w16"]
            yield f"{key}.arch: {model.arch!r} does not exist; {_nearest(model.arch, known)}It must be a torchvision classifier or cifar_resnet{{6n+2}}_w{{width}}."
        elif int(small[1]) < 8 or (int(small[1]) - 2) % 6 or not 1 <= int(small[2]) <= 4096:
            yield f"{key}.arch: {model.arch!r}: the depth must be 6n+2 (8, 14, 20, ...) and the width 1 to 4096."
    if model.resize is not None and model.resize < model.image_size:
        yield f"{key}.resize: {model.resize} is smaller than image_size {model.image_size}; the crop would not fit."
    if model.weights and model.weights.startswith("torchvision:"):
        weights, known = (
            model.weights.partition(":")[2],
            read_architectures().get(model.arch or "", []),
        )
        if weights not in known:
            yield _unknown(f"{key}.weights", weights, known)
        if model.classes is not None:
            yield f"{key}.classes: torchvision's weights know their classes; remove it."
    elif model.weights and model.classes is None:
        yield f"{key}.classes: missing; name the classes of {model.weights} (a list, a file, or their number)."
    if model.init and config.models[model.init].arch != model.arch:
        yield f"{key}.arch: {model.arch!r} differs from {config.models[model.init].arch!r} of init: {model.init}; weights would not fit."
    if model.baseline_of:
        student = config.models[model.baseline_of]
        if student.baseline_of or not (student.pretrain or student.finetune):
            yield f"{key}.baseline_of: {model.baseline_of!r} is not a student (it has no pretrain or finetune)."


def _check_files(config: Config) -> Iterator[str]:
    owner: dict[str, str] = {}
    for name, dataset in config.datasets.items():
        key = f"datasets.{name}"
        if dataset.folder is not None and not os.path.isdir(dataset.folder):
            yield f"{key}.folder: {dataset.folder!r} is not a folder; check the path."
            return
        paths = datasets.list_shards(dataset, name, config.results)
        if dataset.shards is not None:
            missing = datasets.missing_files(paths)
            if missing:
                yield f"{key}.shards: {len(missing)} of {len(paths)} files do not exist, first {missing[0]!r}; correct the pattern {dataset.shards!r}."
        for path in paths:
            other = owner.setdefault(os.path.realpath(path), name)
            if other != name:
                yield f"{key}: shares {path!r} with datasets.{other}; datasets must not overlap."
                break
        if len(set(map(os.path.realpath, paths))) != len(paths):
            yield f"{key}.shards: the same file stands twice; every shard must be listed once."
    for name, model in config.models.items():
        if (
            model.weights
            and not model.weights.startswith("torchvision:")
            and not os.path.isfile(model.weights)
        ):
            yield f"models.{name}.weights: {model.weights!r} is not a file; check the path."
    reviewed = config.duplicates and config.duplicates.remove.reviewed
    if reviewed and not os.path.isfile(reviewed):
        yield f"duplicates.remove.reviewed: {reviewed!r} is not a file; check the path."
    yield from _check_classes(config)


def _check_classes(config: Config) -> Iterator[str]:
    known: dict[str, list[str]] = {}
    labelled = {t.on for m in config.models.values() for t in trainings(m).values()}
    for name in sorted(labelled & config.datasets.keys() | set(config.evaluate.on)):
        try:
            known[name] = datasets.dataset_classes(config.datasets[name])
        except (ValueError, OSError) as error:
            yield f"datasets.{name}.classes: {error}."
            return
    for name, model in config.models.items():
        try:
            classes = model_classes(config, name)
        except (ValueError, OSError) as error:
            yield f"models.{name}.classes: {error}."
            return
        for dataset in config.evaluate.on:
            if trainings(model) and known[dataset] != classes:
                yield f"evaluate.on: {dataset!r} has {len(known[dataset])} classes, models.{name} predicts {len(classes)}, or their names differ; they must be the same."
    for name, selection in config.selections.items():
        yield from _check_classes_per_image(config, name, selection)


def _check_classes_per_image(config: Config, name: str, selection: Selection) -> Iterator[str]:
    num_classes = len(model_classes(config, selection.teacher))
    stored = config.score.classes_per_image
    if stored is not None and stored > num_classes:
        yield f"score.classes_per_image: {stored} is more than the {num_classes} classes of models.{selection.teacher}; lower it to {num_classes}."
    limit = min(stored or 10, num_classes)
    if selection.classes_per_image is not None and selection.classes_per_image > limit:
        yield f"selections.{name}.classes_per_image: {selection.classes_per_image} is more than the {limit} that score.classes_per_image stores of {num_classes} classes; lower it."

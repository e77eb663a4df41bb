"""Refuse a configuration that cannot work, before any job starts, naming key, value and remedy."""

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from semisup import data_checks, network_checks
from semisup.config import Config, Model
from semisup.config_errors import ConfigError, explain, problem, unknown
from semisup.stages import candidate_name, shape, sweep_of, trainings

__all__ = ["ConfigError", "load_config", "read_presets", "trainings"]


@functools.cache
def read_presets() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text())


def load_config(raw: dict[str, Any]) -> Config:
    """A checked configuration from the parsed YAML.

    Raises ConfigError listing every problem, each with its key, value and remedy.
    """
    raw, problems = _apply_presets(raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise _refusal(problems + explain(error)) from None
    # Each check relies on those before it.
    for check in (
        _check_references,
        _check_cycles,
        _check_meaning,
        data_checks.check_files,
        data_checks.check_classes,
        data_checks.check_predictions,
    ):
        problems += check(config)
        if problems:
            raise _refusal(problems)
    return config


def _refusal(problems: list[str]) -> ConfigError:
    return ConfigError("\n".join(f"  {line}" for line in dict.fromkeys(problems)))


def _apply_presets(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The configuration with all presets among its recipes, and what is wrong with their names."""
    recipes, presets = raw.get("recipes") or {}, read_presets()
    if not isinstance(recipes, dict):
        return raw, []
    merged: dict[Any, Any] = dict(presets)
    problems = []
    for name, recipe in recipes.items():
        merged[name] = recipe
        if isinstance(recipe, dict) and recipe.get("preset") is not None:
            preset = recipe["preset"]
            if not isinstance(preset, str) or preset not in presets:
                problems.append(unknown(f"recipes.{name}.preset", preset, presets))
                preset = next(iter(presets))  # any will do to check the other keys
            merged[name] = {**presets[preset], **recipe, "preset": preset}
    return {**raw, "recipes": merged}, problems


def _check_references(config: Config) -> Iterator[str]:
    for name in config.datasets.keys() & config.selections.keys():
        yield problem("selections", name, "is the name of a dataset too", "rename one of them")
    for key, name, known in _references(config):
        if name not in known:
            yield unknown(key, name, known)


def _references(config: Config) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each key that holds the name of something, that name, and what it must be among."""
    sources: dict[str, Any] = {**config.datasets, **config.selections}
    for name, model in config.models.items():
        for stage, training in trainings(model).items():
            yield f"models.{name}.{stage}.on", training.on, sources
            yield f"models.{name}.{stage}.recipe", training.recipe, config.recipes
        if sweep := sweep_of(model):
            yield f"models.{name}.finetune.sweep.choose_on", sweep.choose_on, config.datasets
        for key, other in (("init", model.init), ("baseline_of", model.baseline_of)):
            if other:
                yield f"models.{name}.{key}", other, config.models
    for name, selection in config.selections.items():
        yield f"selections.{name}.teacher", selection.teacher, config.models
        yield f"selections.{name}.unlabeled", selection.unlabeled, config.datasets
    if config.duplicates:
        yield "duplicates.descriptor", config.duplicates.descriptor, config.models
        if config.duplicates.read_with:
            teachers = {s.teacher: s for s in config.selections.values()}
            yield "duplicates.read_with", config.duplicates.read_with, teachers
    for name in config.evaluate.on:
        yield "evaluate.on", name, config.datasets


def _check_cycles(config: Config) -> Iterator[str]:
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> Iterator[str]:
        if node in trail:
            circle = [*trail[trail.index(node) :], node]
            yield (
                f"{node}: needs itself ({' needs '.join(circle)}); "
                "a student cannot be its own teacher: name another model."
            )
        elif node not in done:
            for other in _needs(config, node):
                yield from walk(other, [*trail, node])
            done.add(node)

    for name in config.models:
        yield from walk(f"models.{name}", [])


def _needs(config: Config, node: str) -> Iterator[str]:
    """The models and selections that must be there before this one."""
    kind, name = node.split(".")
    if kind == "models":
        model = config.models[name]
        yield from (f"models.{other}" for other in (model.init, model.baseline_of) if other)
        for training in trainings(model).values():
            if training.on in config.selections:
                yield f"selections.{training.on}"
    else:
        yield f"models.{config.selections[name].teacher}"
        if config.duplicates:
            yield f"models.{config.duplicates.descriptor}"


def _check_meaning(config: Config) -> Iterator[str]:
    unlabeled = {selection.unlabeled for selection in config.selections.values()}
    for name, model in config.models.items():
        yield from _check_model(config, f"models.{name}", model)
        for stage, training in trainings(model).items():
            what = ""
            if training.on in unlabeled:
                what = "is the unlabelled dataset of a selection"
            elif training.on in config.evaluate.on:
                what = "is in evaluate.on, which measures the model"
            elif _without_labels(config, training.on):
                what = "has labels: false"
            if what:
                remedy = "train on a labelled dataset or a selection"
                yield problem(f"models.{name}.{stage}.on", training.on, what, remedy)
        yield from _check_sweep(config, name, unlabeled)
    for name, times in Counter(config.evaluate.on).items():
        remedy = "choose a labelled dataset"
        if name in unlabeled:
            yield problem("evaluate.on", name, "is the unlabelled dataset of a selection", remedy)
        elif _without_labels(config, name):
            yield problem("evaluate.on", name, "has labels: false", remedy)
        if times > 1:
            yield problem("evaluate.on", name, "stands twice", "remove one")
    for name, selection in config.selections.items():
        if selection.variant == "random" and not config.datasets[selection.unlabeled].labels:
            what = f"needs labels, but datasets.{selection.unlabeled}.labels is not true"
            remedy = "set it, or choose another variant"
            yield problem(f"selections.{name}.variant", selection.variant, what, remedy)
    for name, recipe in config.recipes.items():
        if recipe.warmup_images > recipe.images:
            what = f"is more than all {recipe.images} images of the recipe"
            yield problem(f"recipes.{name}.warmup_images", recipe.warmup_images, what, "lower it")
        elif recipe.schedule == "step":
            first_cut = recipe.images // (recipe.num_decays + 1)
            if recipe.warmup_images > first_cut:
                what = f"goes beyond the first of {recipe.num_decays} cuts, after {first_cut} of "
                what += f"{recipe.images} images"
                remedy = "lower it or num_decays, or raise images"
                yield problem(f"recipes.{name}.warmup_images", recipe.warmup_images, what, remedy)
    if config.duplicates:
        limit = config.duplicates.record_distance
        cuts = {
            "remove.max_distance": config.duplicates.remove.max_distance,
            "leak_distance": config.duplicates.leak_distance,
        }
        for key, farthest in cuts.items():
            if farthest is not None and farthest > limit:
                what = f"is more than record_distance {limit}, so not all such pairs are recorded"
                yield problem(f"duplicates.{key}", farthest, what, "raise that one")


def _check_sweep(config: Config, name: str, unlabeled: set[str]) -> Iterator[str]:
    if not (sweep := sweep_of(config.models[name])):
        return
    key, what = f"models.{name}.finetune.sweep", ""
    for value, times in Counter(candidate_name(value) for value in sweep.base_lr).items():
        if times > 1:
            yield problem(f"{key}.base_lr", value, "stands twice, to six digits", "remove one")
    if sweep.choose_on in config.evaluate.on:
        what = "is in evaluate.on, whose accuracies must not choose"
    elif sweep.choose_on in unlabeled:
        what = "is the unlabelled dataset of a selection"
    elif learner := _learners(config, name).get(sweep.choose_on):
        what = "is what the model learns from"
        if learner != name:
            what = f"is what models.{learner} learns from, and through that this model"
    elif _without_labels(config, sweep.choose_on):
        what = "has labels: false"
    if what:
        yield problem(f"{key}.choose_on", sweep.choose_on, what, "name other labelled images")


def _learners(config: Config, name: str) -> dict[str, str]:
    """What a model learns from, itself or through those it starts from and those that teach it, and
    which model does."""
    models, learners = [name], dict[str, str]()
    for other in models:  # which grows
        model = config.models[other]
        before = [model.init] if model.init else []
        for training in trainings(model).values():
            learners.setdefault(training.on, other)
            if training.on in config.selections:
                before.append(config.selections[training.on].teacher)
        models += [new for new in before if new not in models]
    return learners


def _without_labels(config: Config, name: str) -> bool:
    return name in config.datasets and config.datasets[name].labels is False


def _check_model(config: Config, key: str, model: Model) -> Iterator[str]:
    if model.arch is not None:
        yield from network_checks.check_arch(f"{key}.arch", model.arch)
    if model.resize is not None and model.resize < model.image_size:
        what = f"is smaller than image_size {model.image_size}, the crop would not fit"
        yield problem(f"{key}.resize", model.resize, what, "raise it or remove it")
    yield from network_checks.check_image_size(key, model)
    yield from network_checks.check_weights(key, model)
    if model.init and (start := shape(config, model.init)).arch != model.arch:
        what = f"differs from {start.arch!r} of init: {model.init}, whose weights would not fit"
        yield problem(f"{key}.arch", model.arch, what, "make them the same")
    if model.baseline_of:
        student = config.models[model.baseline_of]
        if student.baseline_of or not (student.pretrain or student.finetune):
            what = "is no student, it has neither pretrain nor finetune"
            yield problem(f"{key}.baseline_of", model.baseline_of, what, "name one that has")

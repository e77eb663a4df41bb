"""Whether the files and class names a configuration speaks of are there, and fit together."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from semisup import datasets
from semisup.config import TORCHVISION, Config, Dataset
from semisup.config_errors import nearest, problem, show
from semisup.stages import model_classes, source_classes, stored_classes, sweep_of, trainings


def check_files(config: Config) -> Iterator[str]:
    yield from _check_folders(config)
    owners: dict[str, str] = {}
    for name, dataset in config.datasets.items():
        yield from _check_shards(config, name, dataset, owners)
    for name, model in config.models.items():
        weights = model.weights or ""
        if weights and not weights.startswith(TORCHVISION):
            yield from _check_file(f"models.{name}.weights", weights)
    reviewed = config.duplicates and config.duplicates.remove.reviewed
    if reviewed:
        yield from _check_file("duplicates.remove.reviewed", reviewed)
        yield from _check_review(config, reviewed)


def _check_file(key: str, path: str) -> Iterator[str]:
    if not os.path.isfile(path):
        yield problem(key, path, "is not a file", "check the path")
    elif "<" in path or ">" in path:  # Snakemake would look for a variable of this name
        yield problem(key, path, "holds < or >", "rename the file")


def _check_review(config: Config, path: str) -> Iterator[str]:
    """A name that is no dataset's, or no longer, would leave its rows out in silence."""
    from semisup.reviews import named_datasets  # pandas: a third of a second of every start

    for column, name in named_datasets(Path(path)):
        if name not in config.datasets:
            what = f"has {column} {name!r}, which is not in datasets"
            remedy = f"{nearest(name, config.datasets)}review again, or remove its rows"
            yield problem("duplicates.remove.reviewed", path, what, remedy)


def _check_folders(config: Config) -> Iterator[str]:
    real: dict[str, str] = {}
    for name, dataset in config.datasets.items():
        if dataset.folder is not None:
            key = f"datasets.{name}.folder"
            if not os.path.isdir(dataset.folder):
                yield problem(key, dataset.folder, "is not a folder", "check the path")
                continue
            path = os.path.realpath(dataset.folder)
            for other, theirs in real.items():
                if os.path.commonpath([path, theirs]) in (path, theirs):
                    what = f"shares its images with the folder of datasets.{other}"
                    yield problem(key, dataset.folder, what, "datasets must not overlap")
            real[name] = path


def _check_shards(
    config: Config, name: str, dataset: Dataset, owners: dict[str, str]
) -> Iterator[str]:
    """``owners``: the dataset of each tar seen so far."""
    source = next(s for s in ("shards", "folder", "builtin") if getattr(dataset, s) is not None)
    key, value = f"datasets.{name}.{source}", getattr(dataset, source)
    try:
        paths = datasets.list_shards(dataset, name, config.results)
    except ValueError as error:
        yield f"{key}: {show(value)} {error}."
        return
    if dataset.shards is None:  # the pipeline makes them
        real = [os.path.realpath(path) for path in paths]
    else:
        real = datasets.real_paths(paths)
    if missing := [path for path, where in zip(paths, real, strict=True) if not where]:
        what = f"names {len(missing):,} files of {len(paths):,} that do not exist, first "
        remedy = "correct the pattern"
        if "*" in missing[0]:
            remedy = "name all with braces, as in train-{000..099}.tar; * is not expanded"
        yield problem(key, value, what + repr(missing[0]), remedy)
        return
    if twice := [path for path, times in Counter(real).items() if times > 1]:
        yield problem(key, value, f"names {twice[0]!r} twice", "list every shard once")
    if shared := [path for path in real if owners.setdefault(path, name) != name]:
        what = f"shares {shared[0]!r} with datasets.{owners[shared[0]]}"
        yield problem(key, value, what, "datasets must not overlap")


def check_classes(config: Config) -> Iterator[str]:
    used = {t.on for model in config.models.values() for t in trainings(model).values()}
    used |= {sweep.choose_on for model in config.models.values() if (sweep := sweep_of(model))}
    used |= {*config.evaluate.on, *(n for n, dataset in config.datasets.items() if dataset.labels)}
    for name in sorted(used & config.datasets.keys()):
        try:
            datasets.dataset_classes(config.datasets[name])
        except (ValueError, OSError) as error:
            yield f"datasets.{name}.classes: {error}."
    for name, model in config.models.items():
        try:
            datasets.list_classes(1 if model.classes is None else model.classes)
        except ValueError as error:
            yield f"models.{name}.classes: {error}."


def check_predictions(config: Config) -> Iterator[str]:
    """That models predict the classes they are measured on, and as many as are asked for."""
    first, *others = config.evaluate.on
    classes = source_classes(config, first)
    sources = {repr(name): source_classes(config, name) for name in others}
    sources |= {
        f"models.{name}": model_classes(config, name)
        for name, model in config.models.items()
        if trainings(model)
    }
    sources |= {
        repr(sweep.choose_on): source_classes(config, sweep.choose_on)
        for model in config.models.values()
        if (sweep := sweep_of(model))
    }
    for name, theirs in sources.items():
        if difference := datasets.class_difference(classes, theirs):
            what = f"has other classes than {name} ({difference})"
            yield problem("evaluate.on", first, what, "they must be the same, in the same order")
    for name, selection in config.selections.items():
        num_classes = len(model_classes(config, selection.teacher))
        stored, wanted = config.score.classes_per_image, selection.classes_per_image
        if stored is not None and stored > num_classes:
            what = f"is more than the {num_classes} classes of models.{selection.teacher}"
            yield problem("score.classes_per_image", stored, what, f"lower it to {num_classes}")
        limit = stored_classes(config, selection.teacher)
        if wanted is not None and wanted > limit:
            what = f"is more than the {limit} of {num_classes} classes that scoring stores"
            remedy = f"lower it to {limit}"
            remedy += " or raise score.classes_per_image" if limit < num_classes else ""
            yield problem(f"selections.{name}.classes_per_image", wanted, what, remedy)

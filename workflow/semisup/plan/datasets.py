"""The wiring of the datasets: their tars, parts and tables; packed selections are datasets too."""

import functools
from pathlib import Path
from typing import Protocol

from semisup import datasets, settings, stamps
from semisup.config import Config, Dataset
from semisup.stages import stage_classes, stage_names, stored_classes


class Wildcards(Protocol):
    """Snakemake's wildcards: an attribute per wildcard of the rule."""

    def __getattr__(self, name: str) -> str: ...


class Datasets:
    """What follows from a checked configuration for its datasets."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.results = config.results
        self.wandb = config.wandb
        self.watch = stamps.Watch()
        self.unlabeled = {selection.unlabeled for selection in config.selections.values()}
        # Each of thousands of jobs asks.
        self.shards = functools.cache(self._list_shards)
        self.parts = functools.cache(self._list_parts)
        self.stored_classes = functools.cache(lambda teacher: stored_classes(config, teacher))

    def _list_shards(self, name: str) -> list[str]:
        return datasets.list_shards(self.config.datasets[name], name, self.results)

    def _list_parts(self, name: str) -> list[range]:
        num_shards, per_part = len(self.shards(name)), self.config.datasets[name].shards_per_part
        per_part = per_part or datasets.default_shards_per_part(num_shards)
        return datasets.list_parts(num_shards, per_part)

    def has_labels(self, name: str) -> bool:
        labels = self.config.datasets[name].labels
        return name not in self.unlabeled if labels is None else labels

    def manifests(self, name: str) -> list[str]:
        """Manifests of all parts of a dataset or a packed selection."""
        packed = name in self.config.selections
        folder = f"{self.results}/{'shards' if packed else 'datasets'}/{name}"
        parts = self.packed_parts(name) if packed else self.parts(name)
        return [f"{folder}/manifest-{part:05d}.json" for part in range(len(parts))]

    def samples(self, name: str) -> list[str]:
        """The samples tables that stand beside the manifests."""
        return [
            path.replace("/manifest-", "/samples-").removesuffix("json") + "parquet"
            for path in self.manifests(name)
        ]

    def packed_parts(self, name: str) -> list[range]:
        """The shards of each part of a packed selection, if every class were full."""
        selection, pack = self.config.selections[name], self.config.pack
        teacher = selection.teacher
        stage = stage_names(self.config.models[teacher])[-1]
        most = selection.images_per_class * len(stage_classes(self.config, teacher, stage))
        num_shards = -(-most // pack.samples_per_shard)
        per_part = max(pack.shards_per_part, -(-num_shards // datasets.MAX_PARTS))
        return datasets.list_parts(num_shards, per_part)

    def made_tars(self, name: str) -> list[str]:
        """The tars of a dataset or a packed selection that the pipeline makes; of a user's own none.

        Every rule that reads images names them: where a killed job has deleted some, they are made
        again first.
        """
        if name in self.config.selections:
            parts = range(len(self.packed_parts(name)))
            return [f"{self.results}/shards/{name}/tars/{part:05d}" for part in parts]
        dataset = self.config.datasets[name]
        if dataset.shards is not None:
            return []
        return [f"{self.results}/datasets/{name}/tars"] if dataset.folder else self.shards(name)

    def dataset_tars(self, wildcards: Wildcards) -> list[str]:
        return self.made_tars(wildcards.dataset)

    def dataset_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(wildcards.dataset)

    def dataset_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(wildcards.dataset)

    def shards_to_make(self, wildcards: Wildcards) -> list[str]:
        """Tars of a part that the pipeline itself writes; a user's own are no declared inputs."""
        made = self.made_tars(wildcards.dataset)
        if self.config.datasets[wildcards.dataset].builtin is None:
            return made
        return [made[i] for i in self.parts(wildcards.dataset)[int(wildcards.part)]]

    def index_shards(self, wildcards: Wildcards) -> str:
        name, part = wildcards.dataset, int(wildcards.part)
        shards = self.shards(name)
        span = self.parts(name)[part]
        paths = [shards[i] for i in span]
        dataset, stamp = self.config.datasets[name], ""
        if dataset.shards is not None:
            stamp = self.watch.stamp(paths, stamps.record_path(Path(self.manifests(name)[part])))
        return settings.IndexShards(
            dataset=name,
            part=part,
            first_shard=span.start,
            shards=paths,
            num_classes=self._num_classes(name, dataset),
            max_pixels=dataset.max_pixels,
            stamp=stamp,
        ).canonical()

    def _num_classes(self, name: str, dataset: Dataset) -> int | None:
        """Labels are read, and must be smaller than this; None: they are not read at all."""
        return len(datasets.dataset_classes(dataset)) if self.has_labels(name) else None

    def make_digits(self, wildcards: Wildcards) -> str:
        return settings.MakeDigits(seed=self.config.seed).canonical()

    def make_cifar10(self, wildcards: Wildcards) -> str:
        num_labels = int(wildcards.num_labels)
        return settings.MakeCifar10(seed=self.config.seed, num_labels=num_labels).canonical()

    def pack_folder(self, wildcards: Wildcards) -> str:
        dataset = self.config.datasets[wildcards.dataset]
        assert dataset.folder is not None
        labelled = self.has_labels(wildcards.dataset)
        return settings.PackFolder(
            folder=dataset.folder,
            classes=datasets.dataset_classes(dataset) if labelled else None,
            num_shards=dataset.num_shards,
            stamp=datasets.stamp_folder(dataset.folder),
        ).canonical()

    def builtin_shards(self, name: str) -> list[str]:
        """Names of the tars of a built-in set: ``test-00000``."""
        builtin = datasets.DIGITS if name == "digits" else datasets.CIFAR10
        return [
            f"{split}-{shard:05d}"
            for split, num_shards in builtin.num_shards.items()
            for shard in range(num_shards)
        ]

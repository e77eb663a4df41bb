"""The wiring of the pipeline: inputs and settings of every rule, as functions of its wildcards.

The rule files say what each rule needs and makes; where that follows from the configuration they
name a method of :class:`Plan`. Paths start with ``results``, the folder of the configuration.
"""

from pathlib import Path
from typing import Any, Protocol

from semisup import datasets, settings, stamps
from semisup.config import TORCHVISION, Config, Dataset, Model, Recipe, Selection
from semisup.stages import (
    candidate_name,
    shape,
    source_classes,
    stage_classes,
    stage_names,
    stored_classes,
    sweep_of,
    trainings,
)

MAX_PACKED_PARTS = 256


class Wildcards(Protocol):
    """Snakemake's wildcards: an attribute per wildcard of the rule."""

    def __getattr__(self, name: str) -> str: ...


class Plan:
    """What follows from a checked configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.results = config.results
        self.wandb = config.wandb
        self.watch = stamps.Watch()
        self.unlabeled = {selection.unlabeled for selection in config.selections.values()}

    # --- datasets -------------------------------------------------------------------------

    def shards(self, name: str) -> list[str]:
        return datasets.list_shards(self.config.datasets[name], name, self.results)

    def parts(self, name: str) -> list[range]:
        shards_per_part = self.config.datasets[name].shards_per_part
        return datasets.list_parts(len(self.shards(name)), shards_per_part)

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

    def shards_to_make(self, wildcards: Wildcards) -> list[str]:
        """Tars of a part that the pipeline itself writes; a user's own are no declared inputs."""
        dataset = self.config.datasets[wildcards.dataset]
        if dataset.shards is not None:
            return []
        if dataset.folder is not None:
            return [f"{self.results}/datasets/{wildcards.dataset}/tars"]
        shards = self.shards(wildcards.dataset)
        return [shards[i] for i in self.parts(wildcards.dataset)[int(wildcards.part)]]

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

    # --- models ---------------------------------------------------------------------------

    def stages(self, name: str) -> list[str]:
        return stage_names(self.config.models[name])

    def weights(self, name: str, stage: str | None = None) -> str:
        """Weights of a model after a stage; by default its last."""
        return f"{self.results}/models/{name}/{stage or self.stages(name)[-1]}/weights.pt"

    def training_data(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(self._training_source(wildcards))

    def training_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(self._training_source(wildcards))

    def _training_source(self, wildcards: Wildcards) -> str:
        return trainings(self.config.models[wildcards.model])[wildcards.stage].on

    def initial_weights(self, wildcards: Wildcards) -> list[str]:
        """The weights a stage starts from: the stage before, or another model; at most one."""
        stages = self.stages(wildcards.model)
        before = stages.index(wildcards.stage) - 1
        init = self.config.models[wildcards.model].init
        if before >= 0:
            return [self.weights(wildcards.model, stages[before])]
        return [self.weights(init)] if init else []

    def _resize(self, model: Model) -> int:
        return model.resize or round(model.image_size * 256 / 224)

    def recipe(self, name: str, stage: str) -> Recipe:
        """The recipe of a stage with its budget in force."""
        model = self.config.models[name]
        recipe = self.config.recipes[trainings(model)[stage].recipe]
        if model.baseline_of:
            student = self.config.models[model.baseline_of]
            recipes = [self.config.recipes[t.recipe] for t in trainings(student).values()]
            recipe = recipe.model_copy(update={"images": sum(r.images for r in recipes)})
        return recipe.model_copy(update={"preset": None})

    def train(self, wildcards: Wildcards) -> str:
        return self._train(wildcards, {})

    def _train(self, wildcards: Wildcards, changes: dict[str, Any]) -> str:
        name, stage = wildcards.model, wildcards.stage
        model = shape(self.config, name)
        return settings.Train(
            arch=model.arch or "",
            image_size=model.image_size,
            resize=self._resize(model),
            classes=source_classes(self.config, self._training_source(wildcards)),
            recipe=self.recipe(name, stage).model_copy(update=changes),
            seed=self.config.seed,
        ).canonical()

    # --- sweeps ---------------------------------------------------------------------------

    def models_with_sweep(self, has_sweep: bool) -> str:
        """A pattern of the models whose finetuning is, or is not, a sweep."""
        models = self.config.models.items()
        return "|".join(n for n, model in models if bool(sweep_of(model)) == has_sweep) or "$^"

    def candidates(self, wildcards: Wildcards) -> list[str]:
        """The folders of the trainings of a sweep."""
        sweep = sweep_of(self.config.models[wildcards.model])
        folder = f"{self.results}/models/{wildcards.model}/finetune"
        return [f"{folder}/{candidate_name(lr)}" for lr in sweep.base_lr] if sweep else []

    def candidate_weights(self, wildcards: Wildcards) -> list[str]:
        return [f"{folder}/weights.pt" for folder in self.candidates(wildcards)]

    def candidate_classes(self, wildcards: Wildcards) -> list[str]:
        return [f"{folder}/classes.txt" for folder in self.candidates(wildcards)]

    def candidate_metrics(self, wildcards: Wildcards) -> list[str]:
        return [f"{folder}/metrics.parquet" for folder in self.candidates(wildcards)]

    def candidate_evaluations(self, wildcards: Wildcards) -> list[str]:
        return [f"{folder}/evaluations.parquet" for folder in self.candidates(wildcards)]

    def train_candidate(self, wildcards: Wildcards) -> str:
        sweep = sweep_of(self.config.models[wildcards.model])
        assert sweep
        (base_lr,) = (lr for lr in sweep.base_lr if candidate_name(lr) == wildcards.candidate)
        return self._train(wildcards, {"base_lr": base_lr})

    def _choose_on(self, wildcards: Wildcards) -> str:
        sweep = sweep_of(self.config.models[wildcards.model])
        assert sweep
        return sweep.choose_on

    def choosing_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(self._choose_on(wildcards))

    def choosing_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(self._choose_on(wildcards))

    def evaluate_candidate(self, wildcards: Wildcards) -> str:
        return settings.Evaluate(
            model=wildcards.model,
            stage=f"{wildcards.stage} {wildcards.candidate}",
            datasets=[self._choose_on(wildcards)],
            batch_size=self.config.evaluate.batch_size,
        ).canonical()

    def choose_candidate(self, wildcards: Wildcards) -> str:
        sweep = sweep_of(self.config.models[wildcards.model])
        assert sweep
        return settings.ChooseCandidate(base_lr=sweep.base_lr).canonical()

    # --- weights that are given -----------------------------------------------------------

    def weights_file(self, wildcards: Wildcards) -> list[str]:
        weights = self.config.models[wildcards.model].weights or ""
        return [] if weights.startswith(TORCHVISION) else [weights]

    def import_weights(self, wildcards: Wildcards) -> str:
        model = self.config.models[wildcards.model]
        assert model.weights is not None and model.arch is not None
        return settings.ImportWeights(
            arch=model.arch,
            image_size=model.image_size,
            resize=self._resize(model),
            weights=model.weights,
            classes=stage_classes(self.config, wildcards.model, "imported"),
        ).canonical()

    # --- duplicates -----------------------------------------------------------------------

    def descriptor(self) -> str:
        return self.config.duplicates.descriptor if self.config.duplicates else ""

    def descriptor_weights(self, wildcards: Wildcards) -> str:
        return self.weights(self.descriptor())

    def dataset_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(wildcards.dataset)

    def dataset_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(wildcards.dataset)

    def unlabeled_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(wildcards.unlabeled)

    def unlabeled_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(wildcards.unlabeled)

    def evaluation_features(self) -> list[str]:
        if not self.config.duplicates:
            return []
        folder = f"{self.results}/features/{self.descriptor()}"
        return [f"{folder}/{name}.parquet" for name in self.config.evaluate.on]

    def duplicate_parts(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{wildcards.unlabeled}"
        return [
            f"{folder}/part-{part:05d}.parquet"
            for part in range(len(self.parts(wildcards.unlabeled)))
        ]

    def extract_features(self, wildcards: Wildcards) -> str:
        return settings.ExtractFeatures().canonical()

    def find_duplicates(self, wildcards: Wildcards) -> str:
        assert self.config.duplicates is not None
        distance = self.config.duplicates.record_distance
        return settings.FindDuplicates(record_distance=distance).canonical()

    def merge_duplicates(self, wildcards: Wildcards) -> str:
        return settings.MergeDuplicates(num_parts=self._num_parts(wildcards)).canonical()

    def find_copies(self, wildcards: Wildcards) -> str:
        return settings.FindCopies(num_parts=self._num_parts(wildcards)).canonical()

    def _num_parts(self, wildcards: Wildcards) -> int:
        return len(self.parts(wildcards.unlabeled))

    # --- scores and selections ------------------------------------------------------------

    def teacher_weights(self, wildcards: Wildcards) -> str:
        return self.weights(wildcards.teacher)

    def stored_classes(self, teacher: str) -> int:
        return stored_classes(self.config, teacher)

    def _teacher_classes(self, teacher: str) -> list[str]:
        return self.stage_classes(teacher, self.stages(teacher)[-1])

    def tags(self, selection: str) -> list[int]:
        """For each label of the selection's U the class of its teacher with this name; -1: none."""
        chosen = self.config.selections[selection]
        names = datasets.dataset_classes(self.config.datasets[chosen.unlabeled])
        theirs = {name: i for i, name in enumerate(self._teacher_classes(chosen.teacher))}
        return [theirs.get(name, -1) for name in names]

    def score_shards(self, wildcards: Wildcards) -> str:
        return settings.ScoreShards(
            classes_per_image=self.stored_classes(wildcards.teacher),
            batch_size=self.config.score.batch_size,
            precision=self.config.score.precision,
        ).canonical()

    def scores_parts(self, wildcards: Wildcards) -> list[str]:
        return self._score_tables(wildcards.teacher, wildcards.unlabeled, "part")

    def images_parts(self, wildcards: Wildcards) -> list[str]:
        return self._score_tables(wildcards.teacher, wildcards.unlabeled, "images")

    def count_images(self, wildcards: Wildcards) -> str:
        return settings.CountImages(
            num_parts=self._num_parts(wildcards),
            num_classes=len(self._teacher_classes(wildcards.teacher)),
            classes_per_image=self.stored_classes(wildcards.teacher),
            max_failure_rate=self.config.datasets[wildcards.unlabeled].max_failure_rate,
        ).canonical()

    def _selection(self, wildcards: Wildcards) -> Selection:
        return self.config.selections[wildcards.selection]

    def _score_tables(self, teacher: str, unlabeled: str, table: str) -> list[str]:
        folder = f"{self.results}/scores/{teacher}/{unlabeled}"
        parts = range(len(self.parts(unlabeled)))
        return [f"{folder}/{table}-{part:05d}.parquet" for part in parts]

    def selection_scores(self, wildcards: Wildcards) -> list[str]:
        selection = self._selection(wildcards)
        return self._score_tables(selection.teacher, selection.unlabeled, "part")

    def selection_counts(self, wildcards: Wildcards) -> str:
        selection = self._selection(wildcards)
        return f"{self.results}/scores/{selection.teacher}/{selection.unlabeled}/images.json"

    def selection_failures(self, wildcards: Wildcards) -> str:
        return self.selection_counts(wildcards).replace("images.json", "failures.parquet")

    def selection_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(self._selection(wildcards).unlabeled)

    def selection_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(self._selection(wildcards).unlabeled)

    def selection_classes(self, wildcards: Wildcards) -> str:
        """The class names of the teacher."""
        return self.weights(self._selection(wildcards).teacher).replace("weights.pt", "classes.txt")

    def selection_pairs(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{self._selection(wildcards).unlabeled}"
        return [f"{folder}/pairs.parquet"] if self.config.duplicates else []

    def selection_copies(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{self._selection(wildcards).unlabeled}"
        return [f"{folder}/copies.parquet"] if self.config.duplicates else []

    def reviewed(self, wildcards: Wildcards) -> list[str]:
        duplicates = self.config.duplicates
        return [duplicates.remove.reviewed] if duplicates and duplicates.remove.reviewed else []

    def select(self, wildcards: Wildcards) -> str:
        selection, duplicates = self._selection(wildcards), self.config.duplicates
        return settings.Select(
            num_parts=len(self.parts(selection.unlabeled)),
            variant=selection.variant,
            rank_by=selection.rank_by,
            tags=self.tags(wildcards.selection) if selection.variant == "random" else None,
            images_per_class=selection.images_per_class,
            classes_per_image=selection.classes_per_image or self.stored_classes(selection.teacher),
            stored_classes=self.stored_classes(selection.teacher),
            min_score=selection.min_score,
            fraction=selection.fraction,
            # Of what is not drawn, every seed selects the same.
            seed=self.config.seed if selection.fraction < 1 or selection.variant == "random" else 0,
            remove=duplicates.remove if duplicates else None,
        ).canonical()

    def packed_parts(self, name: str) -> list[range]:
        """The shards of each part of a packed selection, if every class were full."""
        selection, pack = self.config.selections[name], self.config.pack
        most = selection.images_per_class * len(self._teacher_classes(selection.teacher))
        num_shards = -(-most // pack.samples_per_shard)
        per_part = max(pack.shards_per_part, -(-num_shards // MAX_PACKED_PARTS))
        return datasets.list_parts(num_shards, per_part)

    def pack_selection(self, wildcards: Wildcards) -> str:
        parts, part = self.packed_parts(wildcards.selection), int(wildcards.part)
        return settings.PackSelection(
            part=part,
            num_parts=len(parts),
            first_shard=parts[part].start,
            num_shards=len(parts[part]),
            samples_per_shard=self.config.pack.samples_per_shard,
            max_pixels=self.config.datasets[self._selection(wildcards).unlabeled].max_pixels,
            seed=self.config.seed,
        ).canonical()

    # --- results --------------------------------------------------------------------------

    def evaluation_manifests(self, wildcards: Wildcards) -> list[str]:
        return [path for name in self.config.evaluate.on for path in self.manifests(name)]

    def evaluation_samples(self, wildcards: Wildcards) -> list[str]:
        return [path for name in self.config.evaluate.on for path in self.samples(name)]

    def evaluate(self, wildcards: Wildcards) -> str:
        return settings.Evaluate(
            model=wildcards.model,
            stage=wildcards.stage,
            datasets=self.config.evaluate.on,
            batch_size=self.config.evaluate.batch_size,
        ).canonical()

    def evaluated_stages(self) -> list[tuple[str, str]]:
        """Every stage of every model that predicts the classes of the evaluation datasets."""
        classes = datasets.dataset_classes(self.config.datasets[self.config.evaluate.on[0]])
        return [
            (name, stage)
            for name in self.config.models
            for stage in self.stages(name)
            if self.stage_classes(name, stage) == classes
        ]

    def stage_classes(self, name: str, stage: str) -> list[str]:
        """Class names a model predicts after a stage."""
        return stage_classes(self.config, name, stage)

    def report_inputs(self) -> dict[str, list[str]]:
        """Every table the report reads."""
        base, config = self.results, self.config
        scored = sorted({(s.teacher, s.unlabeled) for s in config.selections.values()})
        trained = [(m, s) for m in config.models for s in trainings(config.models[m])]
        return {
            "manifests": [path for name in self.labelled() for path in self.manifests(name)],
            "images": [f"{base}/scores/{t}/{u}/images.json" for t, u in scored],
            "pairs": [
                f"{base}/duplicates/{name}/pairs.parquet"
                for name in sorted(self.unlabeled)
                if config.duplicates
            ],
            "selections": [f"{base}/selections/{name}/summary.json" for name in config.selections],
            "packed": [path for name in config.selections for path in self.manifests(name)],
            "metrics": [f"{base}/models/{m}/{s}/metrics.parquet" for m, s in trained],
            "sweeps": [
                f"{base}/models/{name}/finetune/sweep.parquet"
                for name, model in config.models.items()
                if sweep_of(model)
            ],
            "evaluations": [
                f"{base}/evaluations/{m}/{s}.parquet" for m, s in self.evaluated_stages()
            ],
        }

    def labelled(self) -> list[str]:
        """The datasets that train, choose or measure a model."""
        models = self.config.models.values()
        used = {t.on for model in models for t in trainings(model).values()}
        used |= {sweep.choose_on for model in models if (sweep := sweep_of(model))}
        return sorted({*self.config.evaluate.on, *(used & self.config.datasets.keys())})

    def report_config(self) -> dict[str, Any]:
        """The configuration, but for what changes no result."""
        return self.config.model_dump(mode="json", exclude_unset=True, exclude={"wandb"})

    def report(self, wildcards: Wildcards) -> str:
        return settings.Report(config=self.report_config()).canonical()

"""The wiring of the trainings: what each stage of a model reads, starts from and makes."""

from typing import Any

from semisup import settings
from semisup.config import TORCHVISION, Model, Recipe
from semisup.network_checks import asked_by_weights
from semisup.plan.datasets import Datasets, Wildcards
from semisup.stages import (
    candidate_name,
    shape,
    source_classes,
    stage_classes,
    stage_names,
    sweep_of,
    trainings,
)


class Models(Datasets):
    """And for its models."""

    def stages(self, name: str) -> list[str]:
        return stage_names(self.config.models[name])

    def stage_classes(self, name: str, stage: str) -> list[str]:
        """Class names a model predicts after a stage."""
        return stage_classes(self.config, name, stage)

    def weights(self, name: str, stage: str | None = None) -> str:
        """Weights of a model after a stage; by default its last."""
        return f"{self.results}/models/{name}/{stage or self.stages(name)[-1]}/weights.pt"

    def training_data(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(self._training_source(wildcards))

    def training_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(self._training_source(wildcards))

    def training_tars(self, wildcards: Wildcards) -> list[str]:
        return self.made_tars(self._training_source(wildcards))

    def _training_source(self, wildcards: Wildcards) -> str:
        return trainings(self.config.models[wildcards.model])[wildcards.stage].on

    def _trained_on(self) -> set[str]:
        sources = {t.on for m in self.config.models.values() for t in trainings(m).values()}
        return sources & self.config.datasets.keys()

    def initial_weights(self, wildcards: Wildcards) -> list[str]:
        """The weights a stage starts from: the stage before, or another model; at most one."""
        stages = self.stages(wildcards.model)
        before = stages.index(wildcards.stage) - 1
        init = self.config.models[wildcards.model].init
        if before >= 0:
            return [self.weights(wildcards.model, stages[before])]
        return [self.weights(init)] if init else []

    def _preprocessing(self, model: Model) -> settings.Preprocessing:
        """What the configuration says, or else what torchvision's weights were trained with."""
        asked = asked_by_weights(model)
        crop, resize = asked.get("crop_size", 224), asked.get("resize_size", 256)
        return settings.Preprocessing(
            image_size=model.image_size,
            resize=model.resize or round(model.image_size * resize / crop),
            interpolation=model.interpolation or asked.get("interpolation", "bilinear"),
        )

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
            preprocessing=self._preprocessing(model),
            classes=source_classes(self.config, self._training_source(wildcards)),
            recipe=self.recipe(name, stage).model_copy(update=changes),
            seed=self.config.seed,
            may_diverge=bool(changes),
        ).canonical()

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

    def choosing_tars(self, wildcards: Wildcards) -> list[str]:
        return self.made_tars(self._choose_on(wildcards))

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

    def weights_file(self, wildcards: Wildcards) -> list[str]:
        weights = self.config.models[wildcards.model].weights or ""
        return [] if weights.startswith(TORCHVISION) else [weights]

    def import_weights(self, wildcards: Wildcards) -> str:
        model = self.config.models[wildcards.model]
        assert model.weights is not None and model.arch is not None
        return settings.ImportWeights(
            arch=model.arch,
            preprocessing=self._preprocessing(model),
            weights=model.weights,
            classes=stage_classes(self.config, wildcards.model, "imported"),
        ).canonical()

"""The wiring of what comes out: evaluations and the report."""

from typing import Any

from semisup import datasets, settings
from semisup.plan.datasets import Wildcards
from semisup.plan.selections import Selections
from semisup.stages import sweep_of, trainings


class Plan(Selections):
    """All that follows from a checked configuration: what the rule files name."""

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

    def report_inputs(self) -> dict[str, list[str]]:
        """Every table the report reads."""
        base, config = self.results, self.config
        scored = sorted({(s.teacher, s.unlabeled) for s in config.selections.values()})
        trained = [(m, s) for m in config.models for s in trainings(config.models[m])]
        return {
            "manifests": [path for name in self.labelled() for path in self.manifests(name)],
            "images": [f"{base}/scores/{t}/{u}/images.json" for t, u in scored],
            "pairs": [
                self.merged_pairs(name) for name in sorted(self.unlabeled) if config.duplicates
            ],
            "calibration": [f"{base}/duplicates/calibration.parquet"] if config.duplicates else [],
            "leaks": [f"{base}/duplicates/leaks.json"] if config.duplicates else [],
            "reviews": [
                f"{base}/duplicates/{name}/review.html"
                for name in sorted(self.unlabeled)
                if config.duplicates
            ],
            # A decision may change no selection, and still what the report says of them all.
            "reviewed": self.reviewed(),
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

    def all_tars(self) -> list[str]:
        return [path for name in self.config.datasets for path in self.made_tars(name)]

    def labelled(self) -> list[str]:
        """The datasets that train, choose or measure a model."""
        models = self.config.models.values()
        choosing = {sweep.choose_on for model in models if (sweep := sweep_of(model))}
        return sorted({*self.config.evaluate.on, *self._trained_on(), *choosing})

    def report_config(self) -> dict[str, Any]:
        """The configuration, but for what changes no result."""
        return self.config.model_dump(mode="json", exclude_unset=True, exclude={"wandb"})

    def report(self, wildcards: Wildcards) -> str:
        return settings.Report(config=self.report_config()).canonical()

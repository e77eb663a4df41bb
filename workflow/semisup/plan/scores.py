"""The wiring of the scores: a teacher, and U part by part."""

from semisup import settings
from semisup.plan.datasets import Wildcards
from semisup.plan.models import Models


class Scores(Models):
    """And for the scores of its teachers."""

    def teacher_weights(self, wildcards: Wildcards) -> str:
        return self.weights(wildcards.teacher)

    def _teacher_classes(self, teacher: str) -> list[str]:
        return self.stage_classes(teacher, self.stages(teacher)[-1])

    def unlabeled_manifests(self, wildcards: Wildcards) -> list[str]:
        return self.manifests(wildcards.unlabeled)

    def unlabeled_samples(self, wildcards: Wildcards) -> list[str]:
        return self.samples(wildcards.unlabeled)

    def unlabeled_tars(self, wildcards: Wildcards) -> list[str]:
        return self.made_tars(wildcards.unlabeled)

    def _num_parts(self, wildcards: Wildcards) -> int:
        return len(self.parts(wildcards.unlabeled))

    def score_shards(self, wildcards: Wildcards) -> str:
        return self._score(wildcards.teacher).canonical()

    def _score(self, teacher: str) -> settings.ScoreShards:
        return settings.ScoreShards(
            classes_per_image=self.stored_classes(teacher),
            batch_size=self.config.score.batch_size,
            precision=self.config.score.precision,
        )

    def _score_tables(self, teacher: str, unlabeled: str, table: str) -> list[str]:
        folder = f"{self.results}/scores/{teacher}/{unlabeled}"
        parts = range(len(self.parts(unlabeled)))
        return [f"{folder}/{table}-{part:05d}.parquet" for part in parts]

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

"""The wiring of the duplicates: features, pairs, copies, what is near within U, and leaks."""

from semisup import datasets, settings
from semisup.config import WithinUnlabeled
from semisup.plan.datasets import Wildcards
from semisup.plan.scores import Scores

MAX_CELL_GROUPS = 256


class Duplicates(Scores):
    """And for duplicates."""

    def descriptor(self) -> str:
        return self.config.duplicates.descriptor if self.config.duplicates else ""

    def descriptor_weights(self, wildcards: Wildcards) -> str:
        return self.weights(self.descriptor())

    @property
    def read_with(self) -> str:
        """The teacher in whose pass features are made; nothing where they have their own."""
        duplicates = self.config.duplicates
        return (duplicates.read_with if duplicates else None) or ""

    @property
    def scores_read_with(self) -> str:
        return f"{self.results}/scores/{self.read_with or 'none'}"

    def read_once(self, once: bool) -> str:
        """A pattern of the datasets whose features are, or are not, made in a teacher's pass."""
        scored = {
            s.unlabeled for s in self.config.selections.values() if s.teacher == self.read_with
        }
        return "|".join(n for n in self.config.datasets if (n in scored) == once) or "$^"

    def other_teachers(self) -> str:
        """A pattern of the teachers that only score."""
        return "|".join(name for name in self.config.models if name != self.read_with) or "$^"

    def read_with_weights(self, wildcards: Wildcards) -> str:
        return self.weights(self.read_with)

    @property
    def features(self) -> str:
        return f"{self.results}/features/{self.descriptor() or 'none'}"

    def feature_tables(self, name: str, table: str) -> list[str]:
        """``table``: part, the features, or images, the fingerprints; of all parts of a dataset."""
        folder = f"{self.features}/{name}"
        return [f"{folder}/{table}-{part:05d}.parquet" for part in range(len(self.parts(name)))]

    def _evaluation_sets(self) -> dict[str, int]:
        return {name: len(self.parts(name)) for name in sorted(self.config.evaluate.on)}

    def evaluation_tables(self, table: str) -> list[str]:
        """The feature tables of all parts of all evaluation sets, sets by name."""
        return [
            path for name in self._evaluation_sets() for path in self.feature_tables(name, table)
        ]

    def first_evaluation_tables(self, table: str) -> list[str]:
        """Of each evaluation set the table of its first part."""
        return [self.feature_tables(name, table)[0] for name in self._evaluation_sets()]

    def evaluation_manifests(self, wildcards: Wildcards) -> list[str]:
        return [path for name in self.config.evaluate.on for path in self.manifests(name)]

    def first_evaluation_manifests(self) -> list[str]:
        return [self.manifests(name)[0] for name in self._evaluation_sets()]

    def evaluation_samples(self, wildcards: Wildcards) -> list[str]:
        return [path for name in self.config.evaluate.on for path in self.samples(name)]

    def evaluation_tars(self, wildcards: Wildcards) -> list[str]:
        return [path for name in self.config.evaluate.on for path in self.made_tars(name)]

    def fingerprints(self, wildcards: Wildcards) -> list[str]:
        return self.feature_tables(wildcards.dataset, "images")

    def duplicate_tables(self, name: str, table: str) -> list[str]:
        """``table``: part, the closest pairs, or nearest; of all parts of a dataset."""
        folder = f"{self.results}/duplicates/{name}"
        return [f"{folder}/{table}-{part:05d}.parquet" for part in range(len(self.parts(name)))]

    def duplicate_parts(self, wildcards: Wildcards) -> list[str]:
        return self.duplicate_tables(wildcards.dataset, "part")

    def merged_pairs(self, name: str) -> str:
        return f"{self.results}/duplicates/{name}/pairs.parquet"

    def _describe(self) -> settings.ExtractFeatures:
        assert self.config.duplicates is not None
        return settings.ExtractFeatures(
            batch_size=self.config.score.batch_size, precision=self.config.duplicates.precision
        )

    def extract_features(self, wildcards: Wildcards) -> str:
        return self._describe().canonical()

    def score_and_describe(self, wildcards: Wildcards) -> str:
        score = self._score(self.read_with)
        return settings.ScoreAndDescribe(score=score, describe=self._describe()).canonical()

    def find_duplicates(self, wildcards: Wildcards) -> str:
        duplicates = self.config.duplicates
        assert duplicates is not None
        return settings.FindDuplicates(
            record_distance=duplicates.record_distance,
            max_pairs=duplicates.max_pairs,
            evaluation=self._evaluation_sets(),
        ).canonical()

    def merge_duplicates(self, wildcards: Wildcards) -> str:
        assert self.config.duplicates is not None
        return settings.MergeDuplicates(
            num_parts=len(self.parts(wildcards.dataset)), max_pairs=self.config.duplicates.max_pairs
        ).canonical()

    def find_copies(self, wildcards: Wildcards) -> str:
        return settings.FindCopies(
            num_parts=len(self.parts(wildcards.dataset)), evaluation=self._evaluation_sets()
        ).canonical()

    def make_review_page(self, wildcards: Wildcards) -> str:
        assert self.config.duplicates is not None
        classes = datasets.dataset_classes(self.config.datasets[self.config.evaluate.on[0]])
        own = classes
        if self.has_labels(wildcards.dataset):
            own = datasets.dataset_classes(self.config.datasets[wildcards.dataset])
        return settings.MakeReviewPage(
            num_pairs=self.config.duplicates.review_pairs,
            num_parts=len(self.parts(wildcards.dataset)),
            evaluation=self._evaluation_sets(),
            classes=classes,
            own_classes=None if own == classes else own,
        ).canonical()

    def calibrate_duplicates(self, wildcards: Wildcards) -> str:
        assert self.config.duplicates is not None
        return settings.CalibrateDuplicates(
            num_images=self.config.duplicates.calibration_images,
            seed=self.config.seed,
            precision=self.config.duplicates.precision,
            evaluation=self._evaluation_sets(),
        ).canonical()

    def compared(self) -> list[str]:
        """The datasets in which near-duplicates of evaluation images are looked for: all U, all D."""
        return sorted(self.unlabeled | self._trained_on())

    def compared_pairs(self) -> list[str]:
        return [self.merged_pairs(name) for name in self.compared()]

    def compared_images(self) -> list[str]:
        return [path for name in self.compared() for path in self.feature_tables(name, "images")]

    def compared_nearest(self) -> list[str]:
        return [
            p for name in sorted(self.unlabeled) for p in self.duplicate_tables(name, "nearest")
        ]

    def compared_copies(self) -> list[str]:
        return [
            f"{self.results}/duplicates/{name}/copies.parquet" for name in sorted(self.unlabeled)
        ]

    def compared_selections(self) -> list[str]:
        """The selections, by the summaries that change when they do."""
        return [f"{self.results}/selections/{name}/summary.json" for name in self.config.selections]

    def measure_leaks(self, wildcards: Wildcards) -> str:
        duplicates = self.config.duplicates
        assert duplicates is not None
        named = {*self.compared(), *self.config.evaluate.on}
        return settings.MeasureLeaks(
            descriptor=self.descriptor(),
            leak_distance=duplicates.leak_distance,
            record_distance=duplicates.record_distance,
            max_pairs=duplicates.max_pairs,
            remove=duplicates.remove,
            evaluation=sorted(self.config.evaluate.on),
            labelled=sorted(self._trained_on()),
            unlabeled=sorted(self.unlabeled),
            selections={name: s.unlabeled for name, s in self.config.selections.items()},
            num_parts={name: len(self.parts(name)) for name in sorted(named)},
        ).canonical()

    @property
    def _within(self) -> WithinUnlabeled | None:
        return self.config.duplicates.within_unlabeled if self.config.duplicates else None

    @property
    def _num_groups(self) -> int:
        return min(self._within.cells, MAX_CELL_GROUPS) if self._within else 1

    def dataset_features(self, wildcards: Wildcards) -> list[str]:
        return self.feature_tables(wildcards.dataset, "part")

    def sorted_parts(self, wildcards: Wildcards) -> list[str]:
        return self.duplicate_tables(wildcards.dataset, "cells")

    def near_copies_groups(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{wildcards.dataset}"
        return [f"{folder}/near_copies-{group:05d}.parquet" for group in range(self._num_groups)]

    def train_cells(self, wildcards: Wildcards) -> str:
        assert self._within is not None
        return settings.TrainCells(
            num_parts=len(self.parts(wildcards.dataset)),
            num_cells=self._within.cells,
            seed=self.config.seed,
        ).canonical()

    def sort_into_cells(self, wildcards: Wildcards) -> str:
        return settings.SortIntoCells(num_groups=self._num_groups).canonical()

    def find_near_copies(self, wildcards: Wildcards) -> str:
        assert self._within is not None
        return settings.FindNearCopies(
            num_parts=len(self.parts(wildcards.dataset)),
            group=int(wildcards.part),
            max_distance=self._within.max_distance,
        ).canonical()

    def merge_near_copies(self, wildcards: Wildcards) -> str:
        return settings.MergeNearCopies(num_groups=self._num_groups).canonical()

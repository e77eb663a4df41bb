"""The wiring of the selections: what they are chosen from, and how they are packed."""

from semisup import datasets, settings
from semisup.config import Selection
from semisup.plan.datasets import Wildcards
from semisup.plan.duplicates import Duplicates


class Selections(Duplicates):
    """And for its selections."""

    def _selection(self, wildcards: Wildcards) -> Selection:
        return self.config.selections[wildcards.selection]

    def tags(self, selection: str) -> list[int]:
        """For each label of the selection's U the class of its teacher with this name; -1: none."""
        chosen = self.config.selections[selection]
        names = datasets.dataset_classes(self.config.datasets[chosen.unlabeled])
        theirs = {name: i for i, name in enumerate(self._teacher_classes(chosen.teacher))}
        return [theirs.get(name, -1) for name in names]

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

    def selection_tars(self, wildcards: Wildcards) -> list[str]:
        return self.made_tars(self._selection(wildcards).unlabeled)

    def selection_classes(self, wildcards: Wildcards) -> str:
        """The class names of the teacher."""
        return self.weights(self._selection(wildcards).teacher).replace("weights.pt", "classes.txt")

    def selection_nearest(self, wildcards: Wildcards) -> list[str]:
        if not self.config.duplicates:
            return []
        return self.duplicate_tables(self._selection(wildcards).unlabeled, "nearest")

    def first_selection_nearest(self, wildcards: Wildcards) -> list[str]:
        return self.selection_nearest(wildcards)[:1]

    def selection_pairs(self, wildcards: Wildcards) -> list[str]:
        unlabeled = self._selection(wildcards).unlabeled
        return [self.merged_pairs(unlabeled)] if self.config.duplicates else []

    def selection_near_copies(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{self._selection(wildcards).unlabeled}"
        return [f"{folder}/near_copies.parquet"] if self._within else []

    def selection_copies(self, wildcards: Wildcards) -> list[str]:
        folder = f"{self.results}/duplicates/{self._selection(wildcards).unlabeled}"
        return [f"{folder}/copies.parquet"] if self.config.duplicates else []

    def reviewed(self, wildcards: Wildcards | None = None) -> list[str]:
        duplicates = self.config.duplicates
        return [duplicates.remove.reviewed] if duplicates and duplicates.remove.reviewed else []

    def reviewed_manifests(self, wildcards: Wildcards) -> list[str]:
        """Of the evaluation sets a review is about."""
        return self.evaluation_manifests(wildcards) if self.reviewed() else []

    def reviewed_samples(self, wildcards: Wildcards) -> list[str]:
        return self.evaluation_samples(wildcards) if self.reviewed() else []

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

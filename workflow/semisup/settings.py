"""What each step computes, as one typed value: exactly the configuration its result depends on.

A rule hands it over as canonical JSON in its only parameter, so that Snakemake re-runs a job when,
and only when, one of these values changes. How and where a step runs (workers, nodes, paths) is
never in here. Raise a ``version`` when the step's results change for the same input.
"""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from semisup.config import Recipe, Remove
from semisup.tables import DataError

MAX_BYTES = 110_000
"""Longest settings: with all else a command must stay below the 128 KiB of one argument."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical(self) -> str:
        """JSON with sorted keys: equal settings are equal text. Raises DataError where it is too long."""
        values = self.model_dump(mode="json")
        text = json.dumps(values, sort_keys=True)
        if len(text) > MAX_BYTES:
            longest = max(values, key=lambda name: len(json.dumps(values[name])))
            raise DataError(
                f"{type(self).__name__}: settings of {len(text):,} bytes do not fit into a command "
                f"({MAX_BYTES:,}), most of them {longest}. Shorten its entries, or take fewer: "
                "fewer shards_per_part, or the number of the classes instead of their names."
            )
        return text


class Preprocessing(BaseModel):
    """How an image becomes what a network sees: side of the square and, before the central crop, the
    shorter side, pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size: int
    resize: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


def _count(classes: list[str]) -> list[str] | int:
    """How many there are, where their names are their numbers."""
    return len(classes) if classes == [str(i) for i in range(len(classes))] else classes


def _name(classes: object) -> object:
    return [str(i) for i in range(classes)] if isinstance(classes, int) else classes


Classes = Annotated[list[str], BeforeValidator(_name), PlainSerializer(_count)]
"""Names of classes; just their number where they have no others: 20,000 would fill a command."""


class MakeDigits(Settings):
    version: Literal[1] = 1
    seed: int


class MakeCifar10(Settings):
    version: Literal[1] = 1
    seed: int
    num_labels: int


class PackFolder(Settings):
    version: Literal[1] = 1
    folder: str
    classes: list[str] | None
    num_shards: int
    stamp: str


class IndexShards(Settings):
    """``stamp`` changes when a tar may have changed; contents are then hashed again.

    ``max_pixels`` goes into the manifest, from which later stages know it.
    """

    version: Literal[3] = 3
    dataset: str
    part: int
    first_shard: int
    shards: list[str]
    num_classes: int | None
    max_pixels: int
    stamp: str


class ImportWeights(Settings):
    version: Literal[2] = 2
    arch: str
    preprocessing: Preprocessing
    weights: str
    classes: Classes


class Train(Settings):
    """``recipe.images`` is the budget in force, also for a budget-matched baseline. ``may_diverge``:
    one of a sweep, whose rate may be too high; it then keeps the weights it began with."""

    version: Literal[7] = 7
    arch: str
    preprocessing: Preprocessing
    classes: Classes
    recipe: Recipe
    seed: int
    may_diverge: bool = False


class ChooseCandidate(Settings):
    version: Literal[2] = 2
    base_lr: list[float]


class ExtractFeatures(Settings):
    version: Literal[2] = 2
    batch_size: int
    precision: str


class FindDuplicates(Settings):
    """``evaluation``: the number of parts of each evaluation set."""

    version: Literal[2] = 2
    record_distance: float
    max_pairs: int
    evaluation: dict[str, int]


class MergeDuplicates(Settings):
    version: Literal[2] = 2
    num_parts: int
    max_pairs: int


class FindCopies(Settings):
    version: Literal[3] = 3
    num_parts: int
    evaluation: dict[str, int]


class MakeReviewPage(Settings):
    """``classes``: of the evaluation sets; ``own_classes``: of U, where it has others."""

    version: Literal[4] = 4
    num_pairs: int
    num_parts: int
    evaluation: dict[str, int]
    classes: Classes
    own_classes: Classes | None


class TrainCells(Settings):
    version: Literal[1] = 1
    num_parts: int
    num_cells: int
    seed: int


class SortIntoCells(Settings):
    version: Literal[1] = 1
    num_groups: int


class FindNearCopies(Settings):
    version: Literal[1] = 1
    num_parts: int
    group: int
    max_distance: float


class MergeNearCopies(Settings):
    version: Literal[1] = 1
    num_groups: int


class CalibrateDuplicates(Settings):
    version: Literal[1] = 1
    num_images: int
    seed: int
    precision: str
    evaluation: dict[str, int]


class MeasureLeaks(Settings):
    """``num_parts``: of every dataset named here. ``selections``: the unlabelled dataset of each.

    ``leak_distance``: None for the largest distance that ``remove`` removes.
    """

    version: Literal[3] = 3
    descriptor: str
    leak_distance: float | None
    record_distance: float
    max_pairs: int
    remove: Remove
    evaluation: list[str]
    labelled: list[str]
    unlabeled: list[str]
    selections: dict[str, str]
    num_parts: dict[str, int]


class ScoreShards(Settings):
    version: Literal[5] = 5
    classes_per_image: int
    batch_size: int
    precision: str


class ScoreAndDescribe(Settings):
    """Both in one pass: nothing but what each would be alone."""

    version: Literal[1] = 1
    score: ScoreShards
    describe: ExtractFeatures


class CountImages(Settings):
    version: Literal[4] = 4
    num_parts: int
    num_classes: int
    classes_per_image: int
    max_failure_rate: float


class Select(Settings):
    """``tags``: for variant random, the class each label of U means, or -1."""

    version: Literal[7] = 7
    num_parts: int
    variant: str
    rank_by: str
    tags: list[int] | None
    images_per_class: int
    classes_per_image: int
    stored_classes: int
    min_score: float
    fraction: float
    seed: int
    remove: Remove | None


class PackSelection(Settings):
    """One part: ``num_shards`` shards of the shuffled selection from ``first_shard``, or fewer."""

    version: Literal[3] = 3
    part: int
    num_parts: int
    first_shard: int
    num_shards: int
    samples_per_shard: int
    max_pixels: int
    seed: int


class Evaluate(Settings):
    version: Literal[4] = 4
    model: str
    stage: str
    datasets: list[str]
    batch_size: int


class Report(Settings):
    """The whole configuration: the report shows it."""

    version: Literal[5] = 5
    config: dict[str, object]

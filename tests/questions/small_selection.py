"""A selection to ask about, made by the steps from scores written by hand, in the folder at hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import yaml

from semisup import schemas, settings, tables, tars
from semisup.checks import load_config
from semisup.plan import Plan, Wildcards
from semisup.scores import write_scores
from semisup.selection import Ranked
from semisup.steps import count_images, index_shards, select
from small import make_jpeg

CLASSES = ["ant", "bee", "cow"]
NUM_IMAGES = 6
CONFIG: dict[str, Any] = {
    "datasets": {
        "labeled": {"shards": "labeled.tar", "classes": CLASSES},
        "test": {"shards": "test.tar", "classes": CLASSES},
        "unlabeled": {
            "shards": "u-{0..1}.tar", "shards_per_part": 1, "labels": True, "classes": CLASSES,
        },
    },
    "models": {
        "teacher": {
            "arch": "cifar_resnet8_w4",
            "image_size": 32,
            "train": {"on": "labeled", "recipe": "paper_supervised"},
        }
    },
    "selections": {
        "top": {"teacher": "teacher", "unlabeled": "unlabeled", "images_per_class": 3},
    },
    "score": {"classes_per_image": 2},
    "evaluate": {"on": ["test"]},
}  # fmt: skip
"""Two parts of U, each a tar of NUM_IMAGES."""

TOP = cast(Wildcards, SimpleNamespace(selection="top", teacher="teacher", unlabeled="unlabeled"))


def prepare(shift: float = 0.0, remove: dict[str, Any] | None = None, **selection: Any) -> Plan:
    """Tars, configuration, index and scores, ``shift`` added; ``selection``: keys of it.

    ``remove``: of the duplicates, whose tables are for the caller to write.
    """
    for shard in range(2):
        samples = [
            (f"u{shard}-{i}", {"jpg": make_jpeg(10 * shard + i), "cls": b"%d" % (i % 2)})
            for i in range(NUM_IMAGES)
        ]
        tars.write_tar(Path(f"u-{shard}.tar"), samples)
    for name in ("labeled.tar", "test.tar"):
        Path(name).touch()
    config = {**CONFIG, "selections": {"top": CONFIG["selections"]["top"] | selection}}
    if remove is not None:
        config["duplicates"] = {
            "descriptor": "teacher", "record_distance": 1.0, "remove": remove,
            "within_unlabeled": {"max_distance": 0.1, "cells": 1},
        }  # fmt: skip
    Path("config.yaml").write_text(yaml.safe_dump(config))
    plan = Plan(load_config(config))
    for part in range(2):
        index(plan, "unlabeled", part, [f"u-{part}.tar"], first_shard=part)
        write_part(plan, part, shift)
    classes = Path(plan.selection_classes(TOP))
    classes.parent.mkdir(parents=True, exist_ok=True)
    classes.write_text("".join(f"{name}\n" for name in CLASSES))
    return plan


def index(plan: Plan, dataset: str, part: int, shards: list[str], first_shard: int = 0) -> None:
    """Index one part, as if these were its tars."""
    indexed = settings.IndexShards(
        dataset=dataset, part=part, first_shard=first_shard, shards=shards,
        num_classes=3, max_pixels=10_000, stamp="",
    )  # fmt: skip
    index_shards.main(
        indexed, Path(plan.manifests(dataset)[part]), Path(plan.samples(dataset)[part])
    )


def log_odds_of(part: int) -> np.ndarray:
    """Of the two best classes of each image of a part: ant and bee in turn, then cow."""
    best = np.linspace(0.5, 3, NUM_IMAGES, dtype=np.float32) + np.float32(part / 7)
    return np.column_stack([best, best - 4])


def write_part(plan: Plan, part: int, shift: float = 0.0) -> None:
    """Scores of one part."""
    identity = (np.int64(part) << 32) + np.arange(NUM_IMAGES)
    first = np.arange(NUM_IMAGES) % 2
    scores, images = Path(plan.scores_parts(TOP)[part]), Path(plan.images_parts(TOP)[part])
    rows = Ranked(
        np.column_stack([first, np.full(NUM_IMAGES, 2)]).ravel().astype(np.int16),
        (log_odds_of(part) + np.float32(shift)).ravel(),
        np.repeat(identity, 2),
        np.tile(np.array([1, 2], np.int8), NUM_IMAGES),
    )
    write_scores(scores, rows)
    columns = {
        "shard_id": [part] * NUM_IMAGES,
        "sample_index": range(NUM_IMAGES),
        "logsumexp": np.arange(NUM_IMAGES, 0, -1, dtype=np.float32),
        "status": ["ok"] * NUM_IMAGES,
        "reason": [""] * NUM_IMAGES,
    }
    tables.write_table(images, columns, schemas.IMAGES)


def make_selection(plan: Plan) -> Path:
    """The folder of the selection; duplicates as far as their tables are there."""
    counts, failures = Path(plan.selection_counts(TOP)), Path(plan.selection_failures(TOP))
    count_images.main(
        settings.CountImages.model_validate_json(plan.count_images(TOP)),
        Path(plan.scores_parts(TOP)[0]),
        Path(plan.images_parts(TOP)[0]),
        Path(plan.manifests("unlabeled")[0]),
        counts,
        failures,
    )
    folder = Path(plan.results) / "selections" / "top"
    tables_of_duplicates = (
        [Path(path) for path in paths]
        for paths in (
            plan.first_selection_nearest(TOP),
            plan.selection_pairs(TOP),
            plan.selection_copies(TOP),
            plan.selection_near_copies(TOP),
            plan.reviewed(TOP),
        )
    )
    names = ("selection.parquet", "removed.parquet", "summary.json", "settings.json")
    select.main(
        settings.Select.model_validate_json(plan.select(TOP)),
        Path(plan.scores_parts(TOP)[0]),
        Path(plan.manifests("unlabeled")[0]),
        counts,
        failures,
        Path(plan.selection_classes(TOP)),
        *tables_of_duplicates,
        [],
        *(folder / name for name in names),
        1,
    )
    return folder

"""Make the page on which a person reviews the closest pairs."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from semisup import schemas, settings, tables
from semisup.report.gallery import Picture, read_pictures
from semisup.review.page import render
from semisup.samples import parts_of, read_samples
from semisup.steps import run

log = logging.getLogger("semisup")

EVALUATION = "evaluation_"


def main(
    settings: settings.MakeReviewPage,
    pairs: Path,
    first_manifest: Path,
    evaluation_manifests: list[Path],
    page: Path,
) -> None:
    """``evaluation_manifests``: the first part of each set, sets by name."""
    with tables.open_table(pairs, schemas.DUPLICATES) as file:
        blocks = file.iter_batches(settings.num_pairs)
        closest = next(blocks, None)
    rows: list[dict[str, Any]] = closest.to_pylist() if closest else []
    unlabeled = tables.read_json(first_manifest)["dataset"]
    manifests = {unlabeled: tables.part_paths(first_manifest, settings.num_parts)}
    for name, first in zip(sorted(settings.evaluation), evaluation_manifests, strict=True):
        manifests[name] = tables.part_paths(first, settings.evaluation[name])
    classes = dict.fromkeys(manifests, settings.classes)
    if settings.own_classes is not None:
        classes[unlabeled] = settings.own_classes
    shown = Shown(manifests, classes)
    for name in manifests:
        own = [row for row in rows if name in (unlabeled, row["evaluation_dataset"])]
        shown.read(name, {_identity(row, "" if name == unlabeled else EVALUATION) for row in own})
    rendered = []
    for row in rows:
        ours = unlabeled, _identity(row, "")
        theirs = row["evaluation_dataset"], _identity(row, EVALUATION)
        row["distance"] = round(row["distance"], 6)
        row |= {"class": shown.classes[ours], "evaluation_class": shown.classes[theirs]}
        row |= {"dataset": unlabeled, "content_hash": shown.hashes[ours]}
        rendered.append(row | {"pictures": [shown.places[ours], shown.places[theirs]]})
    title = f"Closest pairs of {unlabeled} and {' and '.join(sorted(settings.evaluation))}"
    sources = [picture.src for picture in shown.pictures]
    problems = [picture.problem for picture in shown.pictures]
    tables.write_bytes(page, render(title, rendered, sources, problems).encode())
    log.info("%d pairs, %d pictures", len(rendered), len(sources))


class Shown:
    """The pictures of the page, where each image has its own, their classes and content hashes."""

    def __init__(self, manifests: dict[str, list[Path]], classes: dict[str, list[str]]) -> None:
        self.manifests, self.class_names = manifests, classes
        self.pictures: list[Picture] = []
        self.places: dict[tuple[str, int], int] = {}
        self.classes: dict[tuple[str, int], str] = {}
        self.hashes: dict[tuple[str, int], str] = {}

    def read(self, dataset: str, identities: set[int]) -> None:
        found = read_pictures(self.manifests[dataset], identities)
        for identity, picture in found.items():
            self.places[dataset, identity] = len(self.pictures)
            self.pictures.append(picture)
            self.classes[dataset, identity] = ""
        names = self.class_names.get(dataset, [])
        wanted = np.array(sorted(identities), np.int64)
        for manifest, here in parts_of(self.manifests[dataset], wanted):
            columns = ["shard_id", "sample_index", "label", "content_hash"]
            table = read_samples([manifest], columns).table
            rows = np.searchsorted(tables.identity(table), wanted[here])
            for row in table.take(rows).to_pylist():
                identity, label = _identity(row, ""), row["label"]
                self.hashes[dataset, identity] = row["content_hash"].hex()
                if label is not None and 0 <= label < len(names):
                    self.classes[dataset, identity] = names[label]


def _identity(row: dict[str, Any], prefix: str) -> int:
    return int(row[f"{prefix}shard_id"]) << 32 | int(row[f"{prefix}sample_index"])


if __name__ == "__main__":
    run(main)

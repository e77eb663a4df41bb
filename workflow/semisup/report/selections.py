"""What a selection holds: numbers by class, pictures of the best and the last, precision."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from semisup import plots, schemas, tables
from semisup.changes import ClassChanges, read_changes
from semisup.ledger import ClassSummary, Summary
from semisup.plan import Plan
from semisup.report import precision
from semisup.report.gallery import Picture, read_pictures
from semisup.report.precision import Precision

MAX_CLASSES = 20
NUM_BEST = 8
NUM_LAST = 4


class Chosen(NamedTuple):
    """The rows of a selection, as numbers only: 18 bytes each."""

    class_ids: np.ndarray
    class_ranks: np.ndarray
    identities: np.ndarray


class Tile(NamedTuple):
    """A selected image; ``score``: None without one. ``truth``: its true class where known, and whether that is right."""

    picture: Picture
    score: float | None
    rank: int
    key: str
    truth: str
    right: bool | None


class ClassTiles(NamedTuple):
    summary: ClassSummary
    best: list[Tile]
    last: list[Tile]


class SelectionView(NamedTuple):
    """``changes``: since another selection was made before; None without one."""

    name: str
    teacher: str
    unlabeled: str
    variant: str
    rank_by: str
    images_per_class: int
    classes_per_image: int
    min_score: float
    summary: Summary
    changes: list[ClassChanges] | None
    sizes: Markup
    cuts: Markup
    tiles: list[ClassTiles]
    precision: Precision | None
    precision_figure: Markup | None

    @property
    def short(self) -> list[ClassSummary]:
        """Classes with fewer images than asked for, the empty ones among them."""
        return [c for c in self.summary["classes"] if c["num_images"] < c["num_wanted"]]


def read_chosen(plan: Plan, name: str) -> Chosen:
    path = Path(f"{plan.results}/selections/{name}/selection.parquet")
    columns = ["class_id", "class_rank", "shard_id", "sample_index"]
    table = tables.read_table(path, schemas.SELECTION, columns)
    return Chosen(
        table["class_id"].to_numpy(), table["class_rank"].to_numpy(), tables.identity(table)
    )


def view_selection(
    plan: Plan, name: str, summary: Summary, chosen: Chosen, max_classes: int
) -> SelectionView:
    selection = plan.config.selections[name]
    labels = read_labels(plan, name, chosen) if plan.has_labels(selection.unlabeled) else None
    measured = None
    if labels is not None:
        measured = precision.measure(chosen.class_ids, chosen.class_ranks, labels)
    return SelectionView(
        name=name,
        teacher=selection.teacher,
        unlabeled=selection.unlabeled,
        variant=selection.variant,
        rank_by=selection.rank_by,
        images_per_class=selection.images_per_class,
        classes_per_image=selection.classes_per_image or plan.stored_classes(selection.teacher),
        min_score=selection.min_score,
        summary=summary,
        changes=read_changes(Path(f"{plan.results}/selections/{name}/selection.parquet")),
        sizes=plots.class_sizes(
            [c["num_images"] for c in summary["classes"]],
            [c["num_wanted"] for c in summary["classes"]],
        ),
        cuts=plots.class_cuts([c["cut_log_odds"] for c in summary["classes"]]),
        tiles=_tiles(plan, name, summary, chosen, labels, max_classes),
        precision=measured,
        precision_figure=_precision_figure(measured) if measured and measured.curve else None,
    )


def _precision_figure(measured: Precision) -> Markup:
    return plots.precision_curve(
        [bucket.last for bucket in measured.curve],
        [bucket.share.value for bucket in measured.curve],
        [bucket.share.interval for bucket in measured.curve],
        [bucket.so_far.value for bucket in measured.curve],
    )


def read_labels(plan: Plan, name: str, chosen: Chosen) -> np.ndarray:
    """The true class of each row as an id of the teacher's classes; -1 is none of them."""
    unlabeled = plan.config.selections[name].unlabeled
    translate = np.array([*plan.tags(name), -1], np.int32)
    labels = np.full(len(chosen.identities), -1, np.int32)
    order = np.argsort(chosen.identities, kind="stable")
    ordered = chosen.identities[order]
    for span, path in zip(plan.parts(unlabeled), plan.samples(unlabeled), strict=True):
        start, stop = np.searchsorted(ordered, np.array([span.start, span.stop]) << 32)
        if start == stop:
            continue
        columns = ["shard_id", "sample_index", "label"]
        table = tables.read_table(Path(path), schemas.SAMPLES, columns)
        rows = np.searchsorted(tables.identity(table), ordered[start:stop])
        found = table["label"].fill_null(-1).to_numpy()[rows]
        labels[order[start:stop]] = translate[found]
    return labels


def shown_classes(summary: Summary, max_classes: int) -> list[ClassSummary]:
    """All classes, or half of them those with the least sure cut, the others evenly spread."""
    filled = [c for c in summary["classes"] if c["num_images"]]
    if len(filled) <= max_classes:
        return filled
    least_sure = sorted(filled, key=lambda c: (c["cut_log_odds"] or 0.0, c["class_id"]))
    shown = {c["class_id"] for c in least_sure[: max_classes // 2]}
    others = [c for c in filled if c["class_id"] not in shown]
    places = np.linspace(0, len(others) - 1, max_classes - len(shown)).round().astype(int)
    shown |= {others[i]["class_id"] for i in places}
    return [c for c in filled if c["class_id"] in shown]


def _tiles(
    plan: Plan,
    name: str,
    summary: Summary,
    chosen: Chosen,
    labels: np.ndarray | None,
    max_classes: int,
) -> list[ClassTiles]:
    spans = []
    for entry in shown_classes(summary, max_classes):
        start, stop = np.searchsorted(chosen.class_ids, [entry["class_id"], entry["class_id"] + 1])
        best = range(start, min(start + NUM_BEST, stop))
        spans.append((entry, best, range(max(best.stop, stop - NUM_LAST), stop)))
    rows = sorted({row for _, best, last in spans for row in (*best, *last)})
    unlabeled = plan.config.selections[name].unlabeled
    pictures = read_pictures(plan.manifests(unlabeled), chosen.identities[rows].tolist())
    path = Path(f"{plan.results}/selections/{name}/selection.parquet")
    details = dict(zip(rows, read_rows(path, rows, ["score", "class_rank", "key"]), strict=True))
    classes = [c["class_name"] for c in summary["classes"]]

    def tile(row: int) -> Tile:
        known = labels is not None
        truth = int(labels[row]) if labels is not None else -1
        return Tile(
            picture=pictures[int(chosen.identities[row])],
            score=details[row]["score"],
            rank=int(details[row]["class_rank"]),
            key=str(details[row]["key"]),
            truth=(classes[truth] if truth >= 0 else "no class") if known else "",
            right=truth == int(chosen.class_ids[row]) if known else None,
        )

    return [
        ClassTiles(c, [tile(r) for r in best], [tile(r) for r in last]) for c, best, last in spans
    ]


def read_rows(path: Path, rows: list[int], columns: list[str]) -> list[dict[str, Any]]:
    """Some rows of a table, in ascending order; reads only the row groups that hold them."""
    found: list[dict[str, Any]] = []
    try:
        with pq.ParquetFile(path) as file:  # checked where its counts were read
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                here = [row - start for row in rows if start <= row < stop]
                if here:
                    found += file.read_row_group(group, columns).take(here).to_pylist()
                start = stop
    except (pa.ArrowException, OSError) as error:
        raise tables.DataError(f"{path}: cannot be read ({error}). Run again.") from error
    return found

"""The books: what became of every sample, from the tars down to training, and the equations that
prove it. Pure: counts in, rows and equations out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from semisup import tars
from semisup.ledger import Equation, ImageCounts, Ledger, Manifest, Row, Summary, Term


def words(status: str) -> str:
    """``truncated_image`` as people read it."""
    return status.replace("_", " ")


def _terms(counts: Mapping[str, int]) -> tuple[Term, ...]:
    return tuple(Term(words(name), count) for name, count in counts.items())


def add_statuses(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Samples of each status over all parts, ok first."""
    total: dict[str, int] = {tars.OK: 0}
    for manifest in manifests:
        for status, count in manifest["statuses"].items():
            total[status] = total.get(status, 0) + count
    return total


def count_samples(manifests: Iterable[Manifest]) -> int:
    return sum(shard["num_samples"] for manifest in manifests for shard in manifest["shards"])


def dataset_books(manifests: Sequence[Manifest], num_table_rows: int) -> Ledger:
    """The books of an indexed dataset. ``num_table_rows``: rows of its samples tables."""
    num_samples, statuses = count_samples(manifests), add_statuses(manifests)
    in_tars = Term("samples in the tars", num_samples)
    losses = [Row(words(s), n, "loss") for s, n in statuses.items() if s != tars.OK and n]
    return Ledger(
        [
            Row("samples in the tars", num_samples, "total"),
            *losses,
            Row("readable", statuses[tars.OK], "total"),
        ],
        [
            Equation("every sample has one status", _terms(statuses), (in_tars,)),
            Equation("every sample has one row", (Term("rows", num_table_rows),), (in_tars,)),
        ],
    )


def scoring_books(
    manifests: Sequence[Manifest],
    counts: ImageCounts,
    num_failure_rows: int,
    classes_per_image: int,
) -> Ledger:
    """From the samples in the tars of U to those scored by a teacher."""
    num_samples, scored = count_samples(manifests), counts["num_scored"]
    indexed, statuses = add_statuses(manifests), counts["statuses"]
    losses = {s: n for s, n in statuses.items() if s != tars.OK}
    in_tars = Term("samples in the tars", num_samples)
    broken = {s: indexed.get(s, 0) for s in (tars.MISSING_IMAGE, tars.TRUNCATED_TAR)}
    seen = {s: statuses.get(s, 0) for s in broken}
    return Ledger(
        [
            Row("samples in the tars", num_samples, "total"),
            *(Row(words(s), n, "loss") for s, n in losses.items() if n),
            Row("scored", scored, "total"),
        ],
        [
            Equation("every sample was looked at", (Term("samples", counts["num_samples"]),), (in_tars,)),
            Equation(
                "scored and failed are all samples",
                (Term("scored", scored), *_terms({s: n for s, n in losses.items() if n})),
                (in_tars,),
            ),
            Equation("every ok image is scored", (Term("ok", statuses.get(tars.OK, 0)),), (Term("scored", scored),)),
            Equation("what the index found broken stays so", _terms(seen), _terms(broken)),
            Equation(
                "every failure has a row and a reason",
                (Term("failure rows", num_failure_rows),),
                (Term("failed samples", sum(losses.values())),),
            ),
            *(
                Equation(
                    "every scored image has its classes",
                    (Term("score rows", rows),),
                    (Term(f"= {scored:,} images × {classes_per_image} classes", scored * classes_per_image),),
                )
                for rows in [counts.get("num_score_rows")]
                if rows is not None
            ),
        ],
    )  # fmt: skip


class SelectionCounts(NamedTuple):
    """What the tables of a selection hold, counted from the tables themselves.

    ``removed``: images that may not be selected, by reason; ``removed_unscored``: those among them
    that have no score anyway (a copy of a broken image is broken).
    """

    num_rows: int
    num_distinct: int
    removed: dict[str, int]
    removed_unscored: dict[str, int]
    num_removed_selected: int


REASONS = {
    "duplicate_of_evaluation": "near-duplicates of evaluation images",
    "copy": "copies of an earlier image",
}


def selection_books(
    summary: Summary,
    counts: SelectionCounts,
    scored: int,
    images_per_class: int,
    classes_per_image: int,
) -> Ledger:
    """From the scored images to the rows of the selection."""
    rows, distinct, candidates = summary["num_rows"], summary["num_distinct"], summary["num_candidates"]
    fullest = max((c["num_images"] for c in summary["classes"]), default=0)
    in_classes = sum(c["num_images"] for c in summary["classes"])
    named = {reason: REASONS.get(reason, words(reason)) for reason in counts.removed}
    losses = []
    for reason, name in named.items():
        unscored = counts.removed_unscored.get(reason, 0)
        note = f"and {unscored:,} that had no score" if unscored else ""
        losses.append(Row(name, counts.removed[reason] - unscored, "loss", note))
    selected, in_rows = Term("selected images", distinct), Term("rows", rows)
    all_scored, all_candidates = Term("scored", scored), Term("candidates", candidates)
    most = Term(f"= {distinct:,} images × {classes_per_image} classes", distinct * classes_per_image)
    return Ledger(
        [
            *losses,
            Row("candidates", candidates, "total"),
            Row("not among the best of any class", candidates - distinct, "loss"),
            Row("selected images", distinct, "total"),
            Row("rows of the selection", rows, "use", "an image counts once for each class it serves"),
        ],
        [
            Equation("selection starts from all scored images", (Term("at its start", summary["num_scored"]),), (all_scored,)),
            Equation("candidates are scored minus removed", (all_candidates, *(Term(row.name, row.count) for row in losses)), (all_scored,)),
            Equation("every removed image has a row and a reason", (Term("removed rows", sum(counts.removed.values())),), (Term("removed", sum(summary["removed"].values())),)),
            Equation("no removed image is selected", (Term("removed and selected", counts.num_removed_selected),), ()),
            Equation("only candidates are selected", (selected,), (all_candidates,), "≤"),
            Equation("the summary counts the images of the table", (selected,), (Term("in the table", counts.num_distinct),)),
            Equation("the summary counts the rows of the table", (in_rows,), (Term("in the table", counts.num_rows),)),
            Equation("the classes hold all rows", (Term(f"in {len(summary['classes']):,} classes", in_classes),), (in_rows,)),
            Equation("no class has more than images_per_class", (Term("in the fullest", fullest),), (Term("allowed", images_per_class),), "≤"),
            Equation("no image serves more than classes_per_image", (in_rows,), (most,), "≤"),
        ],
    )  # fmt: skip


def packing_books(summary: Summary, packed: Manifest, num_table_rows: int) -> Ledger:
    """From the rows of the selection to the samples in its shards."""
    rows = Term("selected rows", summary["num_rows"])
    samples = count_samples([packed])
    readable = packed["statuses"].get(tars.OK, 0)
    return Ledger(
        [Row("packed samples", samples, "use", f"in {len(packed['shards']):,} shards")],
        [
            Equation("every row is packed", (Term("packed", samples),), (rows,)),
            Equation("every packed sample is readable", (Term("ok", readable),), (rows,)),
            Equation("every packed sample is indexed", (Term("indexed", num_table_rows),), (rows,)),
        ],
    )


def training_books(stage: str, processed: int, failed: int, budget: int, packed: int) -> Ledger:
    """From the packed samples to the images a stage has processed."""
    passes = f"{processed / packed:,.3g} passes" if packed else "nothing to train on"
    note = passes + (f", {failed:,} images left out as undecodable" if failed else "")
    return Ledger(
        [Row(f"images processed by {stage}", processed, "use", note)],
        [Equation(f"{stage} used its budget", (Term("processed", processed),), (Term("budget", budget),))],
    )  # fmt: skip


def evaluation_books(stage: str, num_images: int, num_failed: int, predicted: int, samples: int) -> Ledger:
    """All samples of an evaluation set are measured or failed."""
    measured = Term("measured", num_images)
    return Ledger(
        [],
        [
            Equation(f"{stage}: measured and failed are all samples", (measured, Term("failed", num_failed)), (Term("samples in the tars", samples),)),
            Equation(f"{stage}: every measured image has a prediction", (Term("predictions", predicted),), (measured,)),
        ],
    )  # fmt: skip

"""The books: what became of every sample, from the tars down to training, and the equations that
prove it. Pure: counts in, rows and equations out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from semisup import tars
from semisup.ledger import ImageCounts, Ledger, Manifest, Row, Summary, Term, at_most, equal
from semisup.tables import DataError


def words(status: str) -> str:
    """``truncated_image`` as people read it."""
    return status.replace("_", " ")


def _terms(counts: Mapping[str, int]) -> tuple[Term, ...]:
    return tuple(Term(words(name), count) for name, count in counts.items())


def check_failures(
    what: str, statuses: Mapping[str, int], max_failure_rate: float, num_lost: int = 0
) -> None:
    """Raises DataError where more samples of a part have failed than its dataset allows.

    ``num_lost``: samples without a row, as they stood behind the place where a tar was cut.
    """
    failed = Counter({status: n for status, n in statuses.items() if status != tars.OK})
    if num_lost:
        failed["lost behind the end of cut tars, by the others' average"] = num_lost
    total = sum(statuses.values()) + num_lost
    if failed.total() > max_failure_rate * total:
        kinds = ", ".join(f"{count} {kind}" for kind, count in failed.most_common())
        raise DataError(
            f"{what}: {failed.total()} of {total} samples failed ({kinds}), more than "
            f"max_failure_rate {max_failure_rate:g} of this dataset allows. Mend the tars, or raise it."
        )


def lost_in_cut_tars(num_samples: Sequence[int], is_cut: Sequence[bool]) -> int:
    """About how many samples some tars lost when they were cut: what each lacks to the average whole
    tar of its part; 0 where no tar is whole. ``num_samples``: whole ones, of each tar."""
    whole = [n for n, cut in zip(num_samples, is_cut, strict=True) if not cut]
    if not whole:
        return 0
    average = sum(whole) // len(whole)
    cut = [n for n, cut in zip(num_samples, is_cut, strict=True) if cut]
    return sum(max(average - n, 0) for n in cut)


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
            equal("every sample has one status", _terms(statuses), in_tars),
            equal("every sample has one row", Term("rows", num_table_rows), in_tars),
        ],
    )


def scoring_books(
    manifests: Sequence[Manifest],
    counts: ImageCounts,
    num_failure_rows: int,
    classes_per_image: int,
) -> Ledger:
    """From the samples in the tars of U to those scored by a teacher."""
    num_scored, statuses = counts["num_scored"], counts["statuses"]
    losses = {status: n for status, n in statuses.items() if status != tars.OK and n}
    indexed = add_statuses(manifests)
    broken = {status: indexed.get(status, 0) for status in (tars.MISSING_IMAGE, tars.TRUNCATED_TAR)}
    seen = {status: statuses.get(status, 0) for status in broken}
    in_tars, scored = (
        Term("samples in the tars", count_samples(manifests)),
        Term("scored", num_scored),
    )
    failed = Term("failed samples", sum(losses.values()))
    equations = [
        equal("every sample was looked at", Term("samples", counts["num_samples"]), in_tars),
        equal("scored and failed are all samples", (scored, *_terms(losses)), in_tars),
        equal("every ok image is scored", Term("ok", statuses.get(tars.OK, 0)), scored),
        equal("what the index found broken stays so", _terms(seen), _terms(broken)),
        equal("every failure has a row and a reason", Term("rows", num_failure_rows), failed),
    ]
    if "num_score_rows" in counts:
        rows = Term("score rows", counts["num_score_rows"])
        product = _times(num_scored, classes_per_image)
        equations.append(equal("every scored image has its classes", rows, product))
    return Ledger(
        [
            Row(in_tars.name, in_tars.count, "total"),
            *(Row(words(status), n, "loss") for status, n in losses.items()),
            Row("scored", num_scored, "total"),
        ],
        equations,
    )


def _times(images: int, classes: int) -> Term:
    return Term(f"= {images:,} images × {classes:,} classes", images * classes)


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
    "copy_of_evaluation": "copies of evaluation images",
    "duplicate_of_evaluation": "near-duplicates of evaluation images",
    "copy": "copies of an earlier image",
    "near_copy": "near-copies of an earlier image",
}


def selection_books(
    summary: Summary,
    counts: SelectionCounts,
    num_scored: int,
    images_per_class: int,
    classes_per_image: int,
) -> Ledger:
    """From the scored images to the rows of the selection."""
    losses = [_removed_row(counts, reason) for reason in counts.removed]
    if summary["num_not_drawn"]:
        losses.append(Row("outside the fraction of U", summary["num_not_drawn"], "loss"))
    num_candidates, num_distinct = summary["num_candidates"], summary["num_distinct"]
    sizes = [entry["num_images"] for entry in summary["classes"]]
    wanted = [entry["num_wanted"] for entry in summary["classes"]]
    scored, candidates = Term("scored", num_scored), Term("candidates", num_candidates)
    selected, rows = Term("selected images", num_distinct), Term("rows", summary["num_rows"])
    return Ledger(
        [
            *losses,
            Row("candidates", num_candidates, "total"),
            Row("not among the best of any class", num_candidates - num_distinct, "loss"),
            Row("selected images", num_distinct, "total"),
            Row(
                "rows of the selection",
                rows.count,
                "use",
                "an image is one for each class it serves",
            ),
        ],
        [
            equal(
                "selection starts from all scored images",
                Term("at its start", summary["num_scored"]),
                scored,
            ),
            equal(
                "candidates are scored minus what is left out",
                (candidates, *(Term(row.name, row.count) for row in losses)),
                scored,
            ),
            equal(
                "every removed image has a row and a reason",
                Term("rows", sum(counts.removed.values())),
                Term("removed", sum(summary["removed"].values())),
            ),
            equal("no removed image is selected", Term("of them", counts.num_removed_selected), ()),
            at_most("only candidates are selected", selected, candidates),
            equal("the table holds the images", selected, Term("in it", counts.num_distinct)),
            equal("the table holds the rows", rows, Term("in it", counts.num_rows)),
            equal("the classes hold the rows", rows, Term("in them", sum(sizes))),
            equal(
                "the classes share K times their number",
                Term("wanted", sum(wanted)),
                _times(images_per_class, len(wanted)),
            ),
            at_most(
                "no class has more than its share",
                Term("beyond it", sum(max(n - k, 0) for n, k in zip(sizes, wanted, strict=True))),
                Term("allowed", 0),
            ),
            at_most(
                "no image serves more than classes_per_image",
                rows,
                _times(num_distinct, classes_per_image),
            ),
        ],
    )


def _removed_row(counts: SelectionCounts, reason: str) -> Row:
    unscored = counts.removed_unscored.get(reason, 0)
    note = f"and {unscored:,} that had no score" if unscored else ""
    name = REASONS.get(reason, words(reason))
    return Row(name, counts.removed[reason] - unscored, "loss", note)


def packing_books(summary: Summary, packed: Sequence[Manifest], num_table_rows: int) -> Ledger:
    """From the rows of the selection to the samples in its shards."""
    rows = Term("selected rows", summary["num_rows"])
    num_samples = count_samples(packed)
    num_shards = sum(len(manifest["shards"]) for manifest in packed)
    note = "in 1 shard" if num_shards == 1 else f"in {num_shards:,} shards"
    readable = add_statuses(packed)[tars.OK]
    return Ledger(
        [Row("packed samples", num_samples, "use", note)],
        [
            equal("every row is packed", Term("packed", num_samples), rows),
            equal("every packed sample is readable", Term("ok", readable), rows),
            equal("every packed sample is indexed", Term("indexed", num_table_rows), rows),
        ],
    )


class Processed(NamedTuple):
    """Images a stage has gone through, those a pass has by its loader; of the first those its loader
    gave to the network, and the rest."""

    images: int
    samples: int
    loaded: int
    failed: int


def training_books(stage: str, done: Processed, budget: int, packed: int) -> Ledger:
    """From the packed samples to the images a stage was trained on, as its loader counted them."""
    passes = f"{done.images / packed:,.3g} passes" if packed else "nothing to train on"
    note = f"{passes}, {done.failed:,} images left out as undecodable" if done.failed else passes
    whole, rest = divmod(budget, packed) if packed else (0, budget)
    epochs = Term(f"= {packed:,} samples × {whole:,} whole passes", packed * whole)
    loaded, failed = Term("loaded", done.loaded), Term("left out", done.failed)
    return Ledger(
        [Row(f"images {stage} was trained on", done.loaded, "use", note)],
        [
            equal(
                f"{stage}: a pass has all samples",
                Term("of a pass", done.samples),
                Term("samples", packed),
            ),
            equal(
                f"{stage} used its budget", Term("processed", done.images), Term("budget", budget)
            ),
            equal(
                f"{stage}: the loader counted samples × passes",
                (loaded, failed),
                (epochs, Term("of the last pass", rest)),
            ),
        ],
    )


def evaluation_books(
    stage: str, num_images: int, num_failed: int, num_predictions: int, num_samples: int
) -> Ledger:
    """All samples of an evaluation set are measured or failed."""
    measured, failed = Term("measured", num_images), Term("failed", num_failed)
    in_tars, predicted = (
        Term("samples in the tars", num_samples),
        Term("predictions", num_predictions),
    )
    return Ledger(
        [],
        [
            equal(f"{stage}: measured and failed are all samples", (measured, failed), in_tars),
            equal(f"{stage}: every measured image has a prediction", predicted, measured),
        ],
    )

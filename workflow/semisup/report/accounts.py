"""Counts what the tables of every stage hold and has the books prove that nothing is missing."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semisup import books, schemas, tables, tars
from semisup.checks import trainings
from semisup.ledger import ImageCounts, Ledger, Manifest, Summary, prove
from semisup.plan import Plan


class Account(NamedTuple):
    """A ledger that was proved. ``scale``: the count that fills a bar."""

    name: str
    ledger: Ledger
    scale: int

    def start(self, index: int) -> int:
        """Where the bar of a row begins: what is left of the samples after a loss."""
        rows = self.ledger.rows
        if rows[index].kind != "loss":
            return 0
        above = next(row.count for row in reversed(rows[:index]) if row.kind == "total")
        for row in reversed(rows[: index + 1]):
            if row.kind == "total":
                break
            above -= row.count
        return max(above, 0)

    @property
    def failure_rate(self) -> float:
        """The share of the first row that never reached the next total."""
        totals = [row.count for row in self.ledger.rows if row.kind == "total"]
        return 1 - totals[1] / totals[0] if len(totals) > 1 and totals[0] else 0.0


def read_manifests(plan: Plan, name: str) -> list[Manifest]:
    return [tables.read_json(Path(path)) for path in plan.manifests(name)]


def count_rows(path: Path) -> int:
    """Rows of a Parquet table, from its footer."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise tables.DataError(f"{path}: cannot be read ({error}). Run again.") from error


Processed = dict[tuple[str, str], tuple[int, int]]
"""Images processed, and left out as undecodable, by each (model, stage)."""


def account_for_dataset(
    plan: Plan, name: str, evaluated: pa.Table, processed: Processed
) -> Account:
    """The books of a labelled dataset; ``evaluated``: rows of the accuracies measured on it."""
    manifests = read_manifests(plan, name)
    num_rows = sum(count_rows(Path(path)) for path in plan.samples(name))
    ledger = books.dataset_books(manifests, num_rows)
    num_samples = books.count_samples(manifests)
    for row in evaluated.to_pylist():
        path = Path(f"{plan.results}/predictions/{row['model']}/{row['stage']}.parquet")
        datasets = tables.read_table(path, schemas.PREDICTIONS, ["dataset"])["dataset"]
        predicted = sum(count.as_py() for value, count in _counts(datasets) if value == name)
        stage = f"{row['model']}/{row['stage']}"
        ledger += books.evaluation_books(
            stage, row["num_images"], row["num_failed"], predicted, num_samples
        )
    readable = books.add_statuses(manifests)[tars.OK]
    ledger += account_for_trainings(plan, name, readable, processed)
    prove(f"dataset {name}", ledger.equations)
    return Account(name, ledger, num_samples)


def _counts(column: pa.ChunkedArray) -> list[tuple[str, pa.Scalar]]:
    counted = column.value_counts()
    return list(zip(counted.field("values").to_pylist(), counted.field("counts"), strict=True))


def account_for_scoring(plan: Plan, teacher: str, unlabeled: str) -> Account:
    """The books of U up to its scores."""
    folder = Path(f"{plan.results}/scores/{teacher}/{unlabeled}")
    manifests = read_manifests(plan, unlabeled)
    counts: ImageCounts = tables.read_json(folder / "images.json")
    failures = count_rows(folder / "failures.parquet")
    ledger = books.scoring_books(manifests, counts, failures, plan.stored_classes(teacher))
    num_rows = sum(count_rows(Path(path)) for path in plan.samples(unlabeled))
    indexed = books.dataset_books(manifests, num_rows)
    ledger = Ledger(ledger.rows, indexed.equations + ledger.equations)
    prove(f"scoring {unlabeled} by {teacher}", ledger.equations)
    return Account(f"{unlabeled}, scored by {teacher}", ledger, counts["num_samples"])


def account_for_selection(
    plan: Plan,
    name: str,
    scoring: Account,
    summary: Summary,
    identities: np.ndarray,
    processed: Processed,
) -> Account:
    """The books from the tars of U down to the students; ``identities``: the selection's rows."""
    selection = plan.config.selections[name]
    stored = plan.stored_classes(selection.teacher)
    folder = Path(f"{plan.results}/selections/{name}")
    failures = Path(f"{plan.results}/scores/{selection.teacher}/{selection.unlabeled}")
    counts = count_selection(folder, failures / "failures.parquet", identities)
    scored = next(row.count for row in scoring.ledger.rows if row.name == "scored")
    ledger = books.selection_books(
        summary, counts, scored, selection.images_per_class, selection.classes_per_image or stored
    )
    packed = read_manifests(plan, name)
    num_indexed = sum(count_rows(Path(path)) for path in plan.samples(name))
    ledger += books.packing_books(summary, packed, num_indexed)
    ledger += account_for_trainings(plan, name, books.count_samples(packed), processed)
    prove(f"selection {name}", ledger.equations)
    whole = scoring.ledger + ledger
    return Account(name, whole, max(scoring.scale, summary["num_rows"]))


def account_for_trainings(
    plan: Plan, source: str, num_samples: int, processed: Processed
) -> Ledger:
    """Images processed by every stage trained on a dataset or selection."""
    ledger = Ledger([], [])
    for model, config in plan.config.models.items():
        for stage, training in trainings(config).items():
            if training.on == source:
                done, failed = processed[model, stage]
                budget = plan.recipe(model, stage).images
                ledger += books.training_books(
                    f"{model}/{stage}", done, failed, budget, num_samples
                )
    return ledger


def count_selection(folder: Path, failures: Path, identities: np.ndarray) -> books.SelectionCounts:
    """What the tables of a selection hold. Memory: 8 bytes per selected and removed image."""
    distinct = np.unique(identities)
    removed = tables.read_table(folder / "removed.parquet", schemas.REMOVED)
    removed_ids = tables.identity(removed)
    reasons = removed["reason"].dictionary_encode().combine_chunks()
    failed = tables.read_table(failures, schemas.FAILURES, ["shard_id", "sample_index"])
    unscored = np.isin(removed_ids, tables.identity(failed))
    codes = reasons.indices.to_numpy()
    names = reasons.dictionary.to_pylist()
    return books.SelectionCounts(
        num_rows=count_rows(folder / "selection.parquet"),
        num_distinct=len(distinct),
        removed={n: int((codes == i).sum()) for i, n in enumerate(names)},
        removed_unscored={n: int(unscored[codes == i].sum()) for i, n in enumerate(names)},
        num_removed_selected=int(np.isin(removed_ids, distinct).sum()),
    )

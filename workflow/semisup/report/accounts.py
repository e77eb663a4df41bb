"""Counts what the tables of every stage hold and has the books prove that nothing is missing."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semisup import books, rowcounts, schemas, tables, tars
from semisup.checks import trainings
from semisup.ledger import ImageCounts, Ledger, Manifest, Row, Summary, prove
from semisup.plan import Plan
from semisup.stages import candidate_name, sweep_of


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


AllProcessed = dict[tuple[str, str], books.Processed]
"""What each (model, stage) has gone through."""


class Measured(NamedTuple):
    """A row of EVALUATIONS, the predictions it was counted from, whether it is of a candidate."""

    row: dict[str, Any]
    predictions: Path
    chooses: bool


def list_measured(plan: Plan, name: str, evaluations: pa.Table) -> list[Measured]:
    """All that was measured on a dataset: stages of models, candidates of sweeps."""
    results = Path(plan.results)
    found = [
        Measured(row, results / f"predictions/{row['model']}/{row['stage']}.parquet", False)
        for row in evaluations.filter(pc.equal(evaluations["dataset"], name)).to_pylist()
    ]
    for model, config in plan.config.models.items():
        sweep = sweep_of(config)
        for base_lr in sweep.base_lr if sweep and sweep.choose_on == name else []:
            folder = results / "models" / model / "finetune" / candidate_name(base_lr)
            table = tables.read_table(folder / "evaluations.parquet", schemas.EVALUATIONS)
            predictions = folder / "predictions.parquet"
            found += [Measured(row, predictions, True) for row in table.to_pylist()]
    return found


def account_for_dataset(
    plan: Plan, name: str, evaluations: pa.Table, processed: AllProcessed
) -> Account:
    """The books of a labelled dataset; ``evaluations``: the accuracies of all stages.

    Raises DataError where more of a part has failed than may.
    """
    manifests = read_manifests(plan, name)
    num_rows = count_indexed(plan, name, manifests)
    ledger = books.dataset_books(manifests, num_rows)
    num_samples = books.count_samples(manifests)
    for manifest in manifests:
        part = f"dataset {name}, part {manifest['part']:05d}"
        rate = plan.config.datasets[name].max_failure_rate
        books.check_failures(part, manifest["statuses"], rate)
    for row, predictions, chooses in list_measured(plan, name, evaluations):
        datasets = tables.read_table(predictions, schemas.PREDICTIONS, ["dataset"])["dataset"]
        predicted = sum(count.as_py() for value, count in _counts(datasets) if value == name)
        stage = f"{row['model']}/{row['stage']}"
        ledger += books.evaluation_books(
            stage, row["num_images"], row["num_failed"], predicted, num_samples
        )
        if chooses:
            note = f"{row['num_images']:,} measured"
            ledger.rows.append(Row(f"choosing {stage}", num_samples, "use", note))
    ledger += account_for_trainings(plan, name, count_labelled(plan, name), processed)
    prove(f"dataset {name}", ledger.equations)
    return Account(name, ledger, num_samples)


def count_indexed(plan: Plan, name: str, manifests: list[Manifest]) -> int:
    """Rows of the samples tables. Raises DataError naming the shard that has not one for each sample."""
    count = 0
    for manifest, path in zip(manifests, map(Path, plan.samples(name)), strict=True):
        shards = manifest["shards"]
        lengths = [shard["num_samples"] for shard in shards]
        wanted = rowcounts.count_shards(np.repeat([shard["shard_id"] for shard in shards], lengths))
        found = tables.count_shards(path)
        if found != wanted:
            raise tables.DataError(
                f"{path}: {found['total']:,} rows for {wanted['total']:,} samples; shard "
                f"{rowcounts.first_difference(found, wanted)} is the first that is wrong. Delete this "
                "file and run again."
            )
        count += int(found["total"])
    return count


def count_labelled(plan: Plan, name: str) -> int:
    """Images to learn from, as the samples tables have them."""
    count = 0
    for path in plan.samples(name):
        table = tables.read_table(Path(path), schemas.SAMPLES, ["status", "label"])
        ok = pc.equal(table["status"].cast(pa.string()), tars.OK)
        count += pc.sum(pc.and_(ok, pc.is_valid(table["label"]))).as_py() or 0
    return count


def check_packed(manifests: list[Manifest]) -> None:
    """Raises DataError naming a packed shard that is not as long as it was written."""
    for shard in (shard for manifest in manifests for shard in manifest["shards"]):
        path = Path(shard["path"])
        size = path.stat().st_size if path.is_file() else 0
        if size != shard["size_bytes"]:
            raise tables.DataError(
                f"{path}: {size:,} bytes; it was written with {shard['size_bytes']:,}. "
                "Delete its folder and run again."
            )


def _counts(column: pa.ChunkedArray) -> list[tuple[str, pa.Scalar]]:
    counted = column.value_counts()
    return list(zip(counted.field("values").to_pylist(), counted.field("counts"), strict=True))


def account_for_scoring(plan: Plan, teacher: str, unlabeled: str) -> Account:
    """The books of U up to its scores."""
    folder = Path(f"{plan.results}/scores/{teacher}/{unlabeled}")
    manifests = read_manifests(plan, unlabeled)
    counts: ImageCounts = tables.read_json(folder / "images.json")
    failures = tables.count_rows(folder / "failures.parquet")
    ledger = books.scoring_books(manifests, counts, failures, plan.stored_classes(teacher))
    num_rows = count_indexed(plan, unlabeled, manifests)
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
    processed: AllProcessed,
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
    check_packed(packed)
    num_indexed = count_indexed(plan, name, packed)
    ledger += books.packing_books(summary, packed, num_indexed)
    ledger += account_for_trainings(plan, name, books.count_samples(packed), processed)
    prove(f"selection {name}", ledger.equations)
    whole = scoring.ledger + ledger
    return Account(name, whole, max(scoring.scale, summary["num_rows"]))


def account_for_trainings(
    plan: Plan, source: str, num_samples: int, processed: AllProcessed
) -> Ledger:
    """Images processed by every stage trained on a dataset or selection."""
    ledger = Ledger([], [])
    for model, config in plan.config.models.items():
        for stage, training in trainings(config).items():
            if training.on == source:
                done = processed[model, stage]
                budget = plan.recipe(model, stage).images
                ledger += books.training_books(f"{model}/{stage}", done, budget, num_samples)
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
        num_rows=tables.count_rows(folder / "selection.parquet"),
        num_distinct=len(distinct),
        removed={n: int((codes == i).sum()) for i, n in enumerate(names)},
        removed_unscored={n: int(unscored[codes == i].sum()) for i, n in enumerate(names)},
        num_removed_selected=int(np.isin(removed_ids, distinct).sum()),
    )

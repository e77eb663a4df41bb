"""Samples that could not be used: how many of each kind, and enough of them to look into."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from semisup import schemas, tables, tars
from semisup.ledger import Manifest
from semisup.plan import Plan
from semisup.report.selections import read_rows

MAX_ROWS = 100


class Failure(NamedTuple):
    key: str
    shard: str
    sample_index: int
    status: str
    reason: str


class FailuresView(NamedTuple):
    """Failures in one place. ``lost_shards``: tars without a single usable sample."""

    name: str
    kinds: dict[str, int]
    shown: list[Failure]
    lost_shards: list[str]

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


def view_scoring(
    plan: Plan, teacher: str, unlabeled: str, manifests: list[Manifest]
) -> FailuresView:
    """Failures of U as a teacher met them; reads the details only of those shown."""
    path = Path(f"{plan.results}/scores/{teacher}/{unlabeled}/failures.parquet")
    table = tables.read_table(path, schemas.FAILURES, ["shard_id", "status"])
    codes, kinds = _encode(table["status"])
    details = read_rows(path, spread(codes, MAX_ROWS), schemas.FAILURES.names)
    failed = np.bincount(table["shard_id"].to_numpy())
    lost = [
        shard["path"]
        for manifest in manifests
        for shard in manifest["shards"]
        if shard["shard_id"] < len(failed) and 0 < shard["num_samples"] == failed[shard["shard_id"]]
    ]
    shown = [
        Failure(row["key"], row["shard"], row["sample_index"], row["status"], row["reason"])
        for row in details
    ]
    counts = np.bincount(codes, minlength=len(kinds)).tolist()
    name = f"{unlabeled}, scored by {teacher}"
    return FailuresView(name, dict(sorted(zip(kinds, counts, strict=True))), shown, lost)


def _encode(status: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A number for each row, and the status each number stands for."""
    encoded = status.unify_dictionaries().combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def view_dataset(plan: Plan, name: str, manifests: list[Manifest]) -> FailuresView:
    """Failures of a labelled dataset; opens only the parts that have some."""
    kinds: dict[str, int] = {}
    shown: list[Failure] = []
    for manifest, path in zip(manifests, plan.samples(name), strict=True):
        here = {s: n for s, n in manifest["statuses"].items() if s != tars.OK and n}
        for status, count in here.items():
            kinds[status] = kinds.get(status, 0) + count
        if here and len(shown) < MAX_ROWS:
            shown += _read_failed(Path(path), manifest, MAX_ROWS - len(shown))
    return FailuresView(name, kinds, shown, [])


def _read_failed(path: Path, manifest: Manifest, limit: int) -> list[Failure]:
    paths = {shard["shard_id"]: shard["path"] for shard in manifest["shards"]}
    codes, kinds = _encode(tables.read_table(path, schemas.SAMPLES, ["status"])["status"])
    bad = [i for i, kind in enumerate(kinds) if kind != tars.OK]
    rows = np.flatnonzero(np.isin(codes, bad))[:limit].tolist()
    columns = ["shard_id", "sample_index", "key", "status", "reason"]
    return [
        Failure(
            row["key"], paths[row["shard_id"]], row["sample_index"], row["status"], row["reason"]
        )
        for row in read_rows(path, rows, columns)
    ]


def spread(codes: np.ndarray, limit: int) -> list[int]:
    """Up to ``limit`` places such that rare kinds are not crowded out by frequent ones."""
    if len(codes) == 0:
        return []
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    turn = np.empty(len(codes), np.int64)
    turn[order] = np.arange(len(codes)) - starts[codes[order]]
    chosen = np.lexsort((np.arange(len(codes)), turn))[:limit]
    return sorted(chosen.tolist())

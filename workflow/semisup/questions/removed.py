"""Why an image may not be selected, in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semisup import schemas, tables
from semisup.questions import Selected
from semisup.removal import (
    COPY,
    COPY_OF_EVALUATION,
    NEAR_COPY,
    Recorded,
    deciding_copies,
    deciding_pair,
)
from semisup.samples import parts_of, samples_path
from semisup.tables import DataError

MADE_ANEW = (
    "The tables of duplicates were made anew since it was selected, or an evaluation set was. "
    "Run snakemake first."
)


def why_removed(selected: Selected, reason: str, identity: int) -> str:
    """``reason``: one of removal.REASONS. Raises DataError when the tables are no longer there."""
    remove, manifests = selected.settings.remove, selected.manifests
    recorded = _recorded(selected)
    if reason == COPY_OF_EVALUATION:
        places = deciding_copies(recorded, manifests, identity)
        row = _any(r for r in _copies_of(recorded, identity) if _first(r) in places)
        return f"the same {row['same']} as {_sample(selected, *_first(row))}"
    own = tables.read_json(manifests[0])["dataset"]
    if reason == COPY:
        row = _any(r for r in _copies_of(recorded, identity) if r["first_dataset"] == own)
        return f"the same {row['same']} as {_sample(selected, *_first(row))}"
    if reason == NEAR_COPY:
        row = _any(_rows_about(recorded.near_copies, schemas.NEAR_COPIES, identity))
        first = _sample(selected, *_first({"first_dataset": own, **row}))
        return f"close to {first}, at distance {row['distance']:.4f}"
    found = deciding_pair(remove, recorded, manifests, identity) if remove else None
    if found is None:
        return "by the review"
    of = _sample(selected, found["evaluation_dataset"], found["evaluation"])
    return f"a near-duplicate of {of}, at distance {found['distance']:.4f}"


def _copies_of(recorded: Recorded, identity: int) -> list[dict[str, Any]]:
    return [*_rows_about(recorded.copies, schemas.COPIES, identity)]


def _any(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    for row in rows:
        return row
    raise DataError(MADE_ANEW)


def _first(row: dict[str, Any]) -> tuple[str, int]:
    return row["first_dataset"], (row["first_shard_id"] << 32) | row["first_sample_index"]


def _sample(selected: Selected, dataset: str, identity: int) -> str:
    """The image by its key, and where it is. Raises DataError when the dataset has no such image now."""
    plan = selected.plan
    paths = plan.manifests(dataset) if dataset in plan.config.datasets else []
    manifests = filter(Path.exists, map(Path, paths))
    for manifest, _ in parts_of(manifests, np.array([identity])):
        shards = tables.read_json(manifest)["shards"]
        (tar,) = (s["path"] for s in shards if s["shard_id"] == identity >> 32)
        for row in _rows_about([samples_path(manifest)], schemas.SAMPLES, identity):
            return f"{row['key']} (sample {row['sample_index']} of {tar}, {dataset})"
    raise DataError(MADE_ANEW)


def _rows_about(paths: list[Path], schema: pa.Schema, identity: int) -> Iterator[dict[str, Any]]:
    """What tables say of an image."""
    for path in paths:
        identities = tables.identity(tables.read_table(path, schema, ["shard_id", "sample_index"]))
        rows = np.flatnonzero(identities == identity)
        if len(rows):
            yield from tables.read_rows(path, schema, rows).to_pylist()


def _recorded(selected: Selected) -> Recorded:
    plan, wildcards = selected.plan, selected.wildcards
    return Recorded(
        *(
            [Path(path) for path in paths]
            for paths in (
                plan.selection_nearest(wildcards),
                plan.selection_pairs(wildcards),
                plan.selection_copies(wildcards),
                plan.selection_near_copies(wildcards),
                plan.reviewed(wildcards),
            )
        )
    )

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
from semisup.tables import DataError


def why_removed(selected: Selected, reason: str, identity: int) -> str:
    """``reason``: one of removal.REASONS. Raises DataError when the tables are no longer there."""
    remove, manifests = selected.settings.remove, selected.manifests
    recorded = _recorded(selected)
    if reason == COPY_OF_EVALUATION:
        places = deciding_copies(recorded, manifests, identity)
        row = _any(r for r in _copies_of(recorded, identity) if _first(r) in places)
        return f"the same {row['same']} as {_sample(*_first(row))}"
    if reason == COPY:
        own = tables.read_json(manifests[0])["dataset"]
        row = _any(r for r in _copies_of(recorded, identity) if r["first_dataset"] == own)
        return f"the same {row['same']} as {_sample(*_first(row))}"
    if reason == NEAR_COPY:
        row = _any(_rows_about(recorded.near_copies, schemas.NEAR_COPIES, identity))
        first = f"sample {row['first_sample_index']} of shard {row['first_shard_id']}"
        return f"close to {first}, at distance {row['distance']:.4f}"
    found = deciding_pair(remove, recorded, manifests, identity) if remove else None
    if found is None:
        return "by the review"
    of = _sample(found["evaluation_dataset"], found["evaluation"])
    return f"a near-duplicate of {of}, at distance {found['distance']:.4f}"


def _copies_of(recorded: Recorded, identity: int) -> list[dict[str, Any]]:
    return [*_rows_about(recorded.copies, schemas.COPIES, identity)]


def _any(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    for row in rows:
        return row
    raise DataError(
        "The tables of duplicates were made anew since it was selected. Run snakemake first."
    )


def _first(row: dict[str, Any]) -> tuple[str, int]:
    return row["first_dataset"], (row["first_shard_id"] << 32) | row["first_sample_index"]


def _sample(dataset: str, identity: int) -> str:
    return f"sample {identity & 0xFFFFFFFF} of shard {identity >> 32} of {dataset}"


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

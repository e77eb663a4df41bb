"""How many rows a table was written with, shard by shard. The footer keeps it, so that a row that
was lost or doubled later is found by whoever opens the table, and its shard is named."""

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEY = "rows"
MAX_COUNTS = 1000
"""Counts in a footer; where there are more shards, one count is of several."""


def count_rows(table: pa.Table) -> str:
    """The rows of a table, in all and of each shard where it has a column of them, as JSON."""
    if "shard_id" not in table.column_names:
        return json.dumps({"total": len(table)})
    return json.dumps(count_shards(table["shard_id"].to_numpy()))


def count_shards(shard_ids: np.ndarray) -> dict[str, Any]:
    """What a footer says of a table with this column."""
    if not len(shard_ids):
        return {"total": 0}
    first = int(shard_ids.min())
    step = (int(shard_ids.max()) - first) // MAX_COUNTS + 1
    counts = np.bincount((shard_ids - first) // step).tolist()
    of_shards = {"first_shard": first, "shards_a_count": step, "counts": counts}
    return {"total": len(shard_ids)} | of_shards


def written(file: pq.ParquetFile) -> dict[str, Any]:
    """What the footer of a table says, whose rows are all there."""
    found: dict[str, Any] = json.loads(file.metadata.metadata[KEY.encode()])
    return found


def first_difference(found: dict[str, Any], wanted: dict[str, Any]) -> int:
    """The first shard that has not the rows it should have."""
    of_shards = zip_longest(found.get("counts", ()), wanted.get("counts", ()), fillvalue=0)
    place = next((i for i, (one, other) in enumerate(of_shards) if one != other), 0)
    return int(wanted.get("first_shard", 0) + place * wanted.get("shards_a_count", 1))


def difference(file: pq.ParquetFile) -> str:
    """What is wrong with the rows of an open table, in words; nothing where all are there."""
    found = file.metadata.num_rows
    try:
        written = json.loads(file.metadata.metadata[KEY.encode()])
        total = int(written["total"])
    except (KeyError, TypeError, ValueError):
        return "its footer does not say how many rows it was written with"
    if found == total:
        return ""
    return f"it has {found:,} rows and was written with {total:,}" + _of_shards(file, written)


def _of_shards(file: pq.ParquetFile, written: dict[str, Any]) -> str:
    if "counts" not in written or not file.metadata.num_rows:
        return ""
    first, step, before = (written[name] for name in ("first_shard", "shards_a_count", "counts"))
    places = (file.read(["shard_id"])["shard_id"].to_numpy() - first) // step
    now = np.bincount(places[(places >= 0) & (places < len(before))], minlength=len(before))
    differing = np.flatnonzero(now != before)
    if not len(differing):
        return ""
    place = int(differing[0])
    start = first + place * step
    shards = f"shard {start}" if step == 1 else f"shards {start} to {start + step - 1}"
    return f"; of {shards}: {now[place]:,} instead of {before[place]:,}"

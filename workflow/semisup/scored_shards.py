"""Shards that are scored, and in the tables of a part: they are linked to these, and found in them.

A shard is committed as rows of its own, so that a killed job loses little; once its part is written
that would be all scores twice. Where tars moved to other parts their rows are taken out of the tables
they were written to, which are there until the last of their shards has left them.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semisup import commits, passes, schemas, tables, tars
from semisup.commits import Linked
from semisup.rankings import read_scores
from semisup.tables import DataError

log = logging.getLogger("semisup")


def link(shards: passes.Shards, scores: Path, images: Path) -> None:
    """Link all shards to the tables of their part; remove what was made of their tars before."""
    of_part = commits.part_digest({tar["shard_id"]: tar["sha256"] for tar in shards.tars})
    first = {path: tar for tar, path in reversed(list(zip(shards.tars, shards.paths, strict=True)))}
    linked = []
    try:
        for path, tar in first.items():
            linked.append(commits.link(path, of_part, tar["shard_id"], scores, images))
    except OSError as error:
        log.info("%s: %s; what is scored is stored twice", shards.work, error.strerror)
    commits.remove_others(shards.paths, linked)


def restore(shards: passes.Shards, classes_per_image: int) -> None:
    """Commit the shards that are in the tables of a part. Tables that are damaged are passed over."""
    of_part: dict[str, dict[Path, tuple[Linked, int]]] = defaultdict(dict)
    for path, tar in zip(shards.paths, shards.tars, strict=True):
        if tar["num_samples"] and not path.exists():
            for linked in commits.find_links(path):
                of_part[linked.part][path] = linked, tar["num_samples"]
    for wanted in of_part.values():
        missing = {path: place for path, place in wanted.items() if not path.exists()}
        try:
            for path, columns in _rows(missing, classes_per_image) if missing else ():
                tables.write_table(path, columns, shards.schema)
        except DataError as error:
            log.warning("%s; the shards are scored again", error)


def _rows(
    missing: dict[Path, tuple[Linked, int]], classes_per_image: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The rows of some shards of a part. Raises DataError where they are not all there."""
    source = next(iter(missing.values()))[0]
    images = tables.read_table(source.images, schemas.IMAGES)
    rows = read_scores(source.scores)
    wanted = [linked.shard_id for linked, _ in missing.values()]
    rows = rows.take(np.flatnonzero(np.isin(rows.identity >> 32, wanted)))
    rows = rows.take(np.lexsort((rows.prediction_rank, rows.identity)))
    for path, (linked, num_samples) in missing.items():
        ends = [linked.shard_id, linked.shard_id + 1]
        own = images[slice(*np.searchsorted(images["shard_id"], ends))]
        status = np.array(own["status"].to_pylist(), object)
        scored = slice(*np.searchsorted(rows.identity >> 32, ends))
        num_classes = np.bincount(rows.identity[scored] & 0xFFFFFFFF, minlength=num_samples)
        if not np.array_equal(num_classes, classes_per_image * (status == tars.OK)):
            raise DataError(f"{source.scores}: not the scores of {source.images}")
        places = np.cumsum([0, *num_classes]).astype(np.int32)
        columns = {
            "class_ids": pa.ListArray.from_arrays(places, rows.class_id[scored]),
            "log_odds": pa.ListArray.from_arrays(places, rows.log_odds[scored]),
            "status": status,
        }
        yield path, columns | {name: own[name] for name in ("logsumexp", "reason")}

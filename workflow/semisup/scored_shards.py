"""Shards that are scored, and in the tables of a part: they are marked as such, and found in them.

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
from semisup.commits import Mark
from semisup.rankings import read_scores
from semisup.tables import DataError

log = logging.getLogger("semisup")


def tables_of(shards: passes.Shards) -> tuple[Path, Path]:
    """Where the scores and the images of the part are to be written."""
    return commits.part_tables(shards.work, commits.part_name(_by_id(shards)))


def publish(shards: passes.Shards, scores: Path, images: Path) -> None:
    """Give the tables of the part the names the rules know, mark all shards as being in them, and
    remove what was made of their tars before."""
    for table, path in zip(tables_of(shards), (scores, images), strict=True):
        commits.publish(table, path)
    paths = _by_id(shards)
    commits.remove_others(shards.paths, commits.mark_part(commits.part_name(paths), paths))


def _by_id(shards: passes.Shards) -> dict[int, Path]:
    return {tar["shard_id"]: path for tar, path in zip(shards.tars, shards.paths, strict=True)}


def restore(shards: passes.Shards, classes_per_image: int) -> None:
    """Commit the shards that are in the tables of a part. Tables that are damaged are passed over."""
    of_part: dict[str, dict[Path, tuple[Mark, int]]] = defaultdict(dict)
    for path, tar in zip(shards.paths, shards.tars, strict=True):
        if tar["num_samples"] and not path.exists():
            for mark in commits.find_marks(path):
                of_part[mark.part][path] = mark, tar["num_samples"]
    for wanted in of_part.values():
        missing = {path: place for path, place in wanted.items() if not path.exists()}
        try:
            for path, columns in _rows(missing, classes_per_image) if missing else ():
                tables.write_table(path, columns, shards.schema)
        except Exception as error:  # a flipped bit may raise anything
            log.warning("shards are scored again, the tables they are in are damaged: %s", error)


def _rows(
    missing: dict[Path, tuple[Mark, int]], classes_per_image: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The rows of some shards of a part. Raises DataError where they are not all there."""
    scores_path, images_path = next(iter(missing.values()))[0].tables()
    images = tables.read_table(images_path, schemas.IMAGES)
    rows = read_scores(scores_path)
    wanted = [mark.shard_id for mark, _ in missing.values()]
    rows = rows.take(np.flatnonzero(np.isin(rows.identity >> 32, wanted)))
    rows = rows.take(np.lexsort((rows.prediction_rank, rows.identity)))
    for path, (mark, num_samples) in missing.items():
        ends = [mark.shard_id, mark.shard_id + 1]
        own = images[slice(*np.searchsorted(images["shard_id"], ends))]
        status = np.array(own["status"].to_pylist(), object)
        scored = slice(*np.searchsorted(rows.identity >> 32, ends))
        num_classes = np.bincount(rows.identity[scored] & 0xFFFFFFFF, minlength=num_samples)
        if not np.array_equal(num_classes, classes_per_image * (status == tars.OK)):
            raise DataError(f"{scores_path}: not the scores of {images_path}")
        places = np.cumsum([0, *num_classes]).astype(np.int32)
        columns = {
            "class_ids": pa.ListArray.from_arrays(places, rows.class_id[scored]),
            "log_odds": pa.ListArray.from_arrays(places, rows.log_odds[scored]),
            "status": status,
        }
        yield path, columns | {name: own[name] for name in ("logsumexp", "reason")}

"""Pack a selection as WebDataset shards: image bytes are copied, never re-encoded.

There is one sample for each (image, class) of the selection, so an image that serves several
classes is stored once for each: whoever reads the tars, with any reader, trains on exactly the
paper's D-hat (section 3.2), where every class has its own list of images.
"""

import json
import logging
import multiprocessing
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semisup import memory, schemas, settings, tables, tars
from semisup.images import ImageError
from semisup.progress import Progress
from semisup.samples import read_range, will_read
from semisup.steps import run
from semisup.steps.index_shards import write_manifest
from semisup.tables import DataError

log = logging.getLogger("semisup")

ANNOUNCED = 64
"""Images ahead for which the kernel is told what will be read."""


def main(
    settings: settings.PackSelection,
    selection: Path,
    summary: Path,
    tars: Path,
    manifest: Path,
    samples: Path,
    workers: int,
) -> None:
    """Write the shards of one part in the folder ``tars``, with their index.

    The selection is shuffled by the seed as a whole; part and shard only cut it. Raises DataError
    naming the image when a source tar no longer holds what was scored, or when the selection has not
    the rows its ``summary`` says.
    """
    memory.keep_freed()
    per_shard = settings.samples_per_shard
    num_rows, num_selected = tables.count_rows(selection), tables.read_json(summary)["num_rows"]
    if num_rows != num_selected:
        raise DataError(
            f"{selection}: {num_rows} rows, but {num_selected} were selected. Delete it and run again."
        )
    order = np.random.default_rng([settings.seed, 1]).permutation(num_rows)
    start = settings.first_shard * per_shard
    mine = order[start : start + settings.num_shards * per_shard]
    starts = range(0, len(mine), per_shard)
    name = tars.parent.parent.name
    progress = Progress(f"pack {name}", len(mine))
    folder = tars.with_name(f".{tars.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shard_ids = range(settings.first_shard, settings.first_shard + len(starts))
    paths = [folder / f"{shard_id:06d}.tar" for shard_id in shard_ids]
    rows, shards = [schemas.SAMPLES.empty_table()], []
    num_packed = 0
    try:
        with _processes(min(workers, len(starts))) as each:
            chosen = tables.read_rows(selection, schemas.SELECTION, mine)
            places = np.arange(len(mine))
            cuts = (chosen.take(places[start : start + per_shard]) for start in starts)
            written = each(write_shard, paths, shard_ids, cuts)
            for shard_id, path, (packed, entry) in zip(shard_ids, paths, written, strict=True):
                rows.append(packed)
                num_packed += len(packed)
                shards.append({"shard_id": shard_id, "path": str(tars / path.name), **entry})
                progress.update(num_packed)
        if num_packed != len(mine):
            raise DataError(f"{num_packed} samples packed, {len(mine)} selected; this is a bug.")
        shutil.rmtree(tars, ignore_errors=True)
        folder.rename(tars)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if settings.part == 0:
        _remove_parts_from(settings.num_parts, tars.parent, manifest, samples)
    whole = pa.concat_tables(rows).unify_dictionaries().combine_chunks()
    columns = {name: whole[name] for name in whole.column_names}
    tables.write_table(samples, columns, schemas.SAMPLES)
    write_manifest(manifest, samples, name, settings, shards, {"ok": num_packed})
    log.info("%d samples in %d shards", num_packed, len(shards))


@contextmanager
def _processes(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """``map`` by worker processes, which start at once; threads would wait for each other.

    Forked where that is safe: workers only read, hash and write, and what other threads of this
    process held is nothing to them. Importing everything again would take a sixth of the time.
    """
    if workers <= 1:
        yield map
        return
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, how, initializer=_end_with_parent) as pool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            for _ in range(workers):
                pool.submit(int)
        yield pool.map


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    memory.keep_freed()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _remove_parts_from(num_parts: int, folder: Path, manifest: Path, samples: Path) -> None:
    """Delete what a former, larger selection left: whoever lists the tars must not find it.

    Tables go before their tars: a manifest that stays would stand for tars that are gone.
    """
    for first in (manifest, samples):
        for path in first.parent.glob(first.name.replace("00000", "[0-9]*")):
            if int(re.findall(r"\d+", path.name)[-1]) >= num_parts:
                path.unlink()
    for part in (*folder.glob("[0-9]*"), *folder.glob(".[0-9]*.tmp")):
        if int(part.name.strip(".tmp")) >= num_parts:
            shutil.rmtree(part, ignore_errors=True)


def write_shard(path: Path, shard_id: int, selected: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """Write one tar: for each row its image, its class (``cls``) and where it came from (``json``).

    Returns its rows of SAMPLES, and its size, SHA-256 and number of samples for the manifest.
    """
    keys, offsets, rows = [], [], selected.to_pylist()
    with tars.Writer(path) as tar:
        for i, row in enumerate(rows):
            if i % ANNOUNCED == 0:
                for ahead in rows[i + (ANNOUNCED if i else 0) : i + 2 * ANNOUNCED]:
                    will_read(ahead["shard"], ahead["offset"], ahead["size_bytes"])
            try:
                content = read_range(row["shard"], row["offset"], row["size_bytes"])
            except ImageError as error:
                raise DataError(
                    f"{error}: it should hold the image {row['key']!r}. Restore the tar, or run again "
                    "to index what is there now."
                ) from None
            if tars.content_hash(content) != row["content_hash"]:
                raise DataError(
                    f"{row['shard']}: the image {row['key']!r} is not the one that was indexed. "
                    "The tar was changed; run again to index and score it anew."
                )
            keys.append(f"{row['shard_id']:06d}_{row['sample_index']:06d}_{row['class_id']:05d}")
            members = {
                row["extension"]: content,
                "cls": str(row["class_id"]).encode(),
                "json": _origin(row),
            }
            offsets.append(tar.add(keys[-1], members))
    size_bytes = path.stat().st_size
    columns = {
        "shard_id": [shard_id] * len(rows),
        "sample_index": range(len(rows)),
        "key": keys,
        "offset": offsets,
        **{name: selected[name] for name in ("extension", "size_bytes", "content_hash")},
        "label": selected["class_id"],
        "status": [tars.OK] * len(rows),
        "reason": [""] * len(rows),
    }
    packed = pa.table({name: columns[name] for name in schemas.SAMPLES.names}, schemas.SAMPLES)
    return packed, {"size_bytes": size_bytes, "sha256": tar.sha256, "num_samples": len(rows)}


ORIGIN = [
    *("class_id", "class_name", "class_rank", "key", "log_odds", "prediction_rank"),
    *("sample_index", "score", "shard", "shard_id"),
]


def _origin(row: dict[str, Any]) -> bytes:
    """What the ``json`` member says: where the image is from, and why it is here."""
    origin = {name: row[name] for name in ORIGIN}
    for name in ("score", "log_odds"):
        origin[name] = row[name] and round(row[name], 9)
    return json.dumps(origin).encode()


if __name__ == "__main__":
    run(main)

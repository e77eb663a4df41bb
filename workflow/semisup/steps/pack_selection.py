"""Pack a selection as WebDataset shards: image bytes are copied, never re-encoded.

There is one sample for each (image, class) of the selection, so an image that serves several
classes is stored once for each: whoever reads the tars, with any reader, trains on exactly the
paper's D-hat (section 3.2), where every class has its own list of images.
"""

import hashlib
import json
import logging
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semisup import schemas, settings, tables, tars
from semisup.images import ImageError
from semisup.progress import Progress
from semisup.samples import read_range, will_read
from semisup.steps import run
from semisup.steps.index_shards import write_manifest, write_samples
from semisup.tables import DataError

log = logging.getLogger("semisup")

ANNOUNCED = 128
"""Images ahead for which the kernel is told what will be read."""


def main(
    settings: settings.PackSelection,
    selection: Path,
    tars: Path,
    manifest: Path,
    samples: Path,
    workers: int,
) -> None:
    """Write the shards in the folder ``tars``, shuffled by the seed, with their index.

    Raises DataError naming the image when a source tar no longer holds what was scored.
    """
    num_rows = tables.count_rows(selection)
    starts = range(0, num_rows, settings.samples_per_shard)
    progress = Progress(f"pack {tars.parent.name}", num_rows)
    tars.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{tars.name}.", suffix=".tmp", dir=tars.parent))
    folder.chmod(0o755)
    rows, shards = [], []
    pack = partial(_pack, settings, selection, folder)
    try:
        for shard_id, (packed, entry) in enumerate(_map(pack, range(len(starts)), workers)):
            rows += [(shard_id, index, sample) for index, sample in enumerate(packed)]
            shards.append(entry | {"path": str(tars / Path(entry["path"]).name)})
            progress.update(len(rows))
        if len(rows) != num_rows:
            raise DataError(f"{len(rows)} samples packed, {num_rows} selected; this is a bug.")
        shutil.rmtree(tars, ignore_errors=True)
        folder.rename(tars)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_samples(samples, rows)
    statuses = {"ok": len(rows)}
    write_manifest(manifest, samples, tars.parent.name, 0, shards, statuses)
    log.info("%d samples in %d shards", len(rows), len(shards))


def _map(function: Callable[[int], Any], numbers: range, workers: int) -> Iterator[Any]:
    if min(workers, len(numbers)) <= 1:
        yield from map(function, numbers)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, numbers)


def _pack(
    settings: settings.PackSelection, selection: Path, folder: Path, shard_id: int
) -> tuple[list[tars.Sample], dict[str, Any]]:
    """Write one shard of the shuffled selection; its samples and its entry in the manifest."""
    num_rows = tables.count_rows(selection)
    order = np.random.default_rng([settings.seed, 1]).permutation(num_rows)
    start = shard_id * settings.samples_per_shard
    chosen = tables.read_rows(
        selection, schemas.SELECTION, order[start : start + settings.samples_per_shard]
    )
    path = folder / f"{shard_id:05d}.tar"
    packed, sha256 = write_shard(path, chosen)
    size_bytes, num_samples = path.stat().st_size, len(packed)
    entry = {"shard_id": shard_id, "path": str(path), "size_bytes": size_bytes, "sha256": sha256}
    return packed, entry | {"num_samples": num_samples}


def write_shard(path: Path, chosen: pa.Table) -> tuple[list[tars.Sample], str]:
    """Write one tar: for each row its image, its class (``cls``) and where it came from (``json``).

    Returns the samples and the tar's SHA-256.
    """
    rows = chosen.to_pylist()
    packed = []
    with tars.Writer(path) as tar:
        for i, row in enumerate(rows):
            if i % ANNOUNCED == 0:
                for ahead in rows[i + (ANNOUNCED if i else 0) : i + 2 * ANNOUNCED]:
                    will_read(ahead["shard"], ahead["offset"], ahead["size_bytes"])
            try:
                content = read_range(row["shard"], row["offset"], row["size_bytes"])
            except ImageError as error:
                raise DataError(f"{error}; it was indexed with other bytes.") from None
            if hashlib.sha256(content).digest()[:16] != row["content_hash"]:
                raise DataError(
                    f"{row['shard']}: the image {row['key']!r} is not the one that was indexed. "
                    "The tar was changed; run again to index and score it anew."
                )
            key = f"{row['shard_id']:06d}_{row['sample_index']:06d}_{row['class_id']:05d}"
            offset = tar.add(f"{key}.{row['extension']}", content)
            tar.add(f"{key}.cls", str(row["class_id"]).encode())
            tar.add(f"{key}.json", json.dumps(_origin(row), sort_keys=True).encode())
            packed.append(
                tars.Sample(
                    key,
                    row["extension"],
                    offset,
                    row["size_bytes"],
                    row["content_hash"],
                    row["class_id"],
                    tars.OK,
                    "",
                )
            )
    return packed, tar.sha256


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("class_id", "class_name", "class_rank", "key", "shard")},
        **{name: row[name] for name in ("prediction_rank", "shard_id", "sample_index")},
        "score": round(row["score"], 9),
        "log_odds": round(row["log_odds"], 6),
    }


if __name__ == "__main__":
    run(main)

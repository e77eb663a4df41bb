"""Pack a selection as WebDataset shards: image bytes are copied, never re-encoded.

There is one sample for each (image, class) of the selection, so an image that serves several
classes is stored once for each: whoever reads the tars, with any reader, trains on exactly the
paper's D-hat (section 3.2), where every class has its own list of images.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from semisup import schemas, settings, tables, tars
from semisup.images import ImageError
from semisup.progress import Progress
from semisup.samples import read_range, read_samples
from semisup.steps import run
from semisup.steps.index_shards import write_manifest, write_samples
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.PackSelection,
    selection: Path,
    first_manifest: Path,
    tars: Path,
    manifest: Path,
    samples: Path,
) -> None:
    """Write the shards in the folder ``tars``, shuffled by the seed, with their index.

    Raises DataError naming the image when a source tar no longer holds what was scored.
    """
    chosen = tables.read_table(selection, schemas.SELECTION)
    order = np.random.default_rng([settings.seed, 1]).permutation(len(chosen))
    manifests = tables.part_paths(first_manifest, settings.num_parts)
    sources = _sources(chosen, manifests)
    progress = Progress(f"pack {tars.parent.name}", len(chosen))
    tars.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{tars.name}.", suffix=".tmp", dir=tars.parent))
    folder.chmod(0o755)
    rows, shards = [], []
    try:
        for shard_id, start in enumerate(range(0, len(order), settings.samples_per_shard)):
            span = order[start : start + settings.samples_per_shard]
            name = f"{shard_id:05d}.tar"
            packed = write_shard(folder / name, chosen.take(span), [sources[i] for i in span])
            rows += [(shard_id, index, sample) for index, sample in enumerate(packed)]
            shards.append(
                {
                    "shard_id": shard_id,
                    "path": str(tars / name),
                    "size_bytes": (folder / name).stat().st_size,
                    "sha256": tables.file_sha256(folder / name),
                    "num_samples": len(packed),
                }
            )
            progress.update(start + len(packed))
        if len(rows) != len(chosen):
            raise DataError(f"{len(rows)} samples packed, {len(chosen)} selected; this is a bug.")
        shutil.rmtree(tars, ignore_errors=True)
        folder.rename(tars)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_samples(samples, rows)
    statuses = {"ok": len(rows)}
    write_manifest(manifest, samples, tars.parent.name, 0, shards, statuses)
    log.info("%d samples in %d shards", len(rows), len(shards))


def write_shard(
    path: Path, chosen: pa.Table, sources: list[tuple[str, str, int, int, bytes]]
) -> list[tars.Sample]:
    """Write one tar: for each row its image, its class (``cls``) and where it came from (``json``).

    ``sources``: (tar, extension, offset, size, content hash) of each row.
    """
    packed = []
    with tars.open_writer(path) as tar:
        for row, source in zip(chosen.to_pylist(), sources, strict=True):
            shard, extension, offset, size, content_hash = source
            try:
                content = read_range(shard, offset, size)
            except ImageError as error:
                raise DataError(f"{error}; it was indexed with other bytes.") from None
            if hashlib.sha256(content).digest()[:16] != content_hash:
                raise DataError(
                    f"{shard}: the image {row['key']!r} is not the one that was indexed. "
                    "The tar was changed; run again to index and score it anew."
                )
            key = f"{row['shard_id']:06d}_{row['sample_index']:06d}_{row['class_id']:05d}"
            origin = {**row, "score": round(row["score"], 9), "log_odds": round(row["log_odds"], 6)}
            image_offset = tars.add_member(tar, f"{key}.{extension}", content)
            tars.add_member(tar, f"{key}.cls", str(row["class_id"]).encode())
            tars.add_member(tar, f"{key}.json", json.dumps(origin, sort_keys=True).encode())
            packed.append(
                tars.Sample(
                    key, extension, image_offset, size, content_hash, row["class_id"], tars.OK, ""
                )
            )
    return packed


def _sources(chosen: pa.Table, manifests: list[Path]) -> list[tuple[str, str, int, int, bytes]]:
    """Where the image of each row lies: (tar, extension, offset, size, content hash)."""
    wanted = tables.identity(chosen)
    sources: list[tuple[str, str, int, int, bytes] | None] = [None] * len(wanted)
    for manifest in manifests:
        samples = read_samples([manifest])
        identities = tables.identity(samples.table)
        here = np.flatnonzero(np.isin(wanted, identities))
        found = samples.table.take(np.searchsorted(identities, wanted[here])).to_pylist()
        for i, row in zip(here.tolist(), found, strict=True):
            sources[i] = (
                samples.shard_paths[row["shard_id"]],
                row["extension"],
                row["offset"],
                row["size_bytes"],
                row["content_hash"],
            )
    return [source for source in sources if source is not None]


if __name__ == "__main__":
    run(main)

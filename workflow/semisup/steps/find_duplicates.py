"""Find the images of one part of U that are close to an evaluation image.

The pairs stay in a work folder under a name that says from what they were made: a job that is run
again with the same copies them.
"""

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np

from semisup import models, schemas, settings, tables
from semisup.neighbors import Neighbors
from semisup.samples import read_samples
from semisup.steps import run
from semisup.steps.extract_features import describe
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.FindDuplicates,
    manifest: Path,
    features: list[Path],
    evaluation_manifests: list[Path],
    weights: Path,
    pairs: Path,
    workers: int,
) -> None:
    """Search every evaluation set for the images of the part; write the close pairs, sorted."""
    made_from = hashlib.sha256(f"{settings.canonical()}{models.numerics('float32')}".encode())
    for path in (manifest, *evaluation_manifests, *features, weights):
        made_from.update(tables.file_sha256(path).encode())
    found = pairs.parent / "work" / f"{pairs.stem}-{made_from.hexdigest()[:32]}.parquet"
    if not _is_whole(found):
        search(settings, manifest, features, evaluation_manifests, weights, found, workers)
    with tables.atomic_path(pairs) as temporary:
        shutil.copyfile(found, temporary)
    part = f"{pairs.stem}-*"
    for other in (*found.parent.glob(part), *found.parent.glob(f".{part}.tmp")):
        if other != found:
            other.unlink(missing_ok=True)


def _is_whole(pairs: Path) -> bool:
    try:
        tables.read_table(pairs, schemas.DUPLICATES)
    except DataError:
        return False
    return True


def search(
    settings: settings.FindDuplicates,
    manifest: Path,
    features: list[Path],
    evaluation_manifests: list[Path],
    weights: Path,
    pairs: Path,
    workers: int,
) -> None:
    """Describe the images of the part and write the pairs they make with evaluation images."""
    samples = read_samples([manifest])
    rows, vectors = describe(samples, models.load(weights), workers)
    keys = np.array(samples.table["key"].to_pylist(), object)
    found = []
    for path in features:
        evaluation = _read_evaluation(path.stem, evaluation_manifests)
        table = tables.read_table(path, schemas.FEATURES)
        matches = np.stack(table["feature"].to_numpy())
        close = Neighbors(matches).within(vectors, settings.record_distance) if len(rows) else None
        if close is None:
            continue
        row, match = rows[close.query], close.match
        identity = tables.identity(table)[match]
        shard_ids, sample_indices = tables.split_identity(identity)
        found.append(
            {
                "shard_id": samples.table["shard_id"].to_numpy()[row],
                "sample_index": samples.table["sample_index"].to_numpy()[row],
                "key": keys[row],
                "evaluation_dataset": np.full(len(row), path.stem, object),
                "evaluation_shard_id": shard_ids,
                "evaluation_sample_index": sample_indices,
                "evaluation_key": np.array([evaluation[i] for i in identity], object),
                "distance": close.distance,
            }
        )
        log.info("%d pairs with %s", len(row), path.stem)
    write_pairs(pairs, found)


def write_pairs(path: Path, blocks: list[dict[str, np.ndarray]]) -> None:
    """Write all blocks of pairs in the order of the format: closest first."""
    names = schemas.DUPLICATES.names
    columns = {
        name: np.concatenate([block[name] for block in blocks] or [np.empty(0, object)])
        for name in names
    }
    order = np.lexsort(
        [
            columns["evaluation_sample_index"],
            columns["evaluation_shard_id"],
            columns["evaluation_dataset"].astype(str),
            columns["sample_index"],
            columns["shard_id"],
            columns["distance"],
        ]
    )
    tables.write_table(path, {name: columns[name][order] for name in names}, schemas.DUPLICATES)


def _read_evaluation(dataset: str, manifests: list[Path]) -> dict[int, str]:
    """Keys of an evaluation set by identity."""
    own = [path for path in manifests if tables.read_json(path)["dataset"] == dataset]
    samples = read_samples(own)
    identities = tables.identity(samples.table).tolist()
    return dict(zip(identities, samples.table["key"].to_pylist(), strict=True))


if __name__ == "__main__":
    run(main)

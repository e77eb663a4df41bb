"""Which images of U may not be selected: near-duplicates of evaluation images, and copies."""

from pathlib import Path

import numpy as np
import pandas as pd

from semisup import schemas, tables
from semisup.config import Remove
from semisup.selection import closest_images
from semisup.tables import DataError

DUPLICATE = "duplicate_of_evaluation"
COPY = "copy"


def removed_images(
    remove: Remove | None,
    pairs: list[Path],
    copies: list[Path],
    reviewed: list[Path],
    manifests: list[Path],
) -> pd.DataFrame:
    """identity, reason, distance of every image that may not be selected, by identity, once each."""
    found = {"identity": np.empty(0, np.int64), "reason": "", "distance": np.empty(0, np.float32)}
    blocks = [pd.DataFrame(found)]
    if remove:
        for path in pairs:
            blocks.append(_close_images(remove, path, reviewed, manifests))
        for path in copies if remove.copies else []:
            identities = tables.identity(tables.read_table(path, schemas.COPIES))
            blocks.append(pd.DataFrame({"identity": identities, "reason": COPY, "distance": None}))
    together = pd.concat([block for block in blocks if len(block)] or blocks)
    return together.drop_duplicates("identity").sort_values("identity", ignore_index=True)


def _close_images(
    remove: Remove, path: Path, reviewed: list[Path], manifests: list[Path]
) -> pd.DataFrame:
    table = tables.read_table(path, schemas.DUPLICATES)
    identities, distances = tables.identity(table), table["distance"].to_numpy()
    close, nearest = closest_images(identities, distances, remove.closest, remove.max_distance)
    distance = dict(zip(close.tolist(), nearest.tolist(), strict=True))
    for review in reviewed:
        for identity, decision in _read_review(review, manifests).items():
            if decision == "keep":
                distance.pop(identity, None)
            else:
                own = distances[identities == identity]
                distance[identity] = float(own.min()) if len(own) else float("nan")
    return pd.DataFrame(
        {"identity": list(distance), "reason": DUPLICATE, "distance": list(distance.values())}
    )


def _read_review(path: Path, manifests: list[Path]) -> dict[int, str]:
    """Decisions by identity; raises DataError on anything but known images and keep or remove."""
    try:
        review = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from None
    columns = ["shard_id", "sample_index", "decision"]
    if missing := [name for name in columns if name not in review]:
        raise DataError(f"{path}: columns {missing} are missing; it has {list(review.columns)}.")
    wrong = sorted(set(review["decision"].astype(str)) - {"keep", "remove"})
    if wrong:
        raise DataError(f"{path}: decision must be keep or remove, not {wrong[:3]}.")
    num_samples = {
        shard["shard_id"]: shard["num_samples"]
        for manifest in manifests
        for shard in tables.read_json(manifest)["shards"]
    }
    shard_ids = review["shard_id"].to_numpy(np.int64)
    sample_indices = review["sample_index"].to_numpy(np.int64)
    unknown = [
        (shard_id, index)
        for shard_id, index in zip(shard_ids.tolist(), sample_indices.tolist(), strict=True)
        if not 0 <= index < num_samples.get(shard_id, 0)
    ]
    if unknown:
        raise DataError(f"{path}: {len(unknown)} images are not in U, first {unknown[:3]}.")
    identities = (shard_ids << 32) | sample_indices
    return dict(zip(identities.tolist(), review["decision"], strict=True))

"""The tables of a selection and of its shards, made without a teacher."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from semisup import schemas, settings, tables, tars
from semisup.plan import Plan
from semisup.samples import read_samples
from semisup.selection import score_of
from semisup.steps import index_shards


def select(plan: Plan, name: str, broken: Iterable[str]) -> None:
    """Of each class the first images with its label, of the first two clutter; the last is empty."""
    selection = plan.config.selections[name]
    classes = plan.stage_classes(selection.teacher, "train")
    samples = read_samples(map(Path, plan.manifests(selection.unlabeled)))
    removed = [(0, 0), (0, 1), (1, 3)] if plan.config.duplicates else []
    free = [
        row
        for row in samples.table.to_pylist()
        if not row["key"].endswith(tuple(broken))
        and (row["shard_id"], row["sample_index"]) not in removed
    ]
    rows = []
    for class_id in range(len(classes) - 1):
        clutter = class_id < 2
        fitting = [r for r in free if r["label"] == class_id or (r["label"] is None and clutter)]
        for rank, row in enumerate(fitting[: selection.images_per_class], start=1):
            rows.append({**row, "class_id": class_id, "class_rank": rank, "log_odds": 3.0 - rank})
    log_odds = np.array([row["log_odds"] for row in rows], np.float32)
    columns = {
        n: [row[n] for row in rows]
        for n in ("class_id", "class_rank", "shard_id", "sample_index", "key")
    }
    columns |= {
        "class_name": [classes[row["class_id"]] for row in rows],
        "score": score_of(log_odds),
        "log_odds": log_odds,
        "prediction_rank": [1] * len(rows),
        "shard": [samples.shard_paths[row["shard_id"]] for row in rows],
        **{
            n: [row[n] for row in rows]
            for n in ("extension", "offset", "size_bytes", "content_hash")
        },
    }
    folder = Path(f"{plan.results}/selections/{name}")
    tables.write_table(folder / "selection.parquet", columns, schemas.SELECTION)
    reasons = ["duplicate_of_evaluation", "duplicate_of_evaluation", "copy"]
    gone = {
        "shard_id": [shard_id for shard_id, _ in removed],
        "sample_index": [index for _, index in removed],
        "reason": reasons[: len(removed)],
        "distance": [0.05, 0.1, None][: len(removed)],
    }
    tables.write_table(folder / "removed.parquet", gone, schemas.REMOVED)
    num_images = [sum(row["class_id"] == i for row in rows) for i in range(len(classes))]
    num_scored = len(samples.table) - len(tuple(broken))
    summary = {
        "selection_sha256": tables.file_sha256(folder / "selection.parquet"),
        "num_rows": len(rows),
        "num_distinct": len({(row["shard_id"], row["sample_index"]) for row in rows}),
        "num_scored": num_scored,
        "num_not_drawn": 0,
        "num_candidates": num_scored - len(removed),
        "removed": {reason: reasons[: len(removed)].count(reason) for reason in set(reasons)},
        "classes": [
            {
                "class_id": i,
                "class_name": class_name,
                "num_wanted": selection.images_per_class,
                "num_images": num_images[i],
                "cut_log_odds": 3.0 - num_images[i] if num_images[i] else None,
                "cut_score": 0.5 if num_images[i] else None,
                "cut_logit": None,
            }
            for i, class_name in enumerate(classes)
        ],
    }
    tables.write_json(folder / "summary.json", summary)
    _pack(plan, name, rows)


def _pack(plan: Plan, name: str, rows: list[dict[str, Any]]) -> None:
    manifest, samples = Path(plan.manifests(name)[0]), Path(plan.samples(name)[0])
    packed = [
        (0, i, tars.Sample(row["key"], "jpg", 0, 1, b"0" * 16, row["class_id"], tars.OK, ""))
        for i, row in enumerate(rows)
    ]
    index_shards.write_samples(samples, packed)
    tar = manifest.with_name("0.tar")
    tar.write_bytes(b"0")
    shard: dict[str, object] = {"shard_id": 0, "path": str(tar), "size_bytes": 1, "sha256": "0"}
    shards = [{**shard, "num_samples": len(rows)}]
    made = plan.pack_selection(SimpleNamespace(selection=name, part="00000"))
    own = settings.PackSelection.model_validate_json(made)
    index_shards.write_manifest(manifest, samples, name, own, shards, {"ok": len(rows)})

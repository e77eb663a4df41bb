"""A small results folder with every table the report reads, made without training anything."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_selection import select
from PIL import Image

from semisup import schemas, settings, tables, tars
from semisup.checks import load_config, trainings
from semisup.metrics import wilson_interval
from semisup.plan import Plan
from semisup.report.accounts import count_labelled
from semisup.samples import read_samples
from semisup.steps import index_shards

NUM_TEST = 40
BROKEN = {"empty": b"", "not_an_image": b"no image at all"}


def make_config(folder: Path, classes: list[str]) -> dict[str, Any]:
    """A teacher, a student with its baseline, one selection, near-duplicates; change it freely."""
    shards = {"labeled": 1, "unlabeled": 2, "test": 1}
    recipe = {"images": 100, "global_batch_size": 10}
    return {
        "results": str(folder / "results"),
        "datasets": {
            name: {"shards": f"{folder}/{name}-{{0..{n - 1}}}.tar", "classes": classes}
            for name, n in shards.items()
        }
        | {
            "unlabeled": {
                "shards": f"{folder}/unlabeled-{{0..1}}.tar", "classes": classes,
                "labels": True, "shards_per_part": 1,
            }
        },
        "models": {
            "teacher": {"arch": "resnet50", "train": {"on": "labeled", "recipe": "small"}},
            "student": {
                "arch": "resnet18",
                "pretrain": {"on": "top", "recipe": "small"},
                "finetune": {"on": "labeled", "recipe": "small"},
            },
            "baseline": {
                "baseline_of": "student", "train": {"on": "labeled", "recipe": "small"},
            },
        },
        "selections": {"top": {"teacher": "teacher", "unlabeled": "unlabeled", "images_per_class": 5}},
        "recipes": {"small": recipe},
        "duplicates": {"descriptor": "teacher", "remove": {"max_distance": 0.1}},
        "evaluate": {"on": ["test"]},
    }  # fmt: skip


def jpeg(seed: int, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 3, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tars(folder: Path, num_classes: int, prefix: str = "") -> None:
    """``prefix`` of every key; image 3 of the second unlabelled tar is a copy of its image 2."""

    def samples(first: int, number: int, labelled: bool = True) -> Iterator[tuple[str, Any]]:
        for i in range(first, first + number):
            label = i % num_classes if labelled else -1
            yield f"{prefix}{i:04d}", {"jpg": jpeg(i), "cls": str(label).encode()}

    tars.write_tar(folder / "labeled-0.tar", samples(0, 2 * num_classes))
    tars.write_tar(folder / "test-0.tar", samples(1000, NUM_TEST))
    broken = [(f"{prefix}{kind}", {"jpg": content}) for kind, content in BROKEN.items()]
    tars.write_tar(folder / "unlabeled-0.tar", [*samples(2000, 20), *samples(3000, 4, False)])
    second = [*samples(4000, 20)]
    second[3] = (second[3][0], second[2][1])
    tars.write_tar(folder / "unlabeled-1.tar", [*second, *broken])


def make_results(
    config: dict[str, Any], student_hits: int = 36, baseline_hits: int = 20
) -> settings.Report:
    """Every table below ``config["results"]``, for tars that exist; returns the step's settings."""
    plan = Plan(load_config(config))
    for name in plan.config.datasets:
        _index(plan, name)
    for teacher, unlabeled in {(s.teacher, s.unlabeled) for s in plan.config.selections.values()}:
        _score(plan, teacher, unlabeled)
        if plan.config.duplicates:
            _find_duplicates(plan, unlabeled)
    for name in plan.config.selections:
        select(plan, name, BROKEN)
    if plan.config.duplicates:
        _measure_leaks(plan)
    for name, model in plan.config.models.items():
        for stage in trainings(model):
            _train(plan, name, stage)
    for name, stage in plan.evaluated_stages():
        _evaluate(plan, name, stage, baseline_hits if name == "baseline" else student_hits)
    return settings.Report.model_validate_json(plan.report(SimpleNamespace()))


def _index(plan: Plan, name: str) -> None:
    for part, (manifest, samples) in enumerate(
        zip(plan.manifests(name), plan.samples(name), strict=True)
    ):
        raw = plan.index_shards(SimpleNamespace(dataset=name, part=f"{part:05d}"))
        own = settings.IndexShards.model_validate_json(raw)
        index_shards.main(own, Path(manifest), Path(samples))


def _score(plan: Plan, teacher: str, unlabeled: str) -> None:
    folder = Path(f"{plan.results}/scores/{teacher}/{unlabeled}")
    samples = read_samples(map(Path, plan.manifests(unlabeled)))
    rows = [row for row in samples.table.to_pylist() if row["key"].endswith(tuple(BROKEN))]
    statuses = {"ok": len(samples.table) - len(rows), "empty": 1, "not_an_image": 1}
    failures = {
        "shard_id": [row["shard_id"] for row in rows],
        "sample_index": [row["sample_index"] for row in rows],
        "key": [row["key"] for row in rows],
        "shard": [samples.shard_paths[row["shard_id"]] for row in rows],
        "status": list(BROKEN),
        "reason": ["the file has no bytes", "no known image format"],
    }
    tables.write_table(folder / "failures.parquet", failures, schemas.FAILURES)
    counts = {
        "num_samples": len(samples.table),
        "statuses": statuses,
        "num_scored": statuses["ok"],
        "num_score_rows": statuses["ok"] * plan.stored_classes(teacher),
    }
    tables.write_json(folder / "images.json", counts)


def _find_duplicates(plan: Plan, unlabeled: str) -> None:
    """Samples 0 to 3 of the first tar are close to test images, at distances 0.05, 0.1, 0.15..."""
    folder = Path(f"{plan.results}/duplicates/{unlabeled}")
    pairs = {
        "shard_id": [0] * 4,
        "sample_index": range(4),
        "key": [f"duplicate {i}" for i in range(4)],
        "evaluation_dataset": ["test"] * 4,
        "evaluation_shard_id": [0] * 4,
        "evaluation_sample_index": range(4),
        "evaluation_key": [f"original {i}" for i in range(4)],
        "distance": np.array([0.05, 0.1, 0.15, 0.2], np.float32),
    }
    tables.write_table(folder / "pairs.parquet", pairs, schemas.DUPLICATES)
    nearest = {name: pairs[name] for name in schemas.NEAREST.names}
    first, *others = plan.duplicate_tables(unlabeled, "nearest")
    tables.write_table(Path(first), nearest, schemas.NEAREST)
    for path in map(Path, others):
        tables.write_table(path, {name: [] for name in nearest}, schemas.NEAREST)
    copies = {
        "shard_id": [1],
        "sample_index": [3],
        "first_dataset": [unlabeled],
        "first_shard_id": [1],
        "first_sample_index": [2],
        "same": ["bytes"],
    }
    tables.write_table(folder / "copies.parquet", copies, schemas.COPIES)


def _measure_leaks(plan: Plan) -> None:
    """Test images 0 and 1 are leaked into D, 38 and 39 into every selection; one has no feature."""
    folder = Path(f"{plan.results}/duplicates")
    sources = [("labeled", 0), ("labeled", 1)]
    sources += [(name, i) for name in plan.config.selections for i in (38, 39)]
    leaks = {
        "source": [source for source, _ in sources],
        "by": ["features" if i % 2 else "perceptual hash" for _, i in sources],
        "evaluation_dataset": ["test"] * len(sources),
        "evaluation_shard_id": [0] * len(sources),
        "evaluation_sample_index": [i for _, i in sources],
        "distance": [0.05] * len(sources),
    }
    tables.write_table(folder / "leaks.parquet", leaks, schemas.LEAKS)
    summary = {"cut": 0.1, "complete_to": {"unlabeled": 0.08}, "repeated_hashes": {"test": 3}}
    summary["not_compared"] = {"test": {"truncated_image": 2}, "unlabeled": {"zero_feature": 5}}
    tables.write_json(folder / "leaks.json", summary)
    kinds = ["mirrored", "JPEG, quality 40"] * 10
    calibration = {
        "evaluation_dataset": ["test"] * 20,
        "evaluation_shard_id": [0] * 20,
        "evaluation_sample_index": [i // 2 for i in range(20)],
        "kind": kinds,
        "distance": [0.01 * i for i in range(20)],
        "distance_to_others": [0.1 + 0.01 * i for i in range(20)],
        "bits": [30, 0] * 10,
    }
    tables.write_table(folder / "calibration.parquet", calibration, schemas.CALIBRATION)


def _train(plan: Plan, name: str, stage: str) -> None:
    images = plan.recipe(name, stage).images
    samples = count_labelled(plan, trainings(plan.config.models[name])[stage].on)
    metrics = {
        "step": [1, 2],
        "images": [images // 2, images],
        "samples": [samples, samples],
        "lr": [0.1, 0.0],
        "loss": [2.0, 1.0],
        "top1": [0.5, 0.75],
        "loaded": [images // 2, images],
        "failed": [0, 0],
    }
    path = Path(f"{plan.results}/models/{name}/{stage}/metrics.parquet")
    tables.write_table(path, metrics, schemas.METRICS)


def _evaluate(plan: Plan, model: str, stage: str, num_hits: int) -> None:
    """Right on the first ``num_hits`` images of every evaluation set."""
    evaluations: dict[str, list[Any]] = {name: [] for name in schemas.EVALUATIONS.names}
    predictions: dict[str, list[Any]] = {name: [] for name in schemas.PREDICTIONS.names}
    for dataset in sorted(plan.config.evaluate.on):
        table = read_samples(map(Path, plan.manifests(dataset))).table
        low, high = wilson_interval(num_hits, len(table))
        row = {
            "model": model,
            "stage": stage,
            "dataset": dataset,
            "num_images": len(table),
            "num_failed": 0,
        }
        for k in ("top1", "top5"):
            row |= {k: num_hits / len(table), f"{k}_low": low, f"{k}_high": high}
        for i, sample in enumerate(table.to_pylist()):
            right = i < num_hits
            predictions["dataset"].append(dataset)
            predictions["shard_id"].append(sample["shard_id"])
            predictions["sample_index"].append(sample["sample_index"])
            predictions["label"].append(sample["label"])
            predictions["class_id"].append(sample["label"] if right else sample["label"] + 1)
            predictions["score"].append(0.5)
            predictions["label_rank"].append(1 if right else 2)
        for column, value in row.items():
            evaluations[column].append(value)
    folder = Path(plan.results)
    tables.write_table(
        folder / f"evaluations/{model}/{stage}.parquet", evaluations, schemas.EVALUATIONS
    )
    tables.write_table(
        folder / f"predictions/{model}/{stage}.parquet", predictions, schemas.PREDICTIONS
    )

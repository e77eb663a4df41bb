"""What every step makes of a fixed input. `python tests/golden.py` records it in golden.json.

Steps without a network: a digest of what their files hold. Steps with one: numbers, which other
processors round otherwise, compared to a thousandth.
"""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

if __name__ == "__main__":
    ROOT = Path(__file__).parents[1]
    sys.path[:0] = [str(ROOT / name) for name in ("workflow", "tests", "tests/steps")]

import numpy as np
import pyarrow.parquet as pq

import golden_inputs as inputs
from golden_outputs import digest, numbers, summary_digest, vectors
from semisup import images, models, schemas, settings, tables
from semisup.config import Recipe, Remove
from semisup.features import pack
from semisup.steps import (
    calibrate_duplicates,
    choose_candidate,
    count_images,
    evaluate,
    extract_features,
    find_copies,
    find_duplicates,
    find_near_copies,
    import_weights,
    make_cifar10,
    make_digits,
    make_review_page,
    measure_leaks,
    merge_duplicates,
    merge_near_copies,
    pack_folder,
    pack_selection,
    score_and_describe,
    score_shards,
    select,
    sort_into_cells,
    train,
    train_cells,
)
from small import square

GOLDEN = Path(__file__).with_name("golden.json")
DESCRIBE = settings.ExtractFeatures(batch_size=4, precision="float32")
SCORE = settings.ScoreShards(classes_per_image=2, batch_size=4, precision="float32")
REMOVE = Remove(closest=3)
HAND, PAIRS, TOP = "features/hand", "duplicates/u/pairs.parquet", "selections/top"
COPIES = "duplicates/u/copies.parquet"
ENCODED = ("JPEG, quality 40", "caption strip")


def record() -> dict[str, dict[str, Any]]:
    """By the name of its settings: the version of each step and what it makes."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main").mkdir()
        os.chdir(Path(folder) / "main")
        try:
            inputs.prepare()
            return {
                kind.__name__: {"version": version(kind), "made": make()}
                for kind, make in STEPS.items()
            }
        finally:
            os.chdir(before)


def version(kind: type[settings.Settings]) -> int:
    (number,) = get_args(kind.model_fields["version"].annotation)
    return int(number)


def of_digits() -> str:
    make_digits.main(settings.MakeDigits(seed=1), Path("digits"))
    return digest("digits")


def of_cifar10() -> str:
    from test_make_cifar10 import CLUTTER, SIZES, TEST, TRAIN, label, write_xz

    for name in (TRAIN, TEST, CLUTTER):
        samples = [
            (f"{i:05d}", {"jpg": b"%d" % i, "cls": label(name, i)}) for i in range(SIZES[name])
        ]
        write_xz(Path("../shared/data") / name, samples)
    make_cifar10.main(settings.MakeCifar10(seed=0, num_labels=40), Path("cifar10"))
    return digest("cifar10")


def of_folder() -> str:
    made = settings.PackFolder(folder="photos", classes=["a", "b"], num_shards=2, stamp="")
    pack_folder.main(made, Path("packed_folder"))
    return digest("packed_folder")


def of_weights() -> str:
    made = settings.ImportWeights(
        arch=inputs.ARCH, preprocessing=square(8), weights="checkpoint.pth", classes=inputs.CLASSES
    )
    import_weights.main(made, Path("imported.pt"), Path("imported.txt"))
    weights = models.load(Path("imported.pt"))
    state = hashlib.sha256(repr((weights[:4], [*weights.state])).encode())
    for tensor in weights.state.values():
        state.update(tensor.numpy().tobytes())
    return state.hexdigest()


def of_training() -> list[float]:
    recipe = Recipe(
        images=36, global_batch_size=9, base_lr=0.1, crop="padded", mixup=0.2, cpu_threads=1
    )
    made = settings.Train(
        arch=inputs.ARCH, preprocessing=square(8), classes=inputs.CLASSES, recipe=recipe, seed=2
    )
    names = [
        Path("trained", name) for name in ("c", "weights.pt", "classes.txt", "metrics.parquet")
    ]
    train.main(made, [Path("index/d/manifest-00000.json")], [Path("weights.pt")], *names, workers=0)
    return numbers("trained/metrics.parquet", "step", "images", "lr", "loss", "loaded", "failed")


def of_choice() -> str:
    rows: dict[str, list[Any]] = {"model": ["m"], "stage": ["s"], "dataset": ["v"]}
    for i, (top1, loss) in enumerate(((0.5, 1.0), (0.7, 1.0), (0.9, math.nan))):
        values = {name: [top1] for name in schemas.EVALUATIONS.names if name.startswith("top")}
        table = {**rows, "num_images": [10], "num_failed": [0], **values}
        tables.write_table(Path(f"sweep/{i}.parquet"), table, schemas.EVALUATIONS)
        for name in ("weights.pt", "classes.txt"):
            tables.write_bytes(Path(f"sweep/{i}/{name}"), b"%d" % i)
        metrics = {name: [1] for name in schemas.METRICS.names} | {"loss": [loss]}
        tables.write_table(Path(f"sweep/{i}/metrics.parquet"), metrics, schemas.METRICS)
    outputs = ("weights.pt", "classes.txt", "metrics.parquet", "sweep.parquet")
    choose_candidate.main(
        settings.ChooseCandidate(base_lr=[0.1, 0.2, 0.3]),
        [Path(f"sweep/{i}/weights.pt") for i in range(3)],
        [Path(f"sweep/{i}.parquet") for i in range(3)],
        *(Path("chosen", name) for name in outputs),
    )
    return digest("chosen")


def of_features(name: str = "d") -> list[Any]:
    outputs = [f"described/{name}/{table}-00000.parquet" for table in ("part", "images")]
    manifest = Path(f"index/{name}/manifest-00000.json")
    extract_features.main(DESCRIBE, manifest, Path("weights.pt"), *map(Path, outputs), 0)
    return [digest(outputs[1]), *vectors(outputs[0])]


def of_duplicates() -> str:
    for part in range(3):
        find_duplicates.main(
            settings.FindDuplicates(record_distance=1.2, max_pairs=20, evaluation={"d": 1}),
            Path(f"index/u/manifest-{part:05d}.json"), Path(f"{HAND}/u/part-{part:05d}.parquet"),
            [Path(f"{HAND}/d/part-00000.parquet")], [Path("index/d/manifest-00000.json")],
            Path(f"duplicates/u/part-{part:05d}.parquet"),
            Path(f"duplicates/u/nearest-{part:05d}.parquet"), 1,
        )  # fmt: skip
    return digest(
        *(f"duplicates/u/{n}-{p:05d}.parquet" for n in ("part", "nearest") for p in range(3))
    )


def of_merged_duplicates() -> str:
    of_duplicates()
    made = settings.MergeDuplicates(num_parts=3, max_pairs=20)
    merge_duplicates.main(made, Path("duplicates/u/part-00000.parquet"), Path(PAIRS))
    return digest(PAIRS)


def of_copies() -> str:
    find_copies.main(
        settings.FindCopies(num_parts=3, evaluation={"d": 1}),
        Path(f"{HAND}/u/images-00000.parquet"), Path("index/u/manifest-00000.json"),
        [Path(f"{HAND}/d/images-00000.parquet")], [Path("index/d/manifest-00000.json")],
        Path(COPIES),
    )  # fmt: skip
    return digest(COPIES)


def of_review() -> str:
    """Of the data of the page, but for its pictures."""
    of_merged_duplicates()
    made = settings.MakeReviewPage(
        num_pairs=5,
        num_parts=3,
        evaluation={"d": 1},
        classes=inputs.CLASSES,
        own_classes=None,
    )
    manifests = [Path(f"index/{name}/manifest-00000.json") for name in ("u", "d")]
    make_review_page.main(made, Path(PAIRS), manifests[0], manifests[1:], Path("review.html"))
    page = Path("review.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert all(data.pop("pictures"))
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def of_cells() -> list[Any]:
    made = settings.TrainCells(num_parts=2, num_cells=3, seed=1)
    train_cells.main(made, Path("crowd/part-00000.parquet"), Path("trained.parquet"))
    rows = pq.read_table("trained.parquet")["feature"].to_pylist()
    return [float(x) for row in rows for x in np.frombuffer(row, "<f2")]


def of_sorting() -> str:
    centroids = np.eye(3, 8).astype(np.float16)
    tables.write_table(Path("centroids.parquet"), {"feature": pack(centroids)}, schemas.CENTROIDS)
    for part in range(3):
        sort_into_cells.main(
            settings.SortIntoCells(num_groups=2), Path(f"{HAND}/u/part-{part:05d}.parquet"),
            Path("centroids.parquet"), Path(f"cells/cells-{part:05d}.parquet"),
        )  # fmt: skip
    return digest("cells")


def of_near_copies() -> str:
    of_sorting()
    for group in range(2):
        made = settings.FindNearCopies(num_parts=3, group=group, max_distance=0.4)
        path = Path(f"near/near_copies-{group:05d}.parquet")
        find_near_copies.main(made, Path("cells/cells-00000.parquet"), path, 1)
    return digest("near")


def of_merged_near_copies() -> str:
    of_near_copies()
    made = settings.MergeNearCopies(num_groups=2)
    first, merged = Path("near/near_copies-00000.parquet"), "near_copies.parquet"
    merge_near_copies.main(made, first, Path(merged))
    return digest(merged)


def of_calibration() -> list[Any]:
    of_features("e")
    made = settings.CalibrateDuplicates(
        num_images=2, seed=3, precision="float32", evaluation={"e": 1}
    )
    calibrate_duplicates.main(
        made, [Path("described/e/part-00000.parquet")], [Path("index/e/manifest-00000.json")],
        Path("weights.pt"), Path("calibration.parquet"), 1,
    )  # fmt: skip
    rows = pq.read_table("calibration.parquet").to_pylist()
    names = ("evaluation_sample_index", "kind", "bits", "distance", "distance_to_others")
    # An encoder and a font have a say in the other kinds.
    return [row[n] for row in rows if row["kind"] not in ENCODED for n in names]


def of_leaks() -> str:
    of_selection()
    made = settings.MeasureLeaks(
        descriptor="hand", leak_distance=None, record_distance=1.2, max_pairs=20, remove=REMOVE,
        evaluation=["d"], labelled=[], unlabeled=["u"], selections={"top": "u"},
        num_parts={"u": 3, "d": 1},
    )  # fmt: skip
    measure_leaks.main(made, Path(), Path("leaks.parquet"), Path("leaks.json"))
    return digest("leaks.parquet") + summary_digest("leaks.json", "leaks_sha256")


def of_scoring() -> list[Any]:
    outputs = [Path("scored/part-00001.parquet"), Path("scored/images-00001.parquet")]
    score_shards.main(SCORE, Path("index/u/manifest-00001.json"), Path("weights.pt"), *outputs, 0)
    return scored("scored")


def scored(folder: str) -> list[Any]:
    names = ("shard_id", "sample_index", "class_id", "prediction_rank", "log_odds")
    return [
        *sorted(numbers(f"{folder}/part-00001.parquet", *names)),
        *numbers(f"{folder}/images-00001.parquet", "logsumexp"),
    ]


def of_both() -> list[Any]:
    names = [f"both/{n}/{t}-00001.parquet" for n in ("scored", "told") for t in ("part", "images")]
    score_and_describe.main(
        settings.ScoreAndDescribe(score=SCORE, describe=DESCRIBE),
        Path("index/u/manifest-00001.json"), Path("weights.pt"), Path("weights.pt"),
        *map(Path, names), 0,
    )  # fmt: skip
    return [*scored("both/scored"), digest(names[3]), *vectors(names[2])]


def of_counts() -> str:
    made = settings.CountImages(
        num_parts=3, num_classes=3, classes_per_image=2, max_failure_rate=1.0
    )
    inputs = (
        "scores/part-00000.parquet",
        "scores/images-00000.parquet",
        "index/u/manifest-00000.json",
    )
    count_images.main(made, *map(Path, inputs), Path("images.json"), Path("failures.parquet"))
    return digest("images.json", "failures.parquet")


def of_selection() -> str:
    of_counts(), of_copies(), of_merged_duplicates(), of_merged_near_copies()
    made = settings.Select(
        num_parts=3, variant="balanced", rank_by="softmax", tags=None, images_per_class=3,
        classes_per_image=2, stored_classes=2, min_score=0.05, fraction=0.9, seed=4,
        remove=REMOVE,
    )  # fmt: skip
    names = ("selection.parquet", "removed.parquet", "summary.json", "made.json")
    outputs = [f"{TOP}/{name}" for name in names]
    select.main(
        made, Path("scores/part-00000.parquet"), Path("index/u/manifest-00000.json"),
        Path("images.json"), Path("failures.parquet"), Path("classes.txt"),
        [Path("duplicates/u/nearest-00000.parquet")], [Path(PAIRS)], [Path(COPIES)],
        [Path("near_copies.parquet")], [], [], *map(Path, outputs), workers=1,
    )  # fmt: skip
    return digest(*outputs[:2]) + summary_digest(outputs[2], "selection_sha256")


def of_packing() -> str:
    of_selection()
    made = settings.PackSelection(
        part=0, num_parts=1, first_shard=0, num_shards=9, samples_per_shard=4,
        max_pixels=images.MAX_PIXELS, seed=6,
    )  # fmt: skip
    folder = Path("shards")
    pack_selection.main(
        made, Path(f"{TOP}/selection.parquet"), Path(f"{TOP}/summary.json"), folder / "tars/00000",
        folder / "manifest-00000.json", folder / "samples-00000.parquet", 1,
    )  # fmt: skip
    return digest("shards/tars", "shards/samples-00000.parquet")


def of_evaluation() -> list[float]:
    made = settings.Evaluate(model="m", stage="s", datasets=["d"], batch_size=4)
    outputs = [Path("evaluations.parquet"), Path("predictions.parquet")]
    evaluate.main(made, [Path("index/d/manifest-00000.json")], Path("weights.pt"), *outputs, 0)
    return [
        *numbers(str(outputs[0]), "num_images", "num_failed", "top1", "top1_low", "top5_high"),
        *numbers(str(outputs[1]), "label", "class_id", "score", "label_rank"),
    ]


def of_index() -> str:
    return digest(*(f"index/u/samples-{part:05d}.parquet" for part in range(3)))


def of_report() -> str:
    from made_report import Outcome

    outcome = Outcome(Path("report"))
    outcome.make()
    return digest("report/evaluations.parquet")


STEPS: dict[type[settings.Settings], Callable[[], str | list[Any]]] = {
    settings.MakeDigits: of_digits,
    settings.MakeCifar10: of_cifar10,
    settings.PackFolder: of_folder,
    settings.IndexShards: of_index,
    settings.ImportWeights: of_weights,
    settings.Train: of_training,
    settings.ChooseCandidate: of_choice,
    settings.ExtractFeatures: of_features,
    settings.FindDuplicates: of_duplicates,
    settings.MergeDuplicates: of_merged_duplicates,
    settings.FindCopies: of_copies,
    settings.MakeReviewPage: of_review,
    settings.TrainCells: of_cells,
    settings.SortIntoCells: of_sorting,
    settings.FindNearCopies: of_near_copies,
    settings.MergeNearCopies: of_merged_near_copies,
    settings.CalibrateDuplicates: of_calibration,
    settings.MeasureLeaks: of_leaks,
    settings.ScoreShards: of_scoring,
    settings.ScoreAndDescribe: of_both,
    settings.CountImages: of_counts,
    settings.Select: of_selection,
    settings.PackSelection: of_packing,
    settings.Evaluate: of_evaluation,
    settings.Report: of_report,
}


def same(before: str | list[Any], now: str | list[Any]) -> bool:
    """Numbers to a thousandth, as processors round them in their own ways."""
    if isinstance(before, str) or isinstance(now, str) or len(before) != len(now):
        return before == now
    return all(
        one == other
        if isinstance(one, str)
        else math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
        for one, other in zip(before, now, strict=True)
    )


def unversioned(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """Steps that make something else than before under the same version."""
    return [
        name
        for name in before.keys() & now.keys()
        if before[name]["version"] == now[name]["version"]
        and not same(before[name]["made"], now[name]["made"])
    ]


if __name__ == "__main__":
    now = record()
    if wrong := unversioned(json.loads(GOLDEN.read_text()), now):
        sys.exit(f"{', '.join(wrong)}: other results, same version. Raise it in settings.py first.")
    GOLDEN.write_text(json.dumps(now, indent=1) + "\n")
    print(f"{GOLDEN}: what {len(STEPS)} steps make")

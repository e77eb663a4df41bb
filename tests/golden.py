"""What every step makes of a fixed input. `python tests/golden.py` records it in golden.json.

Steps without a network: a digest of what their files hold. Steps with one: numbers, which other
processors round otherwise, compared to a thousandth.
"""

import hashlib
import json
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
import torch

from semisup import images, models, schemas, settings, tables, tars
from semisup.config import Recipe, Remove
from semisup.scores import write_scores
from semisup.selection import Ranked
from semisup.steps import (
    choose_candidate,
    count_images,
    evaluate,
    extract_features,
    find_copies,
    find_duplicates,
    import_weights,
    index_shards,
    make_cifar10,
    make_digits,
    merge_duplicates,
    pack_folder,
    pack_selection,
    score_shards,
    select,
    train,
)

GOLDEN = Path(__file__).with_name("golden.json")
CLASSES = ["ant", "bee", "cow"]
ARCH = "cifar_resnet8_w4"


def record() -> dict[str, dict[str, Any]]:
    """By the name of its settings: the version of each step and what it makes."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main").mkdir()
        os.chdir(Path(folder) / "main")
        try:
            prepare()
            return {
                kind.__name__: {"version": version(kind), "made": make()}
                for kind, make in STEPS.items()
            }
        finally:
            os.chdir(before)


def version(kind: type[settings.Settings]) -> int:
    (number,) = get_args(kind.model_fields["version"].annotation)
    return int(number)


# --- the fixed input ------------------------------------------------------------------------


def picture(seed: int) -> bytes:
    """Pixels as they are: no encoder has a say."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    return b"P6 8 9 255\n" + pixels.tobytes()


def prepare() -> None:
    """Tars and their index, weights, a folder of photographs, scores; in this order."""
    for shard in range(2):
        samples = [
            (f"u{i}", {"ppm": picture(10 * shard + i), "cls": b"%d" % (i % 3)}) for i in range(6)
        ]
        tars.write_tar(Path(f"u-{shard}.tar"), samples)
    broken = [("copy", {"ppm": picture(11)}), ("empty", {"ppm": b""}), ("none", {"json": b"{}"})]
    tars.write_tar(Path("u-2.tar"), broken)
    labelled = [(f"d{i}", {"ppm": picture(i // 2), "cls": b"%d" % (i % 3)}) for i in range(9)]
    tars.write_tar(Path("d-0.tar"), labelled)
    for name, num_shards in (("u", 3), ("d", 1)):
        for part in range(num_shards):
            index(name, part)
    for name in ("a/1.ppm", "a/2.ppm", "b/1.ppm"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(picture(len(name)))
    rng = np.random.default_rng(5)
    model = models.build(ARCH, len(CLASSES))
    state = {}
    for name, tensor in model.state_dict().items():
        values = rng.normal(0, 0.3, tuple(tensor.shape))
        positive = name.endswith(("running_var", "num_batches_tracked"))
        made = np.asarray(np.abs(values) + 0.05 if positive else values)
        state[name] = torch.tensor(made, dtype=tensor.dtype)
    models.save(Path("weights.pt"), models.Weights(ARCH, 8, 8, CLASSES, state))
    torch.save(state, "checkpoint.pth")
    models.write_classes(Path("classes.txt"), CLASSES)
    for part in range(3):
        write_part(part)


def index(name: str, part: int) -> None:
    made = settings.IndexShards(
        dataset=name, part=part, first_shard=part, shards=[f"{name}-{part}.tar"], num_classes=3,
        max_pixels=images.MAX_PIXELS, stamp="",
    )  # fmt: skip
    folder = Path("index", name)
    index_shards.main(
        made, folder / f"manifest-{part:05d}.json", folder / f"samples-{part:05d}.parquet"
    )


def write_part(part: int) -> None:
    """Scores that no network made."""
    num_ok, rng = (6, 6, 1)[part], np.random.default_rng([3, part])
    identity = (np.int64(part) << 32) + np.arange(num_ok)
    classes = np.array([rng.permutation(3)[:2] for _ in range(num_ok)], np.int16)
    log_odds = -np.sort(-rng.normal(0, 3, (num_ok, 2)).astype(np.float32), axis=1)
    ranks = np.tile(np.array([1, 2], np.int8), num_ok)
    rows = Ranked(classes.ravel(), log_odds.ravel(), np.repeat(identity, 2), ranks)
    write_scores(Path(f"scores/part-{part:05d}.parquet"), rows, "by hand")
    failed = 2 if part == 2 else 0
    columns = {
        "shard_id": [part] * (num_ok + failed),
        "sample_index": range(num_ok + failed),
        "logsumexp": np.zeros(num_ok + failed, np.float32),
        "status": ["ok"] * num_ok + ["empty", "missing_image"][:failed],
        "reason": [""] * num_ok + ["no bytes", "no image"][:failed],
    }
    tables.write_table(Path(f"scores/images-{part:05d}.parquet"), columns, schemas.IMAGES)


# --- what each step makes -------------------------------------------------------------------


def digest(*paths: str) -> str:
    """Of what the files hold: rows of tables, bytes of others; folders with all below."""
    whole = hashlib.sha256()
    for path in map(Path, paths):
        below = sorted(path.rglob("*.*")) if path.is_dir() else [path]
        for file in below:
            whole.update(f"\0{file}\0".encode())
            if file.suffix == ".parquet":
                whole.update(repr(pq.read_table(file).to_pylist()).encode())
            else:
                whole.update(file.read_bytes())
    return whole.hexdigest()


def numbers(path: str, *columns: str) -> list[float]:
    table = pq.read_table(path, columns=list(columns)).to_pydict()
    return [float(x) for name in columns for x in np.array(table[name]).ravel()]


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
        arch=ARCH, image_size=8, resize=8, weights="checkpoint.pth", classes=CLASSES
    )
    import_weights.main(made, Path("imported.pt"), Path("imported.txt"))
    weights = models.load(Path("imported.pt"))
    state = hashlib.sha256(repr((weights[:4], [*weights.state])).encode())
    for tensor in weights.state.values():
        state.update(tensor.numpy().tobytes())
    return state.hexdigest()


def of_training() -> list[float]:
    recipe = Recipe(images=36, global_batch_size=9, base_lr=0.1, crop="padded", mixup=0.2)
    made = settings.Train(arch=ARCH, image_size=8, resize=8, classes=CLASSES, recipe=recipe, seed=2)
    names = [
        Path("trained", name) for name in ("c", "weights.pt", "classes.txt", "metrics.parquet")
    ]
    train.main(made, [Path("index/d/manifest-00000.json")], [Path("weights.pt")], *names, workers=0)
    return numbers("trained/metrics.parquet", "step", "images", "lr", "loss", "loaded", "failed")


def of_choice() -> str:
    rows: dict[str, list[Any]] = {"model": ["m"], "stage": ["s"], "dataset": ["v"]}
    for i, top1 in enumerate((0.5, 0.7)):
        values = {name: [top1] for name in schemas.EVALUATIONS.names if name.startswith("top")}
        table = {**rows, "num_images": [10], "num_failed": [0], **values}
        tables.write_table(Path(f"sweep/{i}.parquet"), table, schemas.EVALUATIONS)
        for name in ("weights.pt", "classes.txt", "metrics.parquet"):
            tables.write_bytes(Path(f"sweep/{i}/{name}"), b"%d" % i)
    outputs = [Path("chosen", n) for n in ("weights.pt", "classes.txt", "m.bin", "sweep.parquet")]
    outputs[2] = Path("chosen/metrics.parquet")
    choose_candidate.main(
        settings.ChooseCandidate(base_lr=[0.1, 0.2]),
        [Path(f"sweep/{i}/weights.pt") for i in range(2)],
        [Path(f"sweep/{i}.parquet") for i in range(2)],
        *outputs,
    )
    outputs[2].unlink()  # a copy of what is no table here
    return digest("chosen")


def of_features() -> list[float]:
    extract_features.main(
        settings.ExtractFeatures(), [Path("index/d/manifest-00000.json")], Path("weights.pt"),
        Path("features/d.parquet"), 0,
    )  # fmt: skip
    return numbers("features/d.parquet", "feature")


def of_duplicates() -> list[float]:
    of_features()
    for part in range(3):
        find_duplicates.main(
            settings.FindDuplicates(record_distance=1.0),
            Path(f"index/u/manifest-{part:05d}.json"), [Path("features/d.parquet")],
            [Path("index/d/manifest-00000.json")], Path("weights.pt"),
            Path(f"pairs/part-{part:05d}.parquet"), 0,
        )  # fmt: skip
    return numbers("pairs/part-00000.parquet", "distance")


def of_merged_duplicates() -> str:
    for part, distance in enumerate((0.3, 0.1)):
        pair = {"shard_id": [part], "sample_index": [0], "key": ["k"], "evaluation_dataset": ["d"]}
        pair |= {"evaluation_shard_id": [0], "evaluation_sample_index": [part]}
        pair |= {"evaluation_key": ["e"], "distance": [distance]}
        tables.write_table(Path(f"two/part-{part:05d}.parquet"), pair, schemas.DUPLICATES)
    made = settings.MergeDuplicates(num_parts=2)
    merge_duplicates.main(made, Path("two/part-00000.parquet"), Path("pairs.parquet"))
    return digest("pairs.parquet")


def of_copies() -> str:
    first = Path("index/u/manifest-00000.json")
    find_copies.main(settings.FindCopies(num_parts=3), first, Path("copies.parquet"))
    return digest("copies.parquet")


def of_scoring() -> list[float]:
    made = settings.ScoreShards(classes_per_image=2, batch_size=4, precision="float32")
    outputs = [Path("scored/part-00001.parquet"), Path("scored/images-00001.parquet")]
    score_shards.main(made, Path("index/u/manifest-00001.json"), Path("weights.pt"), *outputs, 0)
    names = ("shard_id", "sample_index", "class_id", "prediction_rank", "log_odds")
    return [*sorted(numbers(str(outputs[0]), *names)), *numbers(str(outputs[1]), "logsumexp")]


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
    of_counts(), of_copies(), of_merged_duplicates()
    made = settings.Select(
        num_parts=3, variant="balanced", rank_by="softmax", tags=None, images_per_class=3,
        classes_per_image=2, stored_classes=2, min_score=0.05, fraction=0.9, seed=4,
        remove=Remove(closest=1),
    )  # fmt: skip
    outputs = [
        f"top/{n}" for n in ("selection.parquet", "removed.parquet", "summary.json", "made.json")
    ]
    select.main(
        made, Path("scores/part-00000.parquet"), Path("index/u/manifest-00000.json"),
        Path("images.json"), Path("failures.parquet"), Path("classes.txt"), [Path("pairs.parquet")],
        [Path("copies.parquet")], [], *map(Path, outputs), workers=1,
    )  # fmt: skip
    summary = json.loads(Path("top/summary.json").read_text())
    del summary["selection_sha256"]  # of the file, in which the library writes its own version
    return digest(*outputs[:2]) + hashlib.sha256(json.dumps(summary).encode()).hexdigest()


def of_packing() -> str:
    of_selection()
    made = settings.PackSelection(
        part=0, num_parts=1, first_shard=0, num_shards=9, samples_per_shard=4,
        max_pixels=images.MAX_PIXELS, seed=6,
    )  # fmt: skip
    folder = Path("shards")
    pack_selection.main(
        made, Path("top/selection.parquet"), Path("top/summary.json"), folder / "tars/00000",
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


STEPS: dict[type[settings.Settings], Callable[[], str | list[float]]] = {
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
    settings.ScoreShards: of_scoring,
    settings.CountImages: of_counts,
    settings.Select: of_selection,
    settings.PackSelection: of_packing,
    settings.Evaluate: of_evaluation,
    settings.Report: of_report,
}

if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(record(), indent=1) + "\n")
    print(f"{GOLDEN}: what {len(STEPS)} steps make")

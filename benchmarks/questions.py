"""`make explain` and `make plan` on 10 million images: `questions.py FOLDER [IMAGES]`.

Ten parts of a hundred shards of 10,000 images (IMAGES for a try, whose times are not kept), P = 10,
1,000 classes; keys ascend in the first five parts and are hashes in the others. Seconds are those of the whole command, Python's start included.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import score_files
import yaml

from semisup import images, schemas, scores, settings, tables
from semisup.checks import load_config
from semisup.plan import Plan
from semisup.samples import samples_path
from semisup.steps import count_images, select

HERE = Path(__file__).resolve().parent
NUM_PARTS, SHARDS_PER_PART, IMAGES_PER_SHARD = 10, 100, 10_000
SELECTION = {"teacher": "teacher", "unlabeled": "unlabeled", "images_per_class": 16_000}
CONFIG = {
    "datasets": {
        "labeled": {"shards": "labeled.tar", "classes": 1000},
        "test": {"shards": "test.tar", "classes": 1000},
        "unlabeled": {"shards": "tars/{00000..00999}.tar", "shards_per_part": SHARDS_PER_PART},
    },
    "models": {
        "teacher": {"arch": "resnet18", "train": {"on": "labeled", "recipe": "paper_supervised"}}
    },
    "selections": {
        "top": SELECTION,
        "by_logit": SELECTION | {"rank_by": "logit"},
    },
    "evaluate": {"on": ["test"]},
}
GRID = {"--k": "1000 2000 4000 8000", "--p": "1 2 5 10", "--fraction": "0.25 0.5 1"}


def main(folder: Path, images_per_shard: int = IMAGES_PER_SHARD) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    Path("tars").mkdir(exist_ok=True)
    for name in ("labeled.tar", "test.tar", *(f"tars/{i:05d}.tar" for i in range(1000))):
        Path(name).touch()
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    plan = Plan(load_config(CONFIG))
    if not Path("results/scores/teacher/unlabeled/images.json").exists():
        make_results(plan, images_per_shard)
    for name in CONFIG["selections"]:
        if not Path(f"results/selections/{name}/settings.json").exists():
            make_selection(plan, name)
    found = {}
    for name in CONFIG["selections"]:
        for which, key in keys_of(name, images_per_shard).items():
            found[f"{name}: explain {which}"] = seconds_of(name, "explain", {"--key": key})
        found[f"{name}: plan, 4 x 4 x 3"] = seconds_of(name, "sizes", GRID)
    for name, value in found.items():
        print(f"{name:42} {value:6.2f} s")
    if images_per_shard != IMAGES_PER_SHARD:
        return
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "questions.json").write_text(json.dumps(found, indent=1) + "\n")


def keys_of(selection: str, images_per_shard: int) -> dict[str, str]:
    path = Path(f"results/selections/{selection}/selection.parquet")
    chosen = tables.read_table(path, schemas.SELECTION, ["class_id", "key"])
    last = int(np.searchsorted(chosen["class_id"], 0, side="right")) - 1
    return {
        "the best of its class": chosen["key"][0].as_py(),
        "the last of its class": chosen["key"][last].as_py(),
        "one whose key ascends": key_of(123 * images_per_shard + 456 * images_per_shard // 1000, 1),
        "one whose key is a hash": key_of(777 * images_per_shard + 7 * images_per_shard // 9, 7),
    }


def key_of(image: int, part: int) -> str:
    return f"{image:012d}" if part < NUM_PARTS // 2 else hashlib.md5(b"%d" % image).hexdigest()


def seconds_of(selection: str, question: str, options: dict[str, str]) -> float:
    command = [sys.executable, "-m", f"semisup.questions.{question}"]
    command += ["--configfile", "config.yaml", "--selection", selection]
    start = time.perf_counter()
    subprocess.run([*command, *(word for pair in options.items() for word in pair)], check=True)
    return time.perf_counter() - start


def inputs(plan: Plan, selection: str) -> tuple:
    """What is the same for all selections: scores, index, counts, failures, classes."""
    named = SimpleNamespace(selection=selection, teacher="teacher", unlabeled="unlabeled")
    paths = [
        plan.selection_counts(named),
        plan.selection_failures(named),
        plan.selection_classes(named),
    ]
    scores = [Path(path) for path in plan.selection_scores(named)]
    return named, scores, [Path(path) for path in plan.manifests("unlabeled")], map(Path, paths)


def make_results(plan: Plan, images_per_shard: int) -> None:
    top, parts, manifests, (counts, failures, classes) = inputs(plan, "top")
    for part, (manifest, path) in enumerate(zip(manifests, parts, strict=True)):
        make_part(part, manifest, path, images_per_shard)
    classes.parent.mkdir(parents=True, exist_ok=True)
    classes.write_text("".join(f"class {i}\n" for i in range(1000)))
    count_images.main(
        settings.CountImages.model_validate_json(plan.count_images(top)),
        parts[0],
        Path(plan.images_parts(top)[0]),
        manifests[0],
        counts,
        failures,
    )


def make_selection(plan: Plan, name: str) -> None:
    named, parts, manifests, (counts, failures, classes) = inputs(plan, name)
    folder = Path(f"results/selections/{name}")
    select.main(
        settings.Select.model_validate_json(plan.select(named)),
        parts[0], manifests[0], counts, failures, classes, [], [], [], [], [], [],
        folder / "selection.parquet", folder / "removed.parquet", folder / "summary.json", folder / "settings.json", 2,
    )  # fmt: skip


def make_part(part: int, manifest: Path, path: Path, images_per_shard: int) -> None:
    num_images = SHARDS_PER_PART * images_per_shard
    image = np.arange(num_images)
    shard_id = (image // images_per_shard + part * SHARDS_PER_PART).astype(np.int32)
    sample_index = (image % images_per_shard).astype(np.int32)
    identity = (shard_id.astype(np.int64) << 32) | sample_index
    rng = np.random.default_rng([5, part])
    place = {"shard_id": shard_id, "sample_index": sample_index}
    status = {
        "status": pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_images, np.int8)), ["ok"]),
        "reason": [""] * num_images,
    }
    index = {
        **place,
        "key": [key_of(i, part) for i in (image + part * num_images).tolist()],
        "extension": ["jpg"] * num_images,
        "offset": image % images_per_shard * 50_000,
        "size_bytes": rng.integers(10_000, 90_000, num_images),
        "content_hash": np.frombuffer(rng.bytes(16 * num_images), "V16").tolist(),
        "label": pa.nulls(num_images, pa.int32()),
        **status,
    }
    tables.write_table(samples_path(manifest), index, schemas.SAMPLES)
    shards = [
        {
            "shard_id": i,
            "path": f"tars/{i:05d}.tar",
            "size_bytes": 0,
            "sha256": f"{i:064d}",
            "num_samples": images_per_shard,
        }
        for i in range(part * SHARDS_PER_PART, (part + 1) * SHARDS_PER_PART)
    ]
    content = {
        "dataset": "unlabeled",
        "part": part,
        "samples_sha256": tables.file_sha256(samples_path(manifest)),
        "shards": shards,
        "max_pixels": images.MAX_PIXELS,
        "statuses": {"ok": num_images},
    }
    tables.write_json(manifest, content)
    rows = score_files.make_part(part, num_images)
    scores.write_scores(path, rows._replace(identity=np.repeat(identity, 10)))
    logsumexp = np.round(rng.normal(14, 2, num_images) * 4096) / 4096
    images_table = path.with_name(path.name.replace("part-", "images-"))
    tables.write_table(images_table, place | {"logsumexp": logsumexp} | status, schemas.IMAGES)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

"""Two million tiny images through index, score, merge and pack, watched: `soak.py FOLDER [NUM_TARS]`.

200 tars of 10,000 samples: real JPEGs and PNGs of handwritten digits, repeated under keys of their
own; of a thousand samples one is broken. Snakemake runs the stages as everywhere, on a tiny teacher.
Every second the memory (PSS) and the open files of all its processes are read. In the end the books
are checked by themselves, from the tables, and benchmarks/results/soak.{json,png} are written.
"""

import csv
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from semisup import tars

ROOT = Path(__file__).parents[1]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
NUM_IMAGES, TARS_A_PART, IMAGES_PER_CLASS = 10_000, 10, 50_000
BROKEN = [b"", b"no image", b"\xff\xd8\xff\xe0 cut"]


def config(folder: Path, num_tars: int) -> dict[str, Any]:
    last = f"{num_tars - 1:03d}"
    return {
        "results": "results",
        "datasets": {
            "labeled": {"builtin": "digits/labeled"},
            "test": {"builtin": "digits/test"},
            "unlabeled": {
                "shards": f"tars/{{000..{last}}}.tar",
                "shards_per_part": TARS_A_PART,
            },
        },
        "models": {
            "teacher": {
                "arch": "cifar_resnet8_w4", "image_size": 16, "resize": 16,
                "train": {"on": "labeled", "recipe": "short"},
            }
        },
        "selections": {
            "top": {
                "teacher": "teacher", "unlabeled": "unlabeled",
                "images_per_class": IMAGES_PER_CLASS, "classes_per_image": 1,
            }
        },
        "recipes": {"short": {"images": 2000, "global_batch_size": 64, "crop": "none", "flip": False}},
        "score": {"classes_per_image": 3},
        "evaluate": {"on": ["test"]},
    }  # fmt: skip


def make_tars(folder: Path, num_tars: int) -> None:
    encoded = []
    for i, pixels in enumerate(load_digits().images):
        picture = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((16, 16))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if i % 2 else "JPEG")
        encoded.append(("png" if i % 2 else "jpg", buffer.getvalue()))
    for number in range(num_tars):
        path = folder / "tars" / f"{number:03d}.tar"
        if not path.exists():
            chosen = np.random.default_rng(number).integers(len(encoded), size=NUM_IMAGES)
            tars.write_tar(path, (sample(number, i, *encoded[c]) for i, c in enumerate(chosen)))


def sample(tar: int, index: int, extension: str, content: bytes) -> tuple[str, dict[str, bytes]]:
    if index % 1000 == 7:
        content = BROKEN[(tar + index // 1000) % len(BROKEN)]
    return f"{tar:03d}-{index:05d}", {extension: content}


def watch(command: list[str], folder: Path) -> list[dict[str, Any]]:
    """Run a command; every second what all its processes hold, and what they are doing."""
    samples = []
    start = time.monotonic()
    with open(folder / "snakemake.log", "w") as log:
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment())
        while process.poll() is None:
            here = {"seconds": time.monotonic() - start, "pss": 0, "files": 0, "rules": set()}
            for each in (process, *process.children(recursive=True)):
                try:
                    here["pss"] += each.memory_full_info().pss
                    here["files"] = max(here["files"], each.num_fds())
                    steps = [word for word in each.cmdline() if word.startswith("semisup.steps.")]
                    here["rules"] |= {step.removeprefix("semisup.steps.") for step in steps}
                except psutil.Error:
                    continue  # it has just ended
            samples.append({**here, "rules": sorted(here["rules"])})
            time.sleep(1)
    if process.returncode:
        sys.exit(f"failed: see {folder / 'snakemake.log'}")
    return samples


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT / "workflow")}


def check_books(folder: Path, num_tars: int) -> dict[str, int]:
    """From the tars to the packed samples, counted from the tables."""
    results = folder / "results"
    counts = json.loads((results / "scores/teacher/unlabeled/images.json").read_text())
    summary = json.loads((results / "selections/top/summary.json").read_text())
    manifests = [json.loads(p.read_text()) for p in results.glob("shards/top/manifest-*.json")]
    packed = sum(shard["num_samples"] for manifest in manifests for shard in manifest["shards"])
    scores = [pq.read_metadata(path) for path in results.glob("scores/teacher/unlabeled/part-*")]
    broken = num_tars * NUM_IMAGES // 1000
    assert counts["num_samples"] == num_tars * NUM_IMAGES
    assert counts["num_scored"] + broken == counts["num_samples"]
    assert sum(counts["statuses"].values()) == counts["num_samples"]
    assert sum(table.num_rows for table in scores) == 3 * counts["num_scored"]
    assert packed == summary["num_rows"] > 0
    failed = {status: n for status, n in counts["statuses"].items() if status != "ok"}
    names = ("num_samples", "num_scored")
    return {
        **{n: counts[n] for n in names},
        **failed,
        "selected": summary["num_rows"],
        "packed": packed,
    }


def seconds_of(folder: Path, rule: str) -> list[float]:
    """How long each job of a rule ran, in the order of its parts."""
    paths = sorted((folder / "results/benchmarks" / rule).rglob("*.tsv"))
    return [float(next(csv.DictReader(path.open(), delimiter="\t"))["s"]) for path in paths]


def main(folder: Path, num_tars: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    make_tars(folder, num_tars)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder, num_tars)))
    command = [
        str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml",
        "--cores", "2", "--scheduler", "greedy", "--set-threads", "select=2", "pack_selection=2",
        "score_shards=2", "--", "results/shards/top/manifest-00000.json",
        *(f"results/shards/top/manifest-{i:05d}.json" for i in range(1, num_packed())),
    ]  # fmt: skip
    samples = watch(command, folder)
    images = num_tars * NUM_IMAGES
    books = check_books(folder, num_tars)
    rates = {
        "index_shards": images / sum(seconds_of(folder, "index_shards/unlabeled")),
        "score_shards": images / sum(seconds_of(folder, "score_shards")),
        "count_images": images / sum(seconds_of(folder, "count_images")),
        "select": images / sum(seconds_of(folder, "select")),
        "pack_selection": books["packed"] / sum(seconds_of(folder, "pack_selection")),
    }
    peaks = peak_of_parts(samples)
    result = {
        "images": images,
        "seconds": round(samples[-1]["seconds"]),
        "images_per_second_of_a_job": {rule: round(rate) for rule, rate in rates.items()},
        "books": books,
        "peak_gb": round(max(s["pss"] for s in samples) / 1e9, 2),
        "score_mb_first_and_last_quarter": peaks,
        "most_open_files_of_a_process": max(s["files"] for s in samples),
        "remark": "2 CPU cores",
    }
    write(result, samples)
    print(json.dumps(result, indent=1))


def num_packed() -> int:
    """Parts of the packed selection: 16 shards of 10,000 samples each."""
    return -(-10 * IMAGES_PER_CLASS // 160_000)


def peak_of_parts(samples: list[dict[str, Any]]) -> list[int]:
    """Median memory while scoring, in the first and the last quarter of that time, MB."""
    scoring = [s["pss"] / 1e6 for s in samples if "score_shards" in s["rules"]]
    quarter = max(len(scoring) // 4, 1)
    return [round(float(np.median(part))) for part in (scoring[:quarter], scoring[-quarter:])]


def write(result: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    path = ROOT / "benchmarks/results/soak"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), layout="constrained")
    minutes = [s["seconds"] / 60 for s in samples]
    above.plot(minutes, [s["pss"] / 1e9 for s in samples], color="#345", linewidth=1)
    above.set_ylabel("memory of all processes, GB")
    above.set_ylim(0, 1.15 * max(s["pss"] for s in samples) / 1e9)
    rules = ["index_shards", "score_shards", "count_images", "select", "pack_selection"]
    for rule, colour in zip(rules, plt.get_cmap("tab10").colors, strict=False):
        times = [m for m, s in zip(minutes, samples, strict=True) if rule in s["rules"]]
        above.plot(times, [0] * len(times), "|", color=colour, markersize=12, label=rule)
    above.legend(loc="upper right", ncols=5, fontsize=7, frameon=False)
    below.plot(minutes, [s["files"] for s in samples], color="#345", linewidth=1)
    below.set_ylabel("open files of a process, most")
    below.set_xlabel(f"minutes; {result['images']:,} images")
    figure.savefig(path.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200)

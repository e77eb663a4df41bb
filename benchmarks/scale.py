"""What the paper's scale costs, by arithmetic: `scale.py`, whose table is in docs/scale.md.

Operations are counted on the networks of examples/paper.yaml; all else is assumed below.
"""

import sys
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from semisup import flops, models  # noqa: E402
from semisup.checks import read_presets  # noqa: E402

NUM_U, NUM_D, NUM_EVALUATION = 100_000_000, 1_281_167, 50_000
U_BYTES, D_BYTES = 50_000, 110_000
"""Of an image: YFCC-100M resized to a shorter side of 256, ImageNet as it is."""

GPUS, CPUS_PER_GPU = 64, 8
PEAK = flops.PEAKS["A100"]
TRAINING, SCORING = 0.20, 0.30
"""Shares of the peak a convolutional network reaches in bfloat16; 0.20 is a ResNet-50 of 2,500 images/s
on an A100. The grouped convolutions of a ResNeXt may reach less."""

DECODED = 867
"""Images a second and core: measured, decoded and cropped (benchmarks/README.md)."""

SCORE_BYTES, INDEX_BYTES, FEATURE_BYTES = 59, 23, 1024 + 32
"""Of an image of U: measured, measured, 512 numbers of 2 bytes."""

MAX_PAIRS, PAIR_BYTES = 100_000, 13
"""Of each part, at most: the default, and measured."""

INDEXED, SEARCHED, MERGED, SELECTED, PACKED = 7_785, 23_000, 4_900_000, 280_000, 8_000
"""Images or pairs a second and core, measured on smaller ones (benchmarks/README.md): what `select`
needs for 10 million is taken ten times."""

CORES = 64
"""Of the CPU partition."""

FILE_SYSTEM = 10e9
"""Bytes a second that it gives to all jobs together."""


def main() -> None:
    config = yaml.safe_load((ROOT / "examples" / "paper.yaml").read_text())
    recipes = read_presets()
    teacher, student = (
        training_flops(config["models"][name]["arch"]) for name in ("teacher", "student")
    )
    small = training_flops("resnet18") / 3
    per_class = config["selections"]["top"]["images_per_class"]
    packed = 1000 * per_class
    parts = 10_000 // config["datasets"]["yfcc100m"]["shards_per_part"]
    print("| stage | jobs | images | GPU-hours | core-hours | wall time | reads | writes |")
    print("|---|---|---|---|---|---|---|---|")
    show_cpu("index U", parts, NUM_U, INDEXED, NUM_U * U_BYTES, NUM_U * INDEX_BYTES)
    supervised = recipes["paper_supervised"]["images"]
    show("train the teacher", 1, supervised, teacher / TRAINING, supervised * D_BYTES, 0.8e9)
    show("features of U", parts, NUM_U, small / SCORING, NUM_U * U_BYTES, NUM_U * FEATURE_BYTES)
    pairs = parts * MAX_PAIRS * PAIR_BYTES
    show_cpu("find duplicates", parts, NUM_U, SEARCHED, NUM_U * FEATURE_BYTES, pairs)
    show_cpu("merge the pairs", 1, parts * MAX_PAIRS, MERGED, pairs, MAX_PAIRS * PAIR_BYTES)
    show("score U", parts, NUM_U, teacher / 3 / SCORING, NUM_U * U_BYTES, NUM_U * SCORE_BYTES)
    show_cpu("select", 1, NUM_U, SELECTED, NUM_U * (SCORE_BYTES + INDEX_BYTES), packed * 36)
    show_cpu("pack", 256, packed, PACKED, packed * U_BYTES, packed * U_BYTES)
    images = recipes["paper_pretrain"]["images"]
    show("pretrain the student", 1, images, student / TRAINING, images * U_BYTES, 0.1e9)
    images = recipes["paper_finetune"]["images"]
    show("finetune it", 1, images, student / TRAINING, images * D_BYTES, 0.1e9)
    show("train the baseline", 1, supervised, student / TRAINING, supervised * D_BYTES, 0.1e9)
    both = (teacher + 2 * student) / 3 / SCORING
    show("evaluate three models", 3, NUM_EVALUATION, both, 3 * NUM_EVALUATION * D_BYTES, 1e6)


def training_flops(arch: str) -> int:
    with torch.device("meta"):
        return flops.of_training(models.build(arch, 1000), 224)


def show(
    stage: str, jobs: int, images: int, operations: float, reads: float, writes: float
) -> None:
    """A stage on GPUs. ``operations``: for an image, divided by the share of the peak reached."""
    decoding = images / (DECODED * CPUS_PER_GPU)  # on the cores of one GPU
    gpu_hours = max(images * operations / PEAK, decoding) / 3600
    row(stage, jobs, images, hours(gpu_hours), "", gpu_hours / GPUS, reads, writes)


def show_cpu(stage: str, jobs: int, images: int, rate: float, reads: float, writes: float) -> None:
    """A stage on cores. ``rate``: images a second and core."""
    core_hours = images / rate / 3600
    at_once = min(jobs, CORES)
    row(stage, jobs, images, "", hours(core_hours), core_hours / at_once, reads, writes)


def row(
    stage: str,
    jobs: int,
    images: int,
    gpus: str,
    cores: str,
    wall: float,
    reads: float,
    writes: float,
) -> None:
    """``wall``: hours of computing, beside which files are read and written."""
    wall = max(wall, (reads + writes) / FILE_SYSTEM / 3600)
    print(
        f"| {stage} | {jobs:,} | {images:,} | {gpus} | {cores} | {wall_time(wall)} | {size(reads)} "
        f"| {size(writes)} |"
    )


def hours(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def wall_time(number: float) -> str:
    return f"{number:.1f} h" if number > 0.9 else f"{max(number * 60, 1):.0f} min"


def size(num_bytes: float) -> str:
    unit, name = (
        (1e12, "TB") if num_bytes >= 1e12 else (1e9, "GB") if num_bytes >= 1e8 else (1e6, "MB")
    )
    return f"{num_bytes / unit:.1f} {name}"


if __name__ == "__main__":
    main()

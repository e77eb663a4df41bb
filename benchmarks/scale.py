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

SCORE_BYTES, INDEX_BYTES, FEATURE_BYTES = 59, 22, 1024 + 32
"""Of an image of U: measured, measured, 512 numbers of 2 bytes."""


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
    print("| stage | jobs | images | GPU-hours | wall time | reads | writes |")
    print("|---|---|---|---|---|---|---|")
    show("index U", parts, NUM_U, 0, NUM_U * U_BYTES, NUM_U * INDEX_BYTES)
    supervised = recipes["paper_supervised"]["images"]
    show("train the teacher", 1, supervised, teacher / TRAINING, supervised * D_BYTES, 0.8e9)
    show("features of U", parts, NUM_U, small / SCORING, NUM_U * U_BYTES, NUM_U * FEATURE_BYTES)
    show("score U", parts, NUM_U, teacher / 3 / SCORING, NUM_U * U_BYTES, NUM_U * SCORE_BYTES)
    show("select", 1, NUM_U, 0, NUM_U * (SCORE_BYTES + INDEX_BYTES), packed * 36)
    show("pack", 256, packed, 0, packed * U_BYTES, packed * U_BYTES)
    images = recipes["paper_pretrain"]["images"]
    show("pretrain the student", 1, images, student / TRAINING, images * U_BYTES, 0.1e9)
    images = recipes["paper_finetune"]["images"]
    show("finetune it", 1, images, student / TRAINING, images * D_BYTES, 0.1e9)
    show("train the baseline", 1, supervised, student / TRAINING, supervised * D_BYTES, 0.1e9)


def training_flops(arch: str) -> int:
    with torch.device("meta"):
        return flops.of_training(models.build(arch, 1000), 224)


def show(
    stage: str, jobs: int, images: int, operations: float, reads: float, writes: float
) -> None:
    """``operations``: for an image, divided by the share of the peak that is reached."""
    seconds = images * operations / PEAK
    decoding = images / (DECODED * CPUS_PER_GPU) if operations else 0.0  # on the cores of one GPU
    gpu_hours = max(seconds, decoding) / 3600
    wall = f"{gpu_hours / GPUS:.1f} h" if operations else ""
    hours = f"{gpu_hours:,.0f}" if operations else ""
    print(
        f"| {stage} | {jobs:,} | {images:,} | {hours} | {wall} | {size(reads)} | {size(writes)} |"
    )


def size(num_bytes: float) -> str:
    return f"{num_bytes / 1e12:.1f} TB" if num_bytes >= 1e12 else f"{num_bytes / 1e9:.1f} GB"


if __name__ == "__main__":
    main()

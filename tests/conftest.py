"""What several tests share: a configuration, small images, an indexed dataset."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings
from PIL import Image

from semisup import tars
from semisup.settings import IndexShards
from semisup.steps import index_shards

ROOT = Path(__file__).parents[1]

# The same examples every time; `pytest --hypothesis-profile search` looks for new ones.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "search", settings.get_profile("repeatable"), derandomize=False, max_examples=1000
)
settings.load_profile("repeatable")


CONFIG = """
seed: 7
datasets:
  labeled: {builtin: digits/labeled}
  unlabeled: {builtin: digits/unlabeled, shards_per_part: 3}
  validation: {builtin: digits/validation}
  test: {builtin: digits/test}
models:
  teacher:
    arch: cifar_resnet14_w16
    image_size: 32
    train: {on: labeled, recipe: supervised}
  student:
    arch: cifar_resnet8_w8
    image_size: 28
    resize: 32
    pretrain: {on: top, recipe: pretrain}
    finetune: {on: labeled, recipe: finetune}
  baseline:
    baseline_of: student
    train: {on: labeled, recipe: supervised}
selections:
  top: {teacher: teacher, unlabeled: unlabeled, images_per_class: 20, classes_per_image: 2}
recipes:
  supervised: {images: 1_000}
  pretrain: {images: 300, warmup_images: 10}
  finetune: {images: 50, base_lr: 0.01}
duplicates:
  descriptor: teacher
  record_distance: 0.5
  remove: {closest: 3, max_distance: 0.2}
evaluate: {on: [validation, test]}
"""


def read_config() -> dict[str, Any]:
    """A configuration in which nothing is wrong, as parsed."""
    return yaml.safe_load(CONFIG)


def encode(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def make_jpeg(seed: int, height: int = 12, width: int = 10) -> bytes:
    """A JPEG of noise, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encode(pixels, "JPEG")


Dataset = Callable[..., list[Path]]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Dataset:
    """Writes tars of samples, each a key and its members, and indexes them; returns manifests."""

    def make(
        shards: list[list[tuple[str, dict[str, bytes]]]],
        num_classes: int | None = 10,
        name: str = "data",
        shards_per_part: int = 1,
    ) -> list[Path]:
        paths = [tmp_path / name / f"{i:05d}.tar" for i in range(len(shards))]
        for path, samples in zip(paths, shards, strict=True):
            tars.write_tar(path, samples)
        manifests = []
        for part, first in enumerate(range(0, len(paths), shards_per_part)):
            settings = IndexShards(
                dataset=name,
                part=part,
                first_shard=first,
                shards=[str(path) for path in paths[first : first + shards_per_part]],
                num_classes=num_classes,
                stamp="",
            )
            manifest = tmp_path / name / f"manifest-{part:05d}.json"
            index_shards.main(settings, manifest, tmp_path / name / f"samples-{part:05d}.parquet")
            manifests.append(manifest)
        return manifests

    return make

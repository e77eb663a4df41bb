"""Small things to test with: images, a configuration, and what people may make of it."""

import copy
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st
from PIL import Image

from semisup.settings import Preprocessing

ROOT = Path(__file__).parents[1]

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


def square(side: int) -> Preprocessing:
    """Images of this side, nothing cut off."""
    return Preprocessing(image_size=side, resize=side)


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


JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**12, 10**400, 16**5000, 0.5, -1.5, math.nan, math.inf, "",
    "x", "teacher", "student", "top", "labeled", "unlabeled", "test", "baseline", "supervised",
    "resnet18", "cifar_resnet8_w8", "{a", "}{", "{0..999999999}", "{a,b}{", "a\0b", "\ud800", "\n",
    "1e-3", "5", "on", "torchvision:", "torchvision:IMAGENET1K_V1", "digits/", "digits/test", "docs",
    b"x", [], [None], ["x"], ["test", "test"], [1], [[]], [{}], {}, {"x": 1}, {None: 1},
    {True: "labeled"}, {1: 2}, {"on": "labeled"}, {"[key]": 1}, {"preset": "paper_pretrain"},
    {"builtin": "digits/test"}, {"on": "top", "recipe": "pretrain"}, (1,), {1}, object(),
]  # fmt: skip
KEYS = [
    "on", "shards", "folder", "builtin", "classes", "labels", "weights", "init", "baseline_of",
    "train", "pretrain", "finetune", "preset", "reviewed", "min_score", "precision", "duplicates",
    "score", "pack", "x", "[key]", "", "a.b", None, True, 3,
]  # fmt: skip


@st.composite
def mutated(draw: Callable[..., Any]) -> dict[str, Any]:
    """The configuration with some keys replaced, added or deleted, anywhere."""
    raw = read_config()
    for _ in range(draw(st.integers(1, 3))):
        section: Any = raw
        while True:
            key = draw(st.sampled_from([*section, *KEYS]))
            below = section.get(key)
            if not isinstance(below, dict) or draw(st.integers(0, 2)) == 0:
                break
            section = below
        if draw(st.integers(0, 3)) == 0:
            section.pop(key, None)
        else:
            value = draw(st.sampled_from(JUNK) | st.text(max_size=5) | st.integers())
            section[key] = copy.deepcopy(value)
    return raw

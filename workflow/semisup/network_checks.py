"""Whether there are the networks and weights a configuration names, and what images they take."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semisup.config import TORCHVISION, Model
from semisup.config_errors import nearest, problem, unknown

RESNEXT = re.compile(r"resnext(50|101)_32x(4|8|16|32|48)d")
SMALL_ARCH = re.compile(r"cifar_resnet(\d{1,4})_w(\d{1,4})")

ONE_SIZE = ("vit_", "maxvit_")
"""Networks whose parameters follow from the size of their images."""


@functools.cache
def read_architectures() -> dict[str, dict[str, dict[str, Any]]]:
    """Torchvision's classifiers, their weights and what these ask of images (generated: importing
    it is slow)."""
    return json.loads(Path(__file__).with_name("architectures.json").read_text())


def check_arch(key: str, arch: str) -> Iterator[str]:
    if RESNEXT.fullmatch(arch):
        return
    small = SMALL_ARCH.fullmatch(arch)
    if not small:
        known = [*read_architectures(), "resnext101_32x16d", "cifar_resnet8_w16"]
        remedy = "it must be a torchvision classifier, resnext101_32x{4,8,16,32,48}d or "
        remedy += "cifar_resnet{6n+2}_w{width}"
        if arch not in known:
            yield problem(key, arch, "does not exist", nearest(arch, known) + remedy)
    else:
        depth, width = map(int, small.groups())
        if depth < 8 or (depth - 2) % 6 or not 1 <= width <= 4096:
            remedy = "the depth must be 6n+2 (8, 14, 20, ...) and the width 1 to 4096"
            yield problem(key, arch, "cannot be built", remedy)


def asked_by_weights(model: Model) -> dict[str, Any]:
    """What torchvision's weights of a model ask of images; nothing where it has others, or none."""
    source, _, name = (model.weights or "").partition(":")
    known = read_architectures().get(model.arch or "", {})
    return known.get(name, {}) if f"{source}:" == TORCHVISION else {}


def check_image_size(key: str, model: Model) -> Iterator[str]:
    """Of the networks that take images of one size, which their weights have."""
    arch, size = model.arch or "", model.image_size
    if not arch.startswith(ONE_SIZE) or arch not in read_architectures():
        return
    what, remedy = "", ""
    unit = 224 if arch.startswith("maxvit_") else int(arch.rsplit("_", 1)[1])
    theirs = asked_by_weights(model).get("image_size", size)
    if size != theirs:
        what = f"is not the size of {model.weights}"
        remedy = f"set it to {theirs}, or choose other weights"
    elif size % unit:
        what = f"is no multiple of {unit}, as {arch} needs"
        remedy = f"set it to {max(size // unit, 1) * unit}"
    if what:
        yield problem(f"{key}.image_size", size, what, remedy)


def check_weights(key: str, model: Model) -> Iterator[str]:
    if model.weights and model.weights.startswith(TORCHVISION):
        weights = read_architectures().get(model.arch or "", {})
        known = {TORCHVISION + name: asked for name, asked in weights.items()}
        if model.weights not in known:
            yield unknown(f"{key}.weights", model.weights, known)
        elif known[model.weights].get("other_normalization"):
            what = "was trained on pixels of another mean and deviation than those here"
            yield problem(f"{key}.weights", model.weights, what, "choose other weights or arch")
        if isinstance(model.classes, int | list):
            given = model.classes if isinstance(model.classes, int) else len(model.classes)
            if given != 1000:
                what = f"{given} classes, but torchvision's weights have 1000"
                yield f"{key}.classes: {what}; name them all or remove it."
    elif model.weights and model.classes is None:
        yield f"{key}.classes: missing; name the classes of {model.weights!r}, or their number."

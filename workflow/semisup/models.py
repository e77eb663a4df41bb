"""Networks by name, their weights on disk, and what they say about a batch of images."""

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from semisup import datasets, devices, foreign, tables, transforms
from semisup.settings import Preprocessing
from semisup.tables import DataError
from semisup.vision import resnet, torchvision
from semisup.wording import name_first

log = logging.getLogger("semisup")

MIN_CHANNELS_LAST = 16
"""Narrower convolutions crash when they learn channels last on CPU (torch 2.15, oneDNN)."""

Predictor = Callable[[torch.Tensor], torch.Tensor]
"""From uint8 images of shape (N, 3, H, W) to float32 of shape (N, ...), on the CPU."""


class Weights(NamedTuple):
    """A trained network with all that is needed to use it."""

    arch: str
    preprocessing: Preprocessing
    classes: list[str]
    state: dict[str, torch.Tensor]


class CifarResNet(nn.Module):
    """The residual network for 32-pixel images of He et al. (2016), section 4.2, of any width.

    ``depth`` 6n + 2: three stages of n blocks of ``width``, 2 width and 4 width channels.
    """

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.Sequential(
            _stage(width, width, blocks, 1),
            _stage(width, 2 * width, blocks, 2),
            _stage(2 * width, 4 * width, blocks, 2),
        )
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(self.stem(images_NCHW)).mean((2, 3)))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )
    first = resnet.BasicBlock(channels_in, channels, stride, shortcut)
    return nn.Sequential(first, *(resnet.BasicBlock(channels, channels) for _ in range(blocks - 1)))


class _OwnInput:
    """A GoogLeNet or Inception with what is done to its normalised pixels first as part of the weights.

    Torchvision's weights want them from -1 to 1 (its ``transform_input``), others as they are.
    """

    input_scale: torch.Tensor
    input_shift: torch.Tensor

    def _transform_input(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return images_NCHW * self.input_scale + self.input_shift


class _GoogLeNet(_OwnInput, torchvision.models.GoogLeNet):  # type: ignore[misc]
    pass


class _Inception(_OwnInput, torchvision.models.Inception3):  # type: ignore[misc]
    pass


INCEPTIONS: dict[str, Callable[..., nn.Module]] = {
    "googlenet": _GoogLeNet,
    "inception_v3": _Inception,
}
OPTIONAL = (".num_batches_tracked", "input_scale", "input_shift")
"""Ends of the names of what checkpoints of others may lack: BatchNorm's counters, which none from
before 2018 has and nothing here reads, and the input of :data:`INCEPTIONS`."""


def build(arch: str, num_classes: int, image_size: int = 224) -> nn.Module:
    """A network with random weights from torch's global generator.

    By name: torchvision's classifiers, ResNeXts of any width per group (the paper's, Table 1), and
    small networks for 32-pixel images. ``image_size`` shapes the few that take images of one size.
    """
    if small := re.fullmatch(r"cifar_resnet(\d+)_w(\d+)", arch):
        model: nn.Module = CifarResNet(int(small[1]), int(small[2]), num_classes)
    elif wide := re.fullmatch(r"resnext(50|101)_32x(\d+)d", arch):
        layers = {"50": [3, 4, 6, 3], "101": [3, 4, 23, 3]}[wide[1]]
        model = resnet.ResNet(
            resnet.Bottleneck, layers, num_classes, groups=32, width_per_group=int(wide[2])
        )
    elif arch in INCEPTIONS:
        model = INCEPTIONS[arch](num_classes, aux_logits=False, init_weights=True)
        model.register_buffer("input_scale", torch.ones(1, 3, 1, 1))
        model.register_buffer("input_shift", torch.zeros(1, 3, 1, 1))
    else:
        size: dict[str, Any] = {}
        if arch.startswith("vit_"):
            size = {"image_size": image_size}
        elif arch.startswith("maxvit_"):
            size = {"input_size": (image_size, image_size)}
        model = torchvision.models.get_model(arch, num_classes=num_classes, **size)
    return model.to(memory_format=layout(model))


def layout(model: nn.Module, channels_last: bool = True) -> torch.memory_format:
    """Of its images and weights: channels last where that is asked for, but for narrow networks."""
    channels = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    wide = min(channels, default=0) >= MIN_CHANNELS_LAST
    return torch.channels_last if channels_last and wide else torch.contiguous_format


def head_name(model: nn.Module) -> str:
    """Name of the last linear (or 1x1 convolution) layer: what maps features to logits."""
    heads = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return heads[-1]


def save(path: Path, weights: Weights) -> None:
    buffer = io.BytesIO()  # a file's own name would become part of its bytes
    content = weights._asdict() | {"preprocessing": weights.preprocessing.model_dump()}
    torch.save({"format": 2, **content}, buffer)
    tables.write_bytes(path, buffer.getvalue())


def write_classes(path: Path, classes: list[str]) -> None:
    """Class names, one a line, for whoever needs them without the weights."""
    tables.write_bytes(path, "".join(f"{name}\n" for name in classes).encode())


def load(path: Path) -> Weights:
    """Weights written by :func:`save`; raises DataError when they are not."""
    content = foreign.read_checkpoint(path)
    if not isinstance(content, dict) or content.pop("format", None) != 2:
        raise DataError(
            f"{path}: not weights of this version of the pipeline. Delete it and run again."
        )
    how = Preprocessing(**content.pop("preprocessing"))
    return Weights(preprocessing=how, **content)


def restore(weights: Weights) -> nn.Module:
    """The network with these weights."""
    model = build(weights.arch, len(weights.classes), weights.preprocessing.image_size)
    load_state(model, weights.state, source="weights")
    return model


def load_state(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load a state dict, all of it; raises DataError saying what does not fit.

    What is :data:`OPTIONAL` may be missing.
    """
    own = model.state_dict()
    state = {name: own[name] for name in own if name.endswith(OPTIONAL)} | state
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} {kind}"
        for name in own
        if name in state and (kind := _other_kind(state[name], own[name]))
    ]
    if missing or unexpected or shapes or kinds:
        found = [
            f"{len(names)} {what} ({name_first(names)})"
            for what, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", shapes),
                ("of no plain floating-point numbers", kinds),
            )
            if names
        ]
        remedy = "Check arch, image_size and classes."
        if kinds:
            remedy = "Quantised or otherwise encoded weights cannot be used: name those they are made from."
        raise DataError(f"{source} does not fit the network: {'; '.join(found)}. {remedy}")
    model.load_state_dict(state)


def _other_kind(tensor: torch.Tensor, own: torch.Tensor) -> str:
    """What a tensor is whose values cannot become those of ``own``; nothing where they can."""
    if tensor.is_meta:
        return "without values"
    if tensor.layout != torch.strided:
        return str(tensor.layout)
    is_lost = own.is_floating_point() and not tensor.is_floating_point()
    return str(tensor.dtype) if is_lost else ""


def start_from(model: nn.Module, weights: Weights, classes: list[str]) -> None:
    """Begin with these weights; the last layer stays random where the classes differ.

    As many classes, on one side with names and on the other with numbers only, are the same:
    torchvision's ImageNet and one with its names.
    """
    state = dict(weights.state)
    if difference := datasets.class_difference(weights.classes, classes):
        numbers = [str(i) for i in range(len(classes))]
        if len(weights.classes) == len(classes) and numbers in (weights.classes, classes):
            log.info("the last layer is kept: classes with numbers only are those with names")
        else:
            log.warning("the last layer starts at random, its classes are others: %s", difference)
            head = head_name(model)
            own = model.state_dict()
            state |= {name: own[name] for name in own if name.startswith(f"{head}.")}
    load_state(model, state, source="the initial weights")


class Seen(NamedTuple):
    """What a network says about N images, float32 on the CPU.

    ``features_ND``: the input of the last layer, which for a ResNet is pool5, L2-normalised (paper,
    section 4.1); of length 0 where it is all zeros.
    """

    logits_NC: torch.Tensor
    features_ND: torch.Tensor


def observer(weights: Weights, precision: str, workers: int) -> Callable[[torch.Tensor], Seen]:
    """A function from uint8 images (N, 3, H, W) to logits and features.

    BatchNorm is folded into the convolutions. In bfloat16 the last layer stays float32: logits of 8
    bits would tie.
    """
    torch.set_num_threads(max(workers, 1))
    device = devices.choose_device()
    model = _fold(restore(weights).eval()).to(device)
    order = layout(model)
    model = model.to(memory_format=order)
    dtype = torch.float32
    head = model.get_submodule(head_name(model))
    if devices.is_bfloat16(precision, device):
        dtype = torch.bfloat16
        head = model.to(dtype).get_submodule(head_name(model)).float()
    caught: list[torch.Tensor] = []

    def catch(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        features = inputs[0].float()
        caught.append(_pool(features))
        return (features,)

    head.register_forward_pre_hook(catch)

    @torch.inference_mode()
    def observe(images_NCHW: torch.Tensor) -> Seen:
        caught.clear()
        logits: torch.Tensor = model(transforms.normalize(images_NCHW, device, order).to(dtype))
        features = nn.functional.normalize(caught[0], dim=1)
        return Seen(logits.float().cpu(), features.cpu())

    return observe


def predictor(weights: Weights, precision: str, workers: int) -> Predictor:
    """A function from uint8 images (N, 3, H, W) to float32 logits (N, classes) on the CPU."""
    observe = observer(weights, precision, workers)
    return lambda images_NCHW: observe(images_NCHW).logits_NC


def _fold(model: nn.Module) -> nn.Module:
    """BatchNorm folded into the convolution before it, where torch.fx can follow the network."""
    try:
        return fuse(model)
    except Exception as error:  # torch.fx raises many kinds
        log.info("BatchNorm is not folded: %s", error)
        return model


def _pool(features: torch.Tensor) -> torch.Tensor:
    """(N, C) from (N, C) or, where the last layer is a convolution, (N, C, H, W)."""
    return features.mean((2, 3)) if features.dim() == 4 else features

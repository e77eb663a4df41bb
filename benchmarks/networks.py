"""One way of training, scoring or loading, in a process of its own: `networks.py WAY ARCH FOLDER OUTPUT`.

Prints one line of JSON: images per second, without imports and, in training, without the first two
steps. ``FOLDER/timm`` holds timm's scripts.
"""

import json
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import torch
import torchvision
from network_files import IMAGENET, NUM_CLASSES, NUM_IMAGES
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision import transforms as v1

from semisup import distributed, loader, memory, models, settings, training, transforms
from semisup.config import Recipe
from semisup.order import TrainingOrder
from semisup.samples import read_samples
from semisup.steps import score_shards
from semisup.tracking import Nowhere

WORKERS = 2
BATCH = {"resnet18": 32, "resnet50": 16, "resnet152": 16}
RECIPE = {"images": NUM_IMAGES, "base_lr": 0.01, "precision": "float32"}
MEAN, STD = transforms.MEAN, transforms.STD
Result = dict[str, object]


# --- training ---------------------------------------------------------------------------------


def train_ours(arch: str, folder: Path, output: Path) -> Result:
    memory.keep_freed()  # as the step does
    torch.manual_seed(0)
    model = models.build(arch, NUM_CLASSES)
    recipe = Recipe(**RECIPE, global_batch_size=BATCH[arch])
    samples = read_samples([folder / "whole" / "manifest-00000.json"])
    trained = training.train(
        "train", model, NUM_CLASSES, samples, recipe, IMAGENET, 0, output / "checkpoints",
        distributed.this_rank(), WORKERS, Nowhere(),
    )  # fmt: skip
    losses = [row["loss"] for row in trained.metrics]
    return {"losses": losses}


def train_preloaded(arch: str, folder: Path, output: Path) -> Result:
    """The same loop on the same batches, decoded before."""
    load = loader.training_batches
    held: list[loader.Batch] = []

    def preload(*arguments: object) -> Generator[loader.Batch]:
        held.extend(load(*arguments))  # type: ignore[arg-type]
        return (each for each in held)

    loader.training_batches = preload  # type: ignore[assignment]
    return train_ours(arch, folder, output)


def train_timm(arch: str, folder: Path, output: Path, *more: str) -> Result:
    options = [
        "--data-dir", str(folder / "whole" / "folders"), "--model", arch, "--device", "cpu",
        "--num-classes", str(NUM_CLASSES), "-b", str(BATCH[arch]), "-j", str(WORKERS),
        "--epochs", "1", "--warmup-epochs", "0", "--opt", "sgd", "--lr", "0.01", "--color-jitter", "0",
        "--train-interpolation", "bilinear", "--output", str(output), "--img-size", "224",
    ]  # fmt: skip
    run_script(folder / "timm" / "train.py", [*options, *more])
    return {}


def train_timm_channels_last(arch: str, folder: Path, output: Path) -> Result:
    return train_timm(arch, folder, output, "--channels-last")


def train_torchvision(arch: str, folder: Path, output: Path) -> Result:
    """What torchvision's reference script does with its defaults: its transforms, its loop."""
    transform = v1.Compose(
        [
            v1.RandomResizedCrop(224, antialias=True), v1.RandomHorizontalFlip(),
            v1.PILToTensor(), v1.ConvertImageDtype(torch.float), v1.Normalize(MEAN, STD),
        ]
    )  # fmt: skip
    data = torchvision.datasets.ImageFolder(folder / "whole" / "folders" / "train", transform)
    batches = torch.utils.data.DataLoader(data, BATCH[arch], shuffle=True, num_workers=WORKERS)
    model = torchvision.models.get_model(arch, num_classes=NUM_CLASSES).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for images, labels in batches:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return {}


# --- scoring ----------------------------------------------------------------------------------


def score_ours(
    arch: str, folder: Path, output: Path, precision: str = "float32", data: str = "whole"
) -> Result:
    own = settings.ScoreShards(classes_per_image=10, batch_size=64, precision=precision)
    score_shards.main(
        own, folder / data / "manifest-00000.json", folder / f"{arch}.pt",
        output / "part-00000.parquet", output / "images-00000.parquet", WORKERS,
    )  # fmt: skip
    return {"num_images": NUM_IMAGES}


def score_ours_bfloat16(arch: str, folder: Path, output: Path) -> Result:
    return score_ours(arch, folder, output, "bfloat16")


def score_ours_damaged(arch: str, folder: Path, output: Path) -> Result:
    return score_ours(arch, folder, output, data="damaged")


def forward_float32(arch: str, folder: Path, output: Path, precision: str = "float32") -> Result:
    """The network alone, on pixels held in memory."""
    memory.keep_freed()
    predict = models.predictor(models.load(folder / f"{arch}.pt"), precision, WORKERS)
    images = torch.zeros(64, 3, 224, 224, dtype=torch.uint8).random_(0, 256)
    predict(images)
    start = time.perf_counter()
    for _ in range(NUM_IMAGES // 64):
        predict(images)
    return {"num_images": NUM_IMAGES, "seconds": time.perf_counter() - start}


def forward_bfloat16(arch: str, folder: Path, output: Path) -> Result:
    return forward_float32(arch, folder, output, "bfloat16")


def score_timm(arch: str, folder: Path, output: Path, *more: str, data: str = "whole") -> Result:
    options = [
        "--data-dir", str(folder / data / "folders" / "train"), "--model", arch, "--device", "cpu",
        "--num-classes", str(NUM_CLASSES), "--checkpoint", str(folder / f"{arch}.pth"),
        "-b", "64", "-j", str(WORKERS), "--input-size", "3", "224", "224", "--crop-pct", "0.875",
        "--interpolation", "bilinear", "--topk", "10", "--include-index", "--fullname",
        "--results-format", "parquet", "--results-dir", str(output), "--no-console-results",
    ]  # fmt: skip
    run_script(folder / "timm" / "inference.py", [*options, *more])
    return {"num_images": NUM_IMAGES}


def score_timm_channels_last(arch: str, folder: Path, output: Path) -> Result:
    return score_timm(arch, folder, output, "--channels-last")


def score_timm_damaged(arch: str, folder: Path, output: Path) -> Result:
    return score_timm(arch, folder, output, data="damaged")


# --- loading ----------------------------------------------------------------------------------


def load_ours(arch: str, folder: Path, output: Path) -> Result:
    samples = read_samples([folder / "whole" / "manifest-00000.json"])
    order = TrainingOrder(np.arange(NUM_IMAGES), 0, 4 * NUM_IMAGES, 32)
    transform = transforms.training_transform(Recipe(images=1), IMAGENET)
    batches = loader.training_batches(samples, order, transform, 224, 0, 0, 1, WORKERS)
    return {"num_images": sum(len(batch.rows) for batch in batches)}


def load_webdataset(arch: str, folder: Path, output: Path) -> Result:
    import webdataset as wds

    transform = v1.Compose(
        [v1.RandomResizedCrop(224, antialias=True), v1.RandomHorizontalFlip(), v1.PILToTensor()]
    )
    paths = [str(path) for path in sorted((folder / "whole" / "tars").glob("*.tar"))]
    data = wds.WebDataset(paths, shardshuffle=4, seed=0).repeat(4).shuffle(1000)
    data = data.decode("pil").to_tuple("jpg", "cls").map_tuple(transform, int).batched(32)
    batches = wds.WebLoader(data, batch_size=None, num_workers=WORKERS)
    return {"num_images": sum(len(labels) for _, labels in batches)}


def run_script(path: Path, options: list[str]) -> None:
    sys.argv = [str(path), *options]
    runpy.run_path(str(path), run_name="__main__")


WAYS: dict[str, Callable[[str, Path, Path], Result]] = {
    way.__name__: way
    for way in (
        train_ours, train_preloaded, train_timm, train_timm_channels_last, train_torchvision,
        score_ours, score_ours_bfloat16, forward_float32, forward_bfloat16, score_timm,
        score_timm_channels_last, score_ours_damaged, score_timm_damaged, load_ours, load_webdataset,
    )
}  # fmt: skip


def main(way: str, arch: str, folder: Path, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    import pandas  # noqa: F401
    import timm.data  # noqa: F401

    steps: list[float] = []
    register_optimizer_step_post_hook(lambda *_: steps.append(time.perf_counter()))
    start = time.perf_counter()
    result = WAYS[way](arch, folder, output)
    seconds = float(result.pop("seconds", time.perf_counter() - start))  # type: ignore[arg-type]
    if steps:
        rate = BATCH[arch] * (len(steps) - 2) / (steps[-1] - steps[1])
    else:
        rate = int(result.pop("num_images")) / seconds  # type: ignore[call-overload]
    print(json.dumps({"way": way, "arch": arch, "images_per_second": rate, **result}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve(), Path(sys.argv[4]).resolve())

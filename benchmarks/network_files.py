"""Labelled JPEGs for the benchmarks of networks, as tars and as folders: `network_files.py FOLDER`.

512 crops of scikit-learn's photographs (NUM_IMAGES of the environment: another number), 17 to 108 KB, in
4 tars, and the same files in a folder per class, which other programs read; a second set in which
every hundredth image is damaged. Teachers: random ResNets whose last layer is fitted to 20 clusters of
their own features, so that decisions are as clear as those of a trained network.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from pack_files import crop
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression

from semisup import loader, models, settings, tars
from semisup.images import MAX_PIXELS
from semisup.samples import read_samples
from semisup.settings import Preprocessing
from semisup.steps import index_shards

NUM_IMAGES = int(os.environ.get("NUM_IMAGES", "512"))
NUM_SHARDS, NUM_CLASSES = 4, 20
IMAGENET = Preprocessing(image_size=224, resize=256)
ARCHS = ("resnet18", "resnet50", "resnet152")


def main(folder: Path) -> None:
    for name, damaged in (("whole", 0), ("damaged", 100)):
        if not (folder / name / "manifest-00000.json").exists():
            make_set(folder / name, damaged)
    for arch in ARCHS:
        if not (folder / f"{arch}.pt").exists():
            make_teacher(folder, arch)


def make_set(folder: Path, damaged: int) -> None:
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    images = [crop(photographs[i % 2], rng) for i in range(NUM_IMAGES)]
    if damaged:
        images = [b"no image" if i % damaged == 7 else image for i, image in enumerate(images)]
    paths = []
    for shard in range(NUM_SHARDS):
        mine = range(shard, NUM_IMAGES, NUM_SHARDS)
        paths.append(folder / "tars" / f"{shard}.tar")
        samples = ((f"{i:05d}", {"jpg": images[i], "cls": b"%d" % label(i)}) for i in mine)
        tars.write_tar(paths[-1], samples)
    for i, image in enumerate(images):
        for split in ("train", *(["val"] if i < 32 else [])):
            path = folder / "folders" / split / f"{label(i):02d}" / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    index = settings.IndexShards(
        dataset="data", part=0, first_shard=0, shards=[str(path) for path in paths],
        num_classes=NUM_CLASSES, max_pixels=MAX_PIXELS,
            stamp="",
    )  # fmt: skip
    index_shards.main(index, folder / "manifest-00000.json", folder / "samples-00000.parquet")


def label(image: int) -> int:
    return image % NUM_CLASSES


def make_teacher(folder: Path, arch: str) -> None:
    """Weights as ours (``.pt``), and the state dict alone, as timm reads it (``.pth``)."""
    torch.manual_seed(0)
    model = models.build(arch, NUM_CLASSES)
    names = [str(i) for i in range(NUM_CLASSES)]
    weights = models.Weights(arch, IMAGENET, names, model.state_dict())
    describe = models.observer(weights, "float32", 2)
    samples = read_samples([folder / "whole" / "manifest-00000.json"])
    rows = np.arange(NUM_IMAGES)
    batches = loader.evaluation_batches(samples, rows, IMAGENET, 64, 0)
    features = torch.cat([describe(batch.images_NCHW).features_ND for batch in batches]).numpy()
    # The network gives features before they are normalised: their mean length makes up for it.
    clusters = KMeans(NUM_CLASSES, random_state=0, n_init=3).fit_predict(features)
    fitted = LogisticRegression(C=1e4, max_iter=2000).fit(features, clusters)
    length = unnormalised_length(model, samples)
    state = model.state_dict() | {
        "fc.weight": torch.from_numpy(fitted.coef_ / length).float(),
        "fc.bias": torch.from_numpy(fitted.intercept_).float(),
    }
    models.save(folder / f"{arch}.pt", weights._replace(state=state))
    torch.save(state, folder / f"{arch}.pth")


def unnormalised_length(model: torch.nn.Module, samples: object) -> float:
    from semisup import transforms

    batches = loader.evaluation_batches(samples, np.arange(16), IMAGENET, 16, 0)  # type: ignore[arg-type]
    caught: list[torch.Tensor] = []
    hook = model.fc.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))  # type: ignore[union-attr]
    with torch.inference_mode():
        for batch in batches:
            model.eval()(transforms.normalize(batch.images_NCHW, torch.device("cpu")))
    hook.remove()
    return float(torch.cat(caught).norm(dim=1).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

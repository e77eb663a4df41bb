"""Recall of real near-duplicates beside imagededup: `duplicates_real.py LIST FOLDER PYTHON NAME=WEIGHTS...`.

The 50,000 training images of CIFAR-10 are U, its 10,000 test images the evaluation set. LIST:
meta/duplicates_cifar10.csv of the repository cvjena/cifair, the pairs that Barz and Denzler judged by
hand ("Do we train on test data?", 2019; 1: one shot of a camera, 2: very similar but another). They
looked at the closest pairs of the features of a CNN, so what no such features find is not on it.
PYTHON: an interpreter that has imagededup, apart from ours (its own pins). NAME=WEIGHTS: descriptors
of ours; the first one is given to imagededup's CNN too.

A test image is flagged by its closest training image. One on the list with judgment 0 or 1 is to be
found, one that is not on the list is a false positive, judgment 2 counts neither way. Every method
gets the largest cut with at most so many false positives. The list lacks many real ones: those
flagged at 50 were looked at, all methods shuffled, and the judgments are in results/. FOLDER gets
the pictures of the listed pairs, and of pairs that nobody has looked at.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow"))
FALSE_POSITIVES = (10, 50, 200)
METHODS = ["PHash", "DHash", "AHash", "WHash"]
LOOKED_AT, OTHERS = 50, 5
"""At the cut with so many false positives they were looked at: the list lacks many real ones."""

JUDGED = HERE / "results" / "duplicates_real_judged.csv"
"""TestID, TrainID, Same: 1 where both show one shot, also mirrored, recoloured or cut otherwise; 0 if in doubt."""

BLOCK, SHEET = 100, 60
NONE = -1.0
"""The cut of a method that has none."""

WITHOUT_DOWNLOAD = """
import sys
import torchvision

make = torchvision.models.mobilenet_v3_small
torchvision.models.mobilenet_v3_small = lambda weights: make()  # unused; importing would download it
"""

HASH = """
import json
from imagededup import methods

found = {}
for name in sys.argv[3:]:
    method = getattr(methods, name)(verbose=False)
    found[name] = method.encode_images(sys.argv[1], num_enc_workers=1)
json.dump(found, open(sys.argv[2], "w"))
"""

ENCODE = """
import numpy as np
import torch
from imagededup import methods
from imagededup.utils import CustomModel
from torchvision import transforms

torch.set_num_threads(1)
to_input = transforms.Compose([
    transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
])
model = torch.export.load(sys.argv[3]).module()
found = methods.CNN(False, CustomModel("ours", model, to_input)).encode_images(sys.argv[1])
np.savez(sys.argv[2], names=list(found), vectors=np.array(list(found.values())))
"""


class Closest(NamedTuple):
    """The closest training image of each test image, and the listed pairs, by one method."""

    distance: np.ndarray
    train: np.ndarray
    listed: np.ndarray


def main(listed: Path, folder: Path, python: str, descriptors: dict[str, Path]) -> None:
    torch.set_num_threads(1)
    pairs = pd.read_csv(listed)
    train, test = read_pictures(folder)
    check(pairs, train, test)
    show(folder / "listed.png", pairs.to_numpy()[:, :2].astype(int), test, train)
    report(measure(pairs, train, test, folder, python, descriptors), pairs, train, test, folder)


def measure(
    pairs: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    folder: Path,
    python: str,
    descriptors: dict[str, Path],
) -> dict[str, Closest]:
    """What each method finds."""
    found = {}
    for name, weights in descriptors.items():
        vectors = [describe(weights, pixels) for pixels in (test, train)]
        found[f"ours: {name}"] = closest(*vectors, pairs, euclidean)
    found["ours: perceptual hash"] = closest(our_hashes(test), our_hashes(train), pairs, hamming)
    encoded = folder / "hashes.json"
    if not encoded.exists():
        ask(python, HASH, [str(folder / "pictures"), str(encoded), *METHODS])
    for name, hashes in json.loads(encoded.read_text()).items():
        sets = split({k: np.uint64(int(v, 16)) for k, v in hashes.items()})
        found[f"imagededup {name}"] = closest(*sets, pairs, hamming)
    name, weights = next(iter(descriptors.items()))
    vectors = imagededup_vectors(python, folder, weights)
    found[f"imagededup CNN: {name}"] = closest(*vectors, pairs, imagededup_cosine)
    return found


def report(
    found: dict[str, Closest],
    pairs: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    folder: Path,
) -> None:
    """Writes the table, and what has still to be looked at."""
    judged = pd.read_csv(JUDGED).set_index(["TestID", "TrainID"]).Same.to_dict()
    rows, wrong = [], set()
    for name, by in found.items():
        row = {"method": name} | recalls(by, pairs)
        cut = row[str(LOOKED_AT)]["cut"]
        flagged = np.setdiff1d(np.flatnonzero(by.distance <= cut), pairs.TestID)
        own = [(int(i), int(by.train[i])) for i in flagged]
        row["looked_at"] = {"unlisted": len(own), "same": sum(judged.get(pair, 0) for pair in own)}
        row["judged"] = judged_recall(by, pairs, cut, judged)
        wrong |= set(own)
        rows.append(row)
        print(json.dumps(row))
    left = np.random.default_rng(0).permutation(sorted(wrong - judged.keys()))
    for sheet in range(-(-len(left) // SHEET)):
        here = left[sheet * SHEET : (sheet + 1) * SHEET]
        show(folder / f"unlisted-{sheet}.png", here, test, train)
    if len(left):
        pd.DataFrame(left, columns=["TestID", "TrainID"]).to_csv(
            folder / "unlisted.csv", index=False
        )
        sys.exit(
            f"{len(left)} pairs to look at: {folder}/unlisted-*.png, row by row as unlisted.csv"
        )
    (HERE / "results" / "duplicates_real.json").write_text(json.dumps(rows, indent=1) + "\n")


def judged_recall(by: Closest, pairs: pd.DataFrame, last: float, judged: dict) -> dict:
    """Real ones, listed or judged, at the largest cut up to ``last`` with at most OTHERS other ones."""
    best = {"cut": NONE, "others": 0, "found": 0}
    for cut in np.unique(by.distance[by.distance <= last]):
        flagged = np.flatnonzero(by.distance <= cut)
        own = [(i, by.train[i]) for i in np.setdiff1d(flagged, pairs.TestID)]
        same = sum(judged.get(pair, 0) for pair in own)
        if len(own) - same <= OTHERS:
            listed = len(np.intersect1d(flagged, pairs.TestID[pairs.Judgment <= 1]))
            best = {"cut": float(cut), "others": len(own) - same, "found": listed + same}
    return best


def read_pictures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the training and the test images by their numbers in CIFAR-10; their files as they are."""
    from semisup import images
    from semisup.steps import make_cifar10

    source = make_cifar10.read_source(HERE.parent / make_cifar10.SOURCE)
    sets = []
    for split, samples in (("train", source.train), ("test", source.test)):
        if [sample.key for sample in samples] != [
            f"cifar10-{split}-{i:05d}" for i in range(len(samples))
        ]:
            sys.exit(f"the keys of {split} are not the numbers of CIFAR-10")
        sets.append(np.stack([images.decode(sample.members["jpg"]) for sample in samples]))
    if not (folder / "pictures").exists():
        (folder / "pictures").mkdir(parents=True)
        for sample in source.train + source.test:
            (folder / "pictures" / f"{sample.key}.jpg").write_bytes(sample.members["jpg"])
    return sets[0], sets[1]


def check(pairs: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> None:
    """Ends unless the listed pairs look alike: the numbers of the list are those of the images."""

    def apart(test_ids: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
        return np.abs(test[test_ids].astype(int) - train[train_ids]).mean((1, 2, 3))

    test_ids, train_ids = pairs.TestID.to_numpy(), pairs.TrainID.to_numpy()
    medians = {
        "listed": np.median(apart(test_ids, train_ids)),
        "the next test image": np.median(apart((test_ids + 1) % len(test), train_ids)),
        "the next training image": np.median(apart(test_ids, (train_ids + 1) % len(train))),
        "other pairs": np.median(apart(test_ids, np.roll(train_ids, 1))),
    }
    print("grey levels apart, medians:", {k: round(float(v), 1) for k, v in medians.items()})
    for judgment, own in pairs.groupby("Judgment"):
        levels = np.percentile(apart(own.TestID, own.TrainID), (10, 50, 90)).round(1).tolist()
        print(f"judgment {judgment}, {len(own)} pairs, percentiles 10, 50, 90: {levels}")
    if medians["listed"] > 0.6 * min(v for k, v in medians.items() if k != "listed"):
        sys.exit("the listed pairs do not look alike: are these numbers of other images?")


def describe(weights: Path, pixels: np.ndarray) -> np.ndarray:
    """Features as the pipeline stores them, float16."""
    from semisup import features, models

    observe = models.observer(models.load(weights), "float32", 1)
    batches = np.array_split(pixels.transpose(0, 3, 1, 2), len(pixels) // 250)
    made = [observe(torch.from_numpy(batch.copy())).features_ND.numpy() for batch in batches]
    return np.stack([np.frombuffer(row, "<f2") for row in features.pack(np.concatenate(made))])


def our_hashes(pixels: np.ndarray) -> np.ndarray:
    from semisup import transforms
    from semisup.fingerprints import perceptual_hash

    hashes = [perceptual_hash(transforms.to_tensor(image)) for image in pixels]
    return np.array(hashes, np.int64).view(np.uint64)


def imagededup_vectors(python: str, folder: Path, weights: Path) -> tuple[np.ndarray, ...]:
    """What imagededup's CNN makes of the pictures with our network as its model."""
    from semisup import models

    network, encoded = folder / "network.pt2", folder / f"encoded-{weights.stat().st_mtime_ns}.npz"
    if not encoded.exists():
        model = models.restore(models.load(weights)).eval()
        setattr(model, models.head_name(model), torch.nn.Identity())
        batch = torch.export.Dim("batch", min=1, max=64)
        example = (torch.zeros(2, 3, 32, 32),)
        torch.export.save(torch.export.export(model, example, dynamic_shapes=[{0: batch}]), network)
        ask(python, ENCODE, [str(folder / "pictures"), str(encoded), str(network)])
    made = np.load(encoded)
    return split(dict(zip(made["names"].tolist(), made["vectors"], strict=True)))


def ask(python: str, code: str, arguments: list[str]) -> None:
    subprocess.run([python, "-c", WITHOUT_DOWNLOAD + code, *arguments], check=True)


def split(found: dict) -> tuple[np.ndarray, np.ndarray]:
    """What was found of the test and of the training pictures, in order of their names."""
    names = sorted(found)
    test, train = ([n for n in names if f"-{split}-" in n] for split in ("test", "train"))
    return np.stack([found[n] for n in test]), np.stack([found[n] for n in train])


def closest(test: np.ndarray, train: np.ndarray, pairs: pd.DataFrame, measure) -> Closest:
    """``measure``: distances of all pairs of a block of test images and the training images."""
    distance, match = np.empty(len(test)), np.empty(len(test), int)
    listed = np.empty(len(pairs))
    for start in range(0, len(test), BLOCK):
        apart = measure(test[start : start + BLOCK], train)
        match[start : start + BLOCK] = apart.argmin(1)
        distance[start : start + BLOCK] = apart.min(1)
        here = np.flatnonzero((pairs.TestID >= start) & (pairs.TestID < start + BLOCK))
        listed[here] = apart[pairs.TestID[here] - start, pairs.TrainID[here]]
    return Closest(distance, match, listed)


def euclidean(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Of float16 features, in float64: no rounding matters."""
    test, train = test.astype(float), train.astype(float)
    squares = (test**2).sum(1)[:, None] + (train**2).sum(1) - 2 * test @ train.T
    return np.sqrt(squares.clip(0))


def hamming(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    return np.bitwise_count(test[:, None] ^ train)


def imagededup_cosine(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """1 - similarity, which imagededup rounds to float16 where there are more than 10,000 images."""
    test, train = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test, train))
    return 1 - (test @ train.T).astype(np.float16).astype(np.float32)


def recalls(by: Closest, pairs: pd.DataFrame) -> dict:
    """At each number of false positives: the cut and the share found, of all and by judgment.

    ``pair``: the share of the pairs themselves within the cut; another training image may be closer.
    """
    unlisted = np.setdiff1d(np.arange(len(by.distance)), pairs.TestID)
    own, wanted = by.distance[pairs.TestID], (pairs.Judgment <= 1).to_numpy()
    cuts = np.unique(by.distance)
    false = np.searchsorted(np.sort(by.distance[unlisted]), cuts, side="right")
    rows = {}
    for limit in FALSE_POSITIVES:
        fitting = np.flatnonzero(false <= limit)
        cut = float(cuts[fitting[-1]]) if len(fitting) else NONE
        rows[str(limit)] = {
            "cut": cut,
            "false": int((by.distance[unlisted] <= cut).sum()),
            "found": int((own[wanted] <= cut).sum()),
            "of": int(wanted.sum()),
            "recall": float((own[wanted] <= cut).mean()),
            "pair": float((by.listed[wanted] <= cut).mean()),
            "by_judgment": {
                str(j): [int((own[pairs.Judgment == j] <= cut).sum()), int((pairs.Judgment == j).sum())]
                for j in (0, 1, 2)
            },
        }  # fmt: skip
    return rows


def show(path: Path, pairs: np.ndarray, test: np.ndarray, train: np.ndarray) -> None:
    """Up to 60 pairs, six a row, three times as large, the test image on the left."""
    cells = [
        np.pad(np.hstack([test[a], train[b]]), ((2, 2), (2, 6), (0, 0))) for a, b in pairs[:SHEET]
    ]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % 6)
    rows = [np.hstack(cells[i : i + 6]) for i in range(0, len(cells), 6)]
    picture = Image.fromarray(np.vstack(rows))
    picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[4:])
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], {k: Path(v) for k, v in named.items()})

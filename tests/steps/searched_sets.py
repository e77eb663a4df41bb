"""U and two evaluation sets with images in common, described and searched."""

import hashlib
from pathlib import Path

import pandas as pd
import torch

from conftest import Dataset, make_jpeg
from semisup import loader, models, settings
from semisup.steps import (
    extract_features,
    find_copies,
    find_duplicates,
    merge_duplicates,
)
from small import encode, square

CLASSES = ["ant", "bee", "cow"]
DESCRIBE = settings.ExtractFeatures(batch_size=3, precision="float32")
SCORE = settings.ScoreShards(classes_per_image=2, batch_size=3, precision="float32")


def repacked(content: bytes) -> bytes:
    """The same pixels in another file."""
    return encode(loader.decode(content).numpy().transpose(1, 2, 0))


TEST = [(f"t{i}", {"jpg": make_jpeg(1000 + i), "cls": b"1"}) for i in range(6)]
OTHER = [(f"t{i}", {"jpg": make_jpeg(2000 + i), "cls": b"1"}) for i in range(4)]  # the same keys
UNLABELED = [[(f"u{s}-{i}", {"jpg": make_jpeg(100 * s + i)}) for i in range(8)] for s in range(3)]
UNLABELED[0][1] = ("the bytes of test 2", TEST[2][1])
UNLABELED[1][2] = ("the pixels of other 3", {"png": repacked(OTHER[3][1]["jpg"])})
UNLABELED[1][5] = ("broken", {"jpg": make_jpeg(1)[:-40]})
UNLABELED[2][0] = ("the pixels of u0-4", {"png": repacked(UNLABELED[0][4][1]["jpg"])})
UNLABELED[2][3] = ("the bytes of u0-4", UNLABELED[0][4][1])
UNLABELED[2][6] = ("broken again", {"jpg": make_jpeg(1)[:-40]})


def make_network(tmp_path: Path) -> Path:
    return save(tmp_path / "weights.pt", square(12), seed=3)


def save(path: Path, how: settings.Preprocessing, seed: int) -> Path:
    torch.manual_seed(seed)
    model = models.build("cifar_resnet8_w4", len(CLASSES))
    models.save(path, models.Weights("cifar_resnet8_w4", how, CLASSES, model.state_dict()))
    return path


def describe(folder: Path, manifests: list[Path], network: Path) -> Path:
    """The features of a dataset in a folder; returns that of the first part."""
    for part, manifest in enumerate(manifests):
        extract_features.main(
            DESCRIBE, manifest, network,
            folder / f"part-{part:05d}.parquet", folder / f"images-{part:05d}.parquet", 0,
        )  # fmt: skip
    return folder / "part-00000.parquet"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Searched:
    """U and two evaluation sets, described and searched."""

    def __init__(
        self, folder: Path, make: Dataset, network: Path, per_part: int = 3, limit: int = 1000
    ) -> None:
        self.folder = folder
        sets = {"other": make([OTHER], 3, "other"), "test": make([TEST[:3], TEST[3:]], 3, "test")}
        self.manifests = make(UNLABELED, None, "unlabeled", per_part)
        self.evaluation = {name: len(manifests) for name, manifests in sets.items()}
        firsts = [describe(folder / name, sets[name], network) for name in sorted(sets)]
        describe(folder / "u", self.manifests, network)
        for part, manifest in enumerate(self.manifests):
            find_duplicates.main(
                settings.FindDuplicates(
                    record_distance=2.0, max_pairs=limit, evaluation=self.evaluation
                ),
                manifest,
                folder / "u" / f"part-{part:05d}.parquet",
                firsts,
                [sets[name][0] for name in sorted(sets)],
                folder / f"part-{part:05d}.parquet",
                folder / f"nearest-{part:05d}.parquet",
                1,
            )
        merge_duplicates.main(
            settings.MergeDuplicates(num_parts=len(self.manifests), max_pairs=limit),
            folder / "part-00000.parquet",
            folder / "pairs.parquet",
        )
        find_copies.main(
            settings.FindCopies(num_parts=len(self.manifests), evaluation=self.evaluation),
            folder / "u" / "images-00000.parquet",
            self.manifests[0],
            [folder / name / "images-00000.parquet" for name in sorted(sets)],
            [sets[name][0] for name in sorted(sets)],
            folder / "copies.parquet",
        )

    def nearest(self) -> pd.DataFrame:
        paths = sorted(self.folder.glob("nearest-*"))
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")


def search(tmp_path: Path, make_dataset: Dataset, network: Path) -> Searched:
    return Searched(tmp_path / "run", make_dataset, network)

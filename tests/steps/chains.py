"""score_shards, count_images, select and pack_selection, one after the other, on real tars."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import Dataset, make_jpeg
from semisup import images, models, passes, settings, tables
from semisup.config import Remove
from semisup.steps import count_images, pack_selection, score_shards, select
from small import square

CLASSES = ["ant", "bee", "cow"]
SHARDS = [
    [(f"s{shard}-{i}", {"jpg": make_jpeg(100 * shard + i)}) for i in range(7 + shard)]
    for shard in range(4)
]
SHARDS[1][2] = ("broken", {"jpg": make_jpeg(1)[:-40]})
SHARDS[2][0] = ("empty", {"png": b""})
SHARDS[3] = [("text", {"jpg": b"no image"}), ("none", {"json": b"{}"})]  # nothing usable
SHARDS[0][5] = ("copy", SHARDS[0][4][1])


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = models.build("cifar_resnet8_w4", len(CLASSES))
    path = tmp_path / "weights.pt"
    models.save(path, models.Weights("cifar_resnet8_w4", square(12), CLASSES, model.state_dict()))
    models.write_classes(tmp_path / "classes.txt", CLASSES)
    return path


class Chain:
    """The files of one run of the steps, in a folder."""

    evaluation: list[Path] = []
    """Manifests of the evaluation sets that a review is about."""

    def __init__(self, folder: Path, manifests: list[Path], teacher: Path, workers: int = 0):
        self.folder, self.manifests, self.teacher = folder, manifests, teacher
        self.workers = workers
        for i, manifest in enumerate(manifests):
            self.score(i, manifest)

    def score(self, part: int, manifest: Path) -> None:
        score_shards.main(
            settings.ScoreShards(classes_per_image=2, batch_size=3, precision="float32"),
            manifest,
            self.teacher,
            self.folder / f"part-{part:05d}.parquet",
            self.folder / f"images-{part:05d}.parquet",
            self.workers,
        )

    def count(self, max_failure_rate: float = 1.0) -> dict[str, object]:
        count_images.main(
            settings.CountImages(
                num_parts=len(self.manifests),
                num_classes=len(CLASSES),
                classes_per_image=2,
                max_failure_rate=max_failure_rate,
            ),
            self.folder / "part-00000.parquet",
            self.folder / "images-00000.parquet",
            self.manifests[0],
            self.folder / "images.json",
            self.folder / "failures.parquet",
        )
        return json.loads((self.folder / "images.json").read_text())

    def select(
        self,
        k: int = 3,
        p: int = 2,
        remove: Remove | None = None,
        fraction: float = 1.0,
        variant: str = "balanced",
        rank_by: str = "softmax",
        tags: list[int] | None = None,
        min_score: float = 0.0,
        **files: Path,
    ) -> Path:
        self.count()
        select.main(
            settings.Select(
                num_parts=len(self.manifests),
                variant=variant,
                rank_by=rank_by,
                tags=tags,
                images_per_class=k,
                classes_per_image=p,
                stored_classes=2,
                min_score=min_score,
                fraction=fraction,
                seed=5,
                remove=remove,
            ),
            self.folder / "part-00000.parquet",
            self.manifests[0],
            self.folder / "images.json",
            self.folder / "failures.parquet",
            self.teacher.with_name("classes.txt"),
            [],
            [],
            [files["copies"]] if "copies" in files else [],
            [],
            [files["reviewed"]] if "reviewed" in files else [],
            self.evaluation if "reviewed" in files else [],
            self.folder / "selection.parquet",
            self.folder / "removed.parquet",
            self.folder / "summary.json",
            self.folder / "settings.json",
            self.workers,
        )
        return self.folder / "selection.parquet"

    def pack(self, samples_per_shard: int = 4, shards_per_part: int = 2, seed: int = 1) -> Path:
        """All parts of the packed selection, as if every class might hold all images."""
        num_rows = tables.count_rows(self.folder / "selection.parquet")
        num_parts = -(-(num_rows + 1) // (samples_per_shard * shards_per_part))
        for part in range(num_parts):
            pack_selection.main(
                settings.PackSelection(
                    part=part,
                    num_parts=num_parts,
                    first_shard=part * shards_per_part,
                    num_shards=shards_per_part,
                    samples_per_shard=samples_per_shard,
                    max_pixels=images.MAX_PIXELS,
                    seed=seed,
                ),
                self.folder / "selection.parquet",
                self.folder / "summary.json",
                self.folder / "packed" / "tars" / f"{part:05d}",
                self.folder / "packed" / f"manifest-{part:05d}.json",
                self.folder / "packed" / f"samples-{part:05d}.parquet",
                self.workers,
            )
        return self.folder / "packed"

    def packed_shards(self) -> list[dict[str, Any]]:
        manifests = sorted((self.folder / "packed").glob("manifest-*"))
        return [shard for path in manifests for shard in json.loads(path.read_text())["shards"]]


@pytest.fixture
def chain(tmp_path: Path, make_dataset: Dataset, teacher: Path) -> Chain:
    return Chain(tmp_path / "run", make_dataset(SHARDS, None, shards_per_part=2), teacher)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Which shards each scoring that follows has to score."""
    seen: list[list[int]] = []
    original = passes._make
    monkeypatch.setattr(passes, "_make", lambda *a: seen.append(a[1]) or original(*a))
    return seen


def chain_tars(chain: Chain) -> list[Path]:
    shards = json.loads(chain.manifests[0].read_text())["shards"]
    return [Path(shard["path"]) for shard in shards]


def stored(chain: Chain) -> pd.DataFrame:
    """All scores of the chain with the logsumexp of their image."""
    read = pd.read_parquet
    scores = pd.concat(read(path) for path in sorted(chain.folder.glob("part-*.parquet")))
    images = pd.concat(read(path) for path in sorted(chain.folder.glob("images-*.parquet")))
    return scores.merge(images, on=["shard_id", "sample_index"])

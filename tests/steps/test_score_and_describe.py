"""Both passes over U in one."""

from pathlib import Path

import pytest
from searched_sets import DESCRIBE, SCORE, UNLABELED, digest, make_network, save

from conftest import Dataset
from semisup import models, passes, settings, tables
from semisup.steps import (
    extract_features,
    score_and_describe,
    score_shards,
)
from small import square

network = pytest.fixture(make_network, name="network")

NAMES = ["scores/part", "scores/images", "u/part", "u/images"]


def both_in_one(folder: Path, manifest: Path, teacher: Path, descriptor: Path) -> list[Path]:
    paths = [folder / f"{name}-00000.parquet" for name in NAMES]
    made_of = settings.ScoreAndDescribe(score=SCORE, describe=DESCRIBE)
    score_and_describe.main(made_of, manifest, teacher, descriptor, *paths, 0)
    return paths


def one_by_one(folder: Path, manifest: Path, teacher: Path, descriptor: Path) -> list[Path]:
    paths = [folder / f"{name}-00000.parquet" for name in NAMES]
    score_shards.main(SCORE, manifest, teacher, *paths[:2], 0)
    extract_features.main(DESCRIBE, manifest, descriptor, *paths[2:], 0)
    return paths


@pytest.mark.parametrize(
    "other",
    [None, square(12), square(9), square(12).model_copy(update={"interpolation": "bicubic"})],
)
def test_one_pass_makes_the_bytes_of_two(
    other: settings.Preprocessing | None, tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    """The descriptor is the teacher, or another network for images that are resized alike or not."""
    descriptor = save(tmp_path / "descriptor.pt", other, seed=4) if other else network
    (manifest,) = make_dataset(UNLABELED, None, "unlabeled", 3)
    alone = one_by_one(tmp_path / "alone", manifest, network, descriptor)
    together = both_in_one(tmp_path / "together", manifest, network, descriptor)
    assert [digest(path) for path in together] == [digest(path) for path in alone]


def test_the_same_network_looks_once(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch
) -> None:
    made, original = [], models.observer
    monkeypatch.setattr(models, "observer", lambda *a: made.append(a) or original(*a))
    (manifest,) = make_dataset(UNLABELED[:1], None)
    both_in_one(tmp_path / "one", manifest, network, network)
    assert len(made) == 1
    both_in_one(tmp_path / "two", manifest, network, save(tmp_path / "d.pt", square(12), seed=4))
    assert len(made) == 3


def test_one_pass_that_is_killed_goes_on_with_the_same_bytes(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch
) -> None:
    (manifest,) = make_dataset(UNLABELED, None, "unlabeled", 3)
    calm = both_in_one(tmp_path / "calm", manifest, network, network)
    original = tables.write_table
    third = tables.read_json(manifest)["shards"][2]["sha256"][:32]

    def die_at_the_third_shard(path: Path, *arguments, **keywords) -> None:
        if path.name.startswith(third):
            raise KeyboardInterrupt
        original(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_table", die_at_the_third_shard)
        with pytest.raises(KeyboardInterrupt):
            both_in_one(tmp_path / "killed", manifest, network, network)
    assert not list((tmp_path / "killed").rglob("*-00000.parquet"))
    again, made = [], passes._make
    monkeypatch.setattr(passes, "_make", lambda *a: again.append(a[1]) or made(*a))
    resumed = both_in_one(tmp_path / "killed", manifest, network, network)
    assert again == [[2]]
    assert [digest(path) for path in resumed] == [digest(path) for path in calm]

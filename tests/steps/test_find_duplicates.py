from pathlib import Path

import pytest
import torch

from conftest import Dataset, make_jpeg
from semisup import models, schemas, settings, tables
from semisup.steps import extract_features, find_duplicates

SAMPLES = [(f"s{i}", {"jpg": make_jpeg(i)}) for i in range(6)]


@pytest.fixture
def files(tmp_path: Path, make_dataset: Dataset) -> dict[str, Path]:
    """A part of U, an evaluation set that shares two images with it, a descriptor."""
    torch.manual_seed(1)
    model = models.build("cifar_resnet8_w4", 3)
    weights = tmp_path / "weights.pt"
    models.save(weights, models.Weights("cifar_resnet8_w4", 12, 12, ["a", "b", "c"], model.state_dict()))  # fmt: skip
    (unlabeled,) = make_dataset([SAMPLES], None, "unlabeled")
    (test,) = make_dataset([SAMPLES[4:]], None, "test")
    extract_features.main(settings.ExtractFeatures(), [test], weights, tmp_path / "test.parquet", 0)
    return {"weights": weights, "unlabeled": unlabeled, "test": test, "folder": tmp_path}


def find(files: dict[str, Path], distance: float = 0.001) -> Path:
    pairs = files["folder"] / "pairs" / "part-00000.parquet"
    pairs.unlink(missing_ok=True)
    find_duplicates.main(
        settings.FindDuplicates(record_distance=distance),
        files["unlabeled"],
        [files["folder"] / "test.parquet"],
        [files["test"]],
        files["weights"],
        pairs,
        0,
    )
    return pairs


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The searches made, each by what it looks in."""
    made: list[str] = []
    search = find_duplicates.search
    monkeypatch.setattr(find_duplicates, "search", lambda *a: made.append(a[1].stem) or search(*a))
    return made


def test_the_images_of_u_that_are_in_the_evaluation_set_are_found(files) -> None:
    found = tables.read_table(find(files), schemas.DUPLICATES).to_pylist()
    same = {(row["key"], row["evaluation_key"]) for row in found}
    assert {("s4", "s4"), ("s5", "s5")} <= same
    assert all(row["distance"] <= 0.001 for row in found)


def test_a_job_that_is_run_again_searches_only_when_something_has_changed(files, searches) -> None:
    first = find(files).read_bytes()
    assert find(files).read_bytes() == first
    assert len(searches) == 1
    find(files, distance=0.5)
    assert len(searches) == 2
    weights = models.load(files["weights"])
    weights.state["fc.bias"][0] += 1
    models.save(files["weights"], weights)
    find(files, distance=0.5)
    assert len(searches) == 3
    assert len(list(files["folder"].glob("pairs/work/*"))) == 1


def test_damaged_pairs_are_searched_for_again(files, searches) -> None:
    first = find(files).read_bytes()
    (kept,) = files["folder"].glob("pairs/work/*")
    kept.write_bytes(first[:-9])
    assert find(files).read_bytes() == first
    assert len(searches) == 2

from pathlib import Path

import pandas as pd
import pytest
import torch
from searched_sets import OTHER, TEST, Searched, digest, make_network, search

from semisup import loader, models, settings, tables, transforms
from semisup.planted import KINDS
from semisup.steps import calibrate_duplicates
from small import square

network = pytest.fixture(make_network, name="network")
searched = pytest.fixture(search, name="searched")


def test_calibration_leaves_out_what_it_cannot_read_and_decodes_what_its_dataset_may_hold(
    searched: Searched, tmp_path: Path, network: Path, caplog
) -> None:
    made_of = settings.CalibrateDuplicates(
        num_images=2, seed=1, precision="float32", evaluation=searched.evaluation
    )
    manifests = [tmp_path / name / "manifest-00000.json" for name in ("other", "test")]
    firsts = [searched.folder / name / "part-00000.parquet" for name in ("other", "test")]
    small = tables.read_json(manifests[0]) | {"max_pixels": 1}
    tables.write_json(manifests[0], small)
    calibrate_duplicates.main(made_of, firsts, manifests, network, tmp_path / "made", 1)
    found = pd.read_parquet(tmp_path / "made")
    assert found.groupby("evaluation_dataset").size().to_dict() == {"test": 2 * len(KINDS)}
    assert "2 evaluation images were left out: {'too_many_pixels': 2}" in caplog.text


def test_calibration_measures_each_kind_against_its_original(
    searched: Searched, tmp_path: Path, network: Path
) -> None:
    made_of = settings.CalibrateDuplicates(
        num_images=2, seed=1, precision="float32", evaluation=searched.evaluation
    )
    manifests = [tmp_path / name / "manifest-00000.json" for name in ("other", "test")]
    firsts = [searched.folder / name / "part-00000.parquet" for name in ("other", "test")]
    for name in ("once", "twice"):
        calibrate_duplicates.main(made_of, firsts, manifests, network, tmp_path / name, 1)
    assert digest(tmp_path / "once") == digest(tmp_path / "twice")
    found = pd.read_parquet(tmp_path / "once")
    assert found.groupby("evaluation_dataset").size().to_dict() == {
        name: 2 * len(KINDS) for name in ("other", "test")
    }
    assert (found.distance_to_others > 0).all()
    row = found[found.kind == "mirrored"].iloc[0]
    source = {"other": OTHER, "test": TEST}[row.evaluation_dataset]
    content = source[row.evaluation_shard_id * 3 + row.evaluation_sample_index][1]["jpg"]
    pixels = loader.decode(content).numpy().transpose(1, 2, 0)
    fit = transforms.evaluation_transform(square(12))
    images = [fit(transforms.to_tensor(p)) for p in (pixels, pixels[:, ::-1].copy())]
    one, other = models.observer(models.load(network), "float32", 1)(torch.stack(images))[1]
    assert row.distance == pytest.approx(float((one - other).norm()), abs=2e-3)

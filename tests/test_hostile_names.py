"""Names of files, folders and classes reach no shell and no page as anything but text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from semisup import foreign, images, models, tars
from semisup.checks import ConfigError, load_config
from semisup.tables import DataError
from small import ROOT, make_jpeg, read_config

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
HOSTILE = "$(touch pwned) `touch pwned`; touch pwned & 'x' \"y\" \\ <b> %s #! ~ * é ; rm -rf ."
CLASSES = ["a,b", "c d", "$(touch pwned)", "'; touch pwned; '", '"<script>"', "é\u202e", "-n", "#"]


def test_hostile_names_of_tars_folders_classes_and_weights_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "data").mkdir(parents=True)
    shard = f"data/{HOSTILE}.tar".replace("\\", "")  # which quotes in brace notation
    labelled = [
        (HOSTILE.replace(".", ""), {"jpg": make_jpeg(1), "cls": b"0"}),
        ("../../up", {"jpg": make_jpeg(2)}),
    ]
    tars.write_tar(folder / shard, labelled)
    for name in CLASSES:
        place = folder / "photos" / name
        place.mkdir(parents=True)
        (place / f"{HOSTILE}.jpg").write_bytes(make_jpeg(3))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in sorted(CLASSES)))
    torch.manual_seed(0)
    weights = f"data/{HOSTILE}.pth".replace("<b>", "")  # refused, see the next test
    torch.save(models.build("cifar_resnet8_w4", len(CLASSES)).state_dict(), folder / weights)
    given = {"arch": "cifar_resnet8_w4", "image_size": 8, "weights": weights}
    config = {
        "datasets": {
            "own": {"shards": [shard], "classes": "classes.txt"},
            "photos": {"folder": "photos", "num_shards": 1},
        },
        "models": {"given": {**given, "classes": "classes.txt"}},
        "evaluate": {"on": ["own", "photos"]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [SNAKEMAKE, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
    targets = ["results/evaluations/given/imported.parquet"]
    done = subprocess.run(
        [*command, "--cores", "2", "--show-failed-logs", "--", *targets],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("pwned")]
    assert not (tmp_path / "up.jpg").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    made = {"results", ".snakemake"}
    assert {p.name for p in folder.iterdir()} == {
        "data",
        "photos",
        "classes.txt",
        "config.yaml",
        *made,
    }
    manifest = json.loads((folder / "results/datasets/own/manifest-00000.json").read_text())
    assert manifest["shards"][0]["path"] == shard
    classes = (folder / "results/models/given/imported/classes.txt").read_text()
    assert classes.splitlines() == sorted(CLASSES)


def test_given_files_whose_names_snakemake_would_expand_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("<b>.pth").touch()
    raw = read_config()
    raw["models"]["given"] = {"arch": "resnet18", "weights": "<b>.pth", "classes": 10}
    with pytest.raises(ConfigError, match=r"models.given.weights: '<b>.pth' holds < or >"):
        load_config(raw)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pth")
    try:
        foreign.read_checkpoint(Path("evil.pth"))
    except DataError as error:
        assert "cannot be read" in str(error)
    else:
        raise AssertionError("it was read")
    assert not Path("pwned").exists()


def test_an_image_that_claims_more_than_memory_costs_none() -> None:
    import tracemalloc

    from test_images import png_header

    tracemalloc.start()
    for width, height in ((2**31 - 1, 2**31 - 1), (30_000, 30_000)):
        try:
            images.decode(png_header(width, height))
        except images.ImageError as error:
            assert error.kind == "too_many_pixels"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000

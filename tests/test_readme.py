import re

import yaml

from semisup.checks import load_config
from semisup.site import Site
from small import ROOT
from snakemakes import readme_blocks


def test_the_configuration_of_the_readme_is_accepted(tmp_path, monkeypatch):
    blocks = [yaml.safe_load(block) for block in readme_blocks("yaml")]
    whole, folder, teachers, sweep, of_the_site = blocks
    assert Site.model_validate(of_the_site).gpu_partition == "a100"
    (tmp_path / "data").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "data/classes.txt").write_text("\n".join(f"class {i}" for i in range(1000)))
    (tmp_path / "checkpoints/mine.pth").write_bytes(b"")
    for class_id in range(1000):
        (tmp_path / f"photos/train/{class_id:04d}").mkdir(parents=True)
    names = [f"train-{i:03d}" for i in range(100)] + [f"test-{i:03d}" for i in range(10)]
    for name in names + [f"unlabeled-{i:05d}" for i in range(10_000)]:
        (tmp_path / f"data/{name}.tar").touch()
    monkeypatch.chdir(tmp_path)
    assert load_config(whole).selections["top"].images_per_class == 16_000
    for part in (folder, teachers):
        merged = {k: {**whole.get(k, {}), **part.get(k, {})} for k in ("datasets", "models")}
        if part is folder:  # its classes are the sub-folders
            names = sorted(p.name for p in (tmp_path / "photos/train").iterdir())
            (tmp_path / "data/classes.txt").write_text("\n".join(names))
        load_config({**whole, **merged})
    student = {**whole["models"]["student"], **sweep["models"]["student"]}
    held_out = {"shards": "data/held-out.tar", "classes": "data/classes.txt"}
    (tmp_path / "data/held-out.tar").touch()
    datasets = {**whole["datasets"], "validation": held_out}
    models = {**whole["models"], "student": student}
    checked = load_config({**whole, "datasets": datasets, "models": models})
    assert checked.models["student"].finetune.sweep.base_lr == [0.00025, 0.0025]


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"(?:^|`)make ([a-z0-9]+)", readme, re.M)
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)

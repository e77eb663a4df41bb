"""Configurations that people start from."""

import json
import re
from pathlib import Path

import braceexpand
import pytest
import yaml

from small import ROOT
from snakemakes import snakemake


def test_the_papers_scale_is_laid_out_for_64_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((ROOT / "examples" / "paper.yaml").read_text())
    for pattern in (dataset["shards"] for dataset in config["datasets"].values()):
        for path in braceexpand.braceexpand(pattern):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    monkeypatch.setenv("SEMISUP_SITE", str(ROOT / "examples" / "paper-site.yaml"))
    how = ["--profile", "slurm", "--dry-run", "--printshellcmds"]
    said = snakemake(tmp_path, *how, "--configfile", str(ROOT / "examples" / "paper.yaml"))
    blocks = dict(re.findall(r"^rule (\w+):\n((?:    .*\n)+)", said, re.M))
    (own,) = re.findall(
        r"train --settings '(.*?)' --manifests .* --weights \S+/student/pretrain/", said
    )
    assert json.loads(own)["recipe"].items() >= {"images": 10**9, "global_batch_size": 1536}.items()
    for wanted in ("nodes=8", "ranks=8", "gres=gpu:a100:8", "mpi=srun"):
        assert wanted in blocks["pretrain"]
    assert re.search(r"^score_shards +500$", said, re.M)
    total = re.search(r"^total +(\d+)$", said, re.M)
    assert total
    assert int(total[1]) < 3000

"""Configurations that people start from."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import braceexpand
import yaml

from small import ROOT

SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


def test_the_papers_scale_is_laid_out_for_64_gpus(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "examples" / "paper.yaml").read_text())
    for pattern in (dataset["shards"] for dataset in config["datasets"].values()):
        for path in braceexpand.braceexpand(pattern):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    done = subprocess.run(
        [SNAKEMAKE, "--profile", "slurm", "--dry-run", "--printshellcmds", "--directory", str(tmp_path),
         "--configfile", str(ROOT / "examples" / "paper.yaml")],
        env={**os.environ, "SEMISUP_SITE": str(ROOT / "examples" / "paper-site.yaml")},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    blocks = dict(re.findall(r"^rule (\w+):\n((?:    .*\n)+)", done.stdout, re.M))
    (own,) = re.findall(
        r"train --settings '(.*?)' --manifests .* --weights \S+/student/pretrain/", done.stdout
    )
    assert json.loads(own)["recipe"].items() >= {"images": 10**9, "global_batch_size": 1536}.items()
    for wanted in ("nodes=8", "ranks=8", "gres=gpu:a100:8", "mpi=srun"):
        assert wanted in blocks["pretrain"]
    assert re.search(r"^score_shards +500$", done.stdout, re.M)
    total = re.search(r"^total +(\d+)$", done.stdout, re.M)
    assert total
    assert int(total[1]) < 3000

"""The users' own command on a real Slurm of four nodes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from clusters import SITE, environment, finish, literal_command
from fixtures import box
from slurmbox import Box

from small import ROOT

OTHER_SITE = {"cpu_partition": "gpu", "cpus_per_gpu": 3, "memory_per_gpu_node": 9_000, "memory_per_cpu_node": 9_000}  # fmt: skip


def test_the_literal_command_runs_the_whole_pipeline(box: Box, tmp_path: Path) -> None:
    finish(literal_command(box, tmp_path), tmp_path)
    log = (tmp_path / "results" / "logs" / "train" / "teacher.log").read_text()
    assert re.search(r"job \d+ on g1 g2, ranks meet at g1", log)
    assert "by 4 x cpu" in log
    logs = tmp_path / "results/models/teacher/train/logs"
    assert len(list(logs.rglob("stderr.log"))) == 4
    assert {folder.name.split("-")[1] for folder in logs.iterdir()} == {"g1", "g2"}
    assert {*(tmp_path / "before_job").read_text().split()} >= {"c1", "g1"}
    used = box.say("squeue", "-h", "-t", "all", "-o", "%P %D %b %k")
    assert re.search(r"^gpu 2 gres:gpu:2 rule_train_", used, re.M)
    assert re.search(r"^gpu 1 gres:gpu:1 rule_score_shards_", used, re.M)
    assert re.search(r"^cpu 1 N/A rule_select_", used, re.M)

    (tmp_path / "site.yaml").write_text(yaml.safe_dump(OTHER_SITE))
    assert "Nothing to be done" in dry_run(tmp_path)

    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["selections"]["top"]["min_score"] = 1e-6  # which no image of the selection is below
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    trained = training_times(tmp_path)
    again = literal_command(box, tmp_path, "--until", "finetune", nodes=1, gpus=1)
    finish(again, tmp_path)
    assert re.search(r"^pretrain +1$", (tmp_path / "snakemake.log").read_text(), re.M)
    assert training_times(tmp_path) == trained  # taken over: their inputs are what they were


def training_times(folder: Path) -> dict[str, int]:
    checkpoints = (folder / "results" / "models").rglob("checkpoints/*/*.pt")
    return {str(path): path.stat().st_mtime_ns for path in checkpoints}


def dry_run(folder: Path) -> str:
    """What would run again for a site of one node, other partitions, other workers."""
    command = ["snakemake", "--profile", "slurm", "--dry-run"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_the_doctor_finds_this_cluster_well_but_for_its_gpus(box: Box, tmp_path: Path) -> None:
    """Its GPUs are devices that do nothing: Slurm has them, PyTorch does not see them."""
    status, said = doctor(box, tmp_path, SITE | {"before_job": "true\ncd . # here"})
    assert "ok      a job on cpu ran on c1, with torch " in said
    assert "ok      a job on gpu ran on g1 g2, with torch " in said
    assert said.count("ok      files are seen both ways") == 2
    assert "ok      ranks on 2 nodes reach each other, by gloo" in said
    assert "FAILED  g1 g2: PyTorch sees no GPU, Slurm gave 0" in said
    assert said.count("FAILED") == status == 1
    assert not list(tmp_path.iterdir())


def test_the_doctor_says_what_to_change_in_the_site(box: Box, tmp_path: Path) -> None:
    wrong = {"gpu_partition": "h100"}
    assert "Set gpu_partition in site.yaml; there are: cpu, gpu." in doctor(box, tmp_path, wrong)[1]
    said = doctor(box, tmp_path, SITE | {"before_job": "modul load cuda"})[1]
    assert re.search(r"a job on 1 x cpu fails\n(.*\n)? .*modul: (command )?not found", said)
    wrong = {"gpu_partition": "gpu,cpu", "pretrain": {"nodes": 9, "gpus": 8, "hours": 96}}
    said = doctor(box, tmp_path, wrong | {"cpus_per_gpu": 100, "memory_per_gpu": 300_000})[1]
    assert "pretrain asks for 8 x gpu on a node, gpu,cpu has 2" in said
    assert "does not exist" not in said
    assert "Set pretrain.hours in site.yaml to 72; a longer training goes on" in said
    assert "pretrain asks for 9 nodes, gpu,cpu has 3" in said
    assert "asks for 100 CPUs, a node of gpu,cpu has 64" in said
    assert "Set cpus_per_gpu in site.yaml to 32." in said
    assert "asks for 300000 MB, a node of gpu,cpu has 256000" in said
    assert "Set memory_per_gpu in site.yaml to 128000." in said
    assert "Set memory_per_gpu_node in site.yaml to 256000: no job asks for more." in said
    for memory, refused in (("256000", False), ("256001", True)):
        job = ["sbatch", "-p", "gpu", "-o", "/dev/null", f"--mem={memory}", "--wrap", "true"]
        assert ("can not be satisfied" in box.run(*job).stderr) == refused


def doctor(box: Box, folder: Path, site: dict[str, Any]) -> tuple[int, str]:
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    done = subprocess.run(
        box.command(sys.executable, "-m", "semisup.questions.doctor", directory=str(folder)),
        env=environment() | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (folder / "site.yaml").unlink()
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr

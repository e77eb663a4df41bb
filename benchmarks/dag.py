"""What Snakemake itself costs at 1,000, 10,000 and 100,000 shards: `dag.py FOLDER`.

Ours, whose jobs are parts of consecutive shards, beside the usual way of writing it, a rule with a job
for each shard. The tars are empty: the only jobs run are those that index them, by a program that does
nothing but make its outputs, and those of the scheduler's test, which `touch` a file.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARDS = (1_000, 10_000, 100_000)
WINDOW = 45
"""Seconds in which the scheduler starts as many jobs as it can."""
LONGEST_START = 300
"""Seconds until its first job, the time to build the graph included."""

CONFIG = """
datasets:
  labeled: {{shards: "data/train-000.tar", classes: 1000}}
  unlabeled: {{shards: "data/{{000000..{last:06d}}}.tar"}}
  test: {{shards: "data/test-000.tar", classes: 1000}}
models:
  teacher: {{arch: resnext101_32x8d, train: {{on: labeled, recipe: paper_supervised}}}}
  student:
    arch: resnet50
    pretrain: {{on: top, recipe: paper_pretrain}}
    finetune: {{on: labeled, recipe: paper_finetune}}
selections:
  top: {{teacher: teacher, unlabeled: unlabeled, images_per_class: 16000, classes_per_image: 10}}
duplicates: {{descriptor: teacher, remove: {{closest: 5000}}}}
evaluate: {{on: [test]}}
"""

NAIVE = """
rule all:
    input: "report.html"
rule score:
    input: "data/{shard}.tar"
    output: "scores/{shard}.parquet"
    shell: "python score.py {input} {output}"
rule merge:
    input: expand("scores/{shard:06d}.parquet", shard=range(config["shards"]))
    output: "selection.parquet"
    shell: "python merge.py scores {output}"
rule report:
    input: "selection.parquet"
    output: "report.html"
    shell: "python report.py {input} {output}"
"""

MANY = """
rule all:
    input: expand("out/{i}", i=range(config["jobs"]))
rule one:
    output: "out/{i}"
    shell: "touch {output}"
"""

NO_PYTHON = """#!/bin/sh
while [ $# -gt 1 ]; do
  case "$1" in --manifest|--samples) echo > "$2" ;; esac
  shift
done
"""
"""In place of a step."""

SCHEDULERS = {
    "default (ilp)": ["--scheduler", "ilp"],
    "greedy": ["--scheduler", "greedy"],
    "ours: greedy, subsample 500": ["--scheduler", "greedy", "--scheduler-subsample", "500"],
}


def main(folder: Path) -> None:
    rows = []
    make_tars(folder / "data")
    (folder / "naive.smk").write_text(NAIVE)
    (folder / "many.smk").write_text(MANY)
    for shards in SHARDS:
        config = folder / f"{shards}.yaml"
        config.write_text(CONFIG.format(last=shards - 1))
        ours = ["--profile", "slurm", "--configfile", str(config)]
        naive = ["--snakefile", str(folder / "naive.smk"), "--config", f"shards={shards}"]
        for way, arguments in (("ours", ours), ("a job for each shard", naive)):
            done = dry_run(folder, arguments)
            rows.append({"shards": shards, "way": way, **done})
            print(rows[-1], flush=True)
        rows.append({"shards": shards, "way": "ours, indexing", **run_parts(folder, config)})
        print(rows[-1], flush=True)
    for jobs in (1_000, 10_000, 100_000):
        for name, options in SCHEDULERS.items():
            done = run_jobs(folder / f"many-{jobs}-{name.split()[0]}{len(options)}", jobs, options)
            rows.append({"jobs": jobs, "way": name, **done})
            print(rows[-1], flush=True)
    (HERE / "results" / "dag.json").write_text(json.dumps(rows, indent=1) + "\n")


def make_tars(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(max(SHARDS)):
        (folder / f"{i:06d}.tar").touch()
    for name in ("train-000.tar", "test-000.tar"):
        (folder / name).touch()


def dry_run(folder: Path, arguments: list[str]) -> dict:
    command = ["snakemake", "--dry-run", "--directory", str(folder), *arguments]
    began = time.perf_counter()
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = done.stdout.read().decode()
    _, status, usage = os.wait4(done.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(command)} fails:\n{said[-2000:]}")
    total = next(line for line in said.splitlines() if line.startswith("total"))
    return {
        "num_jobs": int(total.split()[1]),
        "seconds": seconds,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def run_parts(folder: Path, config: Path) -> dict:
    """All jobs that index, by a program that does nothing: what Snakemake takes for each."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "python").write_text(NO_PYTHON)
    (programs / "python").chmod(0o755)
    command = [
        "snakemake", "--profile", "profiles/local", "--cores", "2", "--quiet", "all", "--directory",
        str(folder), "--configfile", str(config), "--until", "index_shards",
    ]  # fmt: skip
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    began = time.perf_counter()
    with open(folder / "parts.log", "w") as log:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=True)
    made = [path.stat().st_mtime for path in (folder / "results").rglob("manifest-*.json")]
    seconds = max(made) - min(made)
    subprocess.run(["rm", "-rf", str(folder / "results"), str(folder / ".snakemake")], check=True)
    each = 1000 * seconds / (len(made) - 1)
    return {"num_jobs": len(made), "seconds": elapsed(began), "ms_per_job": each}


def run_jobs(folder: Path, jobs: int, options: list[str]) -> dict:
    """Jobs started within the window after the first, or all of them; milliseconds each.

    ``said``: the last line of a Snakemake that failed.
    """
    folder.mkdir(exist_ok=True)
    command = [
        "snakemake", "--snakefile", str(folder.parent / "many.smk"), "--config", f"jobs={jobs}",
        "--directory", str(folder), "--cores", "2", "--quiet", "all", *options,
    ]  # fmt: skip
    log = folder.with_suffix(".log")
    with open(log, "w") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output)
    out = folder / "out"
    launched = time.perf_counter()
    while not out.exists() and running.poll() is None and elapsed(launched) < LONGEST_START:
        time.sleep(0.01)
    before = elapsed(launched)
    began = time.perf_counter()
    while running.poll() is None and elapsed(began) < WINDOW:
        time.sleep(0.1)
    seconds = elapsed(began)
    failed = (running.poll() or 0) > 0
    running.kill()
    running.wait()
    done = len(list(out.iterdir())) if out.exists() else 0
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    each = 1000 * seconds / done if done else None
    said = log.read_text().strip().splitlines()[-1] if failed else ""
    return {"start": before, "done": done, "seconds": seconds, "ms_per_job": each, "said": said}


def elapsed(since: float) -> float:
    return time.perf_counter() - since


if __name__ == "__main__":
    main(Path(sys.argv[1]))

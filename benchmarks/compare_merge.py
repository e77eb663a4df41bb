"""Merge of 100 million score rows beside other engines: `compare_merge.py FOLDER`.

Every way runs in a process of its own, the ways interleaved in each round. A way whose selection is
not ours, byte for byte, ends the comparison. Medians over the rounds, lowest and highest in brackets.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import score_files

HERE = Path(__file__).parent
NUM_PARTS, NUM_IMAGES, ROUNDS = 100, 100_000, 3
RIVALS = ["duckdb_window", "duckdb_max", "polars_top_k", "polars_top_k_by"]


def main(folder: Path) -> None:
    score_files.main(folder, NUM_PARTS, NUM_IMAGES)
    layouts = {way: best_layout(folder, way) for way in [*RIVALS, "decode"]}
    print("layout that suits each best:", layouts)
    ways = [("ours", "semisup"), ("ours_1_thread", "semisup"), *layouts.items()]
    rows = []
    for k in (160, 1600, 16_000):
        for _ in range(ROUNDS):
            rows += [measure(folder / layout, way, k) for way, layout in ways]
        check_equal(row for row in rows if row["k"] == k and row["num_rows"])
        print(summary(row for row in rows if row["k"] == k), flush=True)
    score_files.join(folder, NUM_PARTS)
    for _ in range(ROUNDS):
        rows.append(measure(folder / "semisup", "ours_10_times", 16_000))
        rows.append(measure(folder / "semisup", "ours_100_times", 16_000))
        rows.append(
            measure(folder / "semisup-large", "ours_100_times_large", 16_000, NUM_PARTS // 10)
        )
    rows.append(measure(folder / layouts["duckdb_window"], "duckdb_window_10_times", 16_000))
    check_equal(row for row in rows if row["way"].endswith("_10_times"))
    check_equal(row for row in rows if "_100_times" in row["way"])
    print(summary(row for row in rows if "_times" in row["way"]))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "merge.json").write_text(json.dumps(rows, indent=1) + "\n")


def best_layout(folder: Path, way: str) -> str:
    """By one run on a tenth of the parts."""
    seconds = {
        layout: measure(folder / layout, way, 1600, NUM_PARTS // 10)["seconds"]
        for layout in score_files.LAYOUTS
    }
    return min(seconds, key=seconds.__getitem__)


def measure(folder: Path, way: str, k: int, num_parts: int = NUM_PARTS) -> dict:
    paths = [str(folder / f"part-{part:05d}.parquet") for part in range(num_parts)]
    command = [sys.executable, str(HERE / "merge.py"), way, str(k), *paths]
    environment = os.environ | {"POLARS_MAX_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def check_equal(rows: Iterable[dict]) -> None:
    rows = list(rows)
    if len({row["digest"] for row in rows}) != 1:
        sys.exit(f"the selections differ: {[(row['way'], row['digest']) for row in rows]}")


def summary(rows: Iterable[dict]) -> str:
    frame = pd.DataFrame(rows)
    found = frame.groupby(["k", "way"], sort=False).agg(
        seconds=("seconds", "median"),
        low=("seconds", "min"),
        high=("seconds", "max"),
        cpu_seconds=("cpu_seconds", "median"),
        peak_mb=("peak_mb", "median"),
        imports_mb=("imports_mb", "median"),
    )
    ours = found.seconds[found.index.get_level_values("way").str.startswith("ours")].iloc[0]
    return found.assign(times_ours=found.seconds / ours).round(2).to_string()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

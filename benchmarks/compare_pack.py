"""Packing 37,500 of 100,000 images beside webdataset and cp: `compare_pack.py FOLDER`.

Cold: the page cache is dropped before each run (needs root). Every way must hold the same pairs of
image and class as ours. Medians over the rounds.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pack
import pack_files
import pandas as pd
import webdataset as wds

HERE = Path(__file__).parent
ROUNDS = 3


def main(folder: Path) -> None:
    pack_files.main(folder)
    ways = [way.__name__ for way in pack.WAYS]
    rows = []
    for cold in (False, True):
        for _ in range(ROUNDS):
            rows += [
                measure(folder, way, cold) | {"cache": "cold" if cold else "warm"} for way in ways
            ]
    ours = content(folder / "output" / "ours")
    for way in ways:
        if not way.startswith("cp") and content(folder / "output" / way) != ours:
            sys.exit(f"{way} packed something else")
    print(summary(rows))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "pack.json").write_text(json.dumps(rows, indent=1) + "\n")


def measure(folder: Path, way: str, cold: bool) -> dict:
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        for path in (folder / "tars").iterdir():
            path.read_bytes()
    command = [
        sys.executable,
        str(HERE / "pack.py"),
        way,
        str(folder),
        str(folder / "output" / way),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def content(output: Path) -> Counter:
    paths = [str(path) for path in sorted(output.rglob("*.tar"))]
    samples = wds.WebDataset(paths, shardshuffle=False)
    return Counter((hashlib.sha256(s["jpg"]).digest(), int(s["cls"])) for s in samples)


def summary(rows: list[dict]) -> str:
    frame = pd.DataFrame(rows).groupby(["cache", "way"], sort=False).median()
    ours = frame.seconds.xs("ours", level="way")
    frame["times_ours"] = frame.seconds / frame.index.get_level_values("cache").map(ours)
    return frame.round(2).to_string()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

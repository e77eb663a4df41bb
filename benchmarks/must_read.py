"""How far the merge is from merely decoding what it must read: `must_read.py FOLDER`.

FOLDER is that of compare_merge.py. Of every tier a merge reads, its scores are decoded once and, where
rows are gathered, the rest once; no selection. Two threads each, medians of five.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from semisup import memory
from semisup.merging import merge
from semisup.scores import ScoreTable
from semisup.selection import Cut

HERE = Path(__file__).resolve().parent
NUM_CLASSES, ROUNDS = 1000, 5
Read = tuple[Path, tuple[int, ...], tuple[str, ...]]


class Recorded(ScoreTable):
    """A part that notes what is read of it."""

    reads: set[Read] = set()

    def read_columns(self, row_groups: list[int], columns: list[str]) -> pa.Table:
        self.reads.add((self.path, tuple(row_groups), tuple(columns)))
        return super().read_columns(row_groups, columns)


def main(folder: Path) -> list[dict[str, float]]:
    memory.keep_freed()
    paths = sorted(folder.glob("*.parquet"))
    found = []
    for k in (160, 1600, 16_000):
        Recorded.reads = set()
        merge(paths, Cut(np.full(NUM_CLASSES, k)), open_part=Recorded)
        seconds = {
            "merge": measure(lambda k=k: merge(paths, Cut(np.full(NUM_CLASSES, k)))),
            "decode": measure(lambda: decode(Recorded.reads)),
        }
        found.append({"k": k, **seconds})
        print(f"K = {k:6,}: merge {seconds['merge']:.2f} s, decoding {seconds['decode']:.2f} s")
    return found


def decode(reads: Iterable[Read]) -> None:
    tables = {path: ScoreTable(path) for path, _, _ in reads}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda read: tables[read[0]].read_columns(*map(list, read[1:])), reads))


def measure(way: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    (HERE / "results" / "must_read.json").write_text(json.dumps(found, indent=1) + "\n")

"""The merge on scores made to hurt it: `adversaries.py FOLDER`.

10 million rows in 10 parts, 1,000 classes, K = 1,600. Each selection must be that of one sort of all
rows. Seconds are medians of three merges, in this process, 2 threads.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import score_files

from semisup.merging import merge
from semisup.scores import write_scores
from semisup.selection import Cut, Ranked

NUM_PARTS, NUM_IMAGES, NUM_CLASSES, K, ROUNDS = 10, 100_000, 1000, 1600, 3
HERE = Path(__file__).parent


def as_it_is(part: int, rows: Ranked) -> Ranked:
    return rows


def quantised(part: int, rows: Ranked) -> Ranked:
    """Eight scores in all."""
    return rows._replace(log_odds=np.clip(np.round(rows.log_odds / 4) * 4, -16, 12))


def saturated(part: int, rows: Ranked) -> Ranked:
    """All equal: a softmax of 1.0 throughout."""
    return rows._replace(log_odds=np.full_like(rows.log_odds, 20))


def sorted_by_class(part: int, rows: Ranked) -> Ranked:
    """Each part has a tenth of the classes to itself."""
    own = NUM_CLASSES // NUM_PARTS
    return rows._replace(class_id=(rows.class_id % own + part * own).astype(np.int16))


def best_last(part: int, rows: Ranked) -> Ranked:
    """Each part is better than all before it."""
    return rows._replace(log_odds=rows.log_odds + np.float32(100 * part))


def one_class_has_90_percent(part: int, rows: Ranked) -> Ranked:
    mine = np.random.default_rng(part).random(len(rows.class_id)) < 0.9
    return rows._replace(class_id=np.where(mine, 7, rows.class_id).astype(np.int16))


def most_classes_empty(part: int, rows: Ranked) -> Ranked:
    return rows._replace(class_id=rows.class_id % np.int16(3) * np.int16(400))


ADVERSARIES: list[Callable[[int, Ranked], Ranked]] = [
    as_it_is,
    quantised,
    saturated,
    sorted_by_class,
    best_last,
    one_class_has_90_percent,
    most_classes_empty,
]


def main(folder: Path) -> None:
    found = []
    for adversary in ADVERSARIES:
        parts = [adversary(i, score_files.make_part(i, NUM_IMAGES)) for i in range(NUM_PARTS)]
        paths = [folder / adversary.__name__ / f"part-{i:05d}.parquet" for i in range(NUM_PARTS)]
        for path, part in zip(paths, parts, strict=True):
            write_scores(path, part)
        for k in (K, 10**9):  # the second: more than there are
            seconds, chosen = measure(paths, k)
            check(chosen, parts, k)
            found.append({"adversary": adversary.__name__, "k": k, "seconds": seconds})
            print(f"{adversary.__name__:26} K = {k:<13,} {seconds:6.2f} s")
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "adversaries.json").write_text(json.dumps(found, indent=1) + "\n")


def measure(paths: list[Path], k: int) -> tuple[float, Ranked]:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        chosen = merge(paths, Cut(np.full(NUM_CLASSES, k)))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), chosen


def check(chosen: Ranked, parts: list[Ranked], k: int) -> None:
    rows = Ranked(*map(np.concatenate, zip(*parts, strict=True)))
    rows = rows.take(np.lexsort((rows.identity, -rows.log_odds, rows.class_id)))
    starts = np.searchsorted(rows.class_id, np.arange(NUM_CLASSES))
    best = rows.take(np.flatnonzero(np.arange(len(rows.class_id)) - starts[rows.class_id] < k))
    for column, expected in zip(chosen, best, strict=True):
        if not np.array_equal(column, expected):
            sys.exit("the selection is not that of a sort")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The search of near-duplicates on real features beside Faiss: `duplicates_kept.py FOLDER WEIGHTS`.

Features are those of a descriptor of ours, WEIGHTS: the 10,000 test images of CIFAR-10 are the index
and its 50,000 training images U. There a range of 0.6 holds a large part of all pairs, of which a part
of U keeps the nearest of each image and the closest `max_pairs`. Faiss gets the same to do, and
computes exact distances of no more pairs than it needs to; its range search alone is measured beside
it. Processes, threads and times as in `duplicates.py`.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from duplicates import BLOCK, EXACT, HERE, ROUNDS, SLACK, THREADS, check_equal, peak_mb, report, run

MEASURED = [(0.1, 100_000), (0.2, 100_000), (0.3, 100_000), (0.6, 100_000), (0.6, 1_000_000)]
"""Distance and `max_pairs`: the defaults are 0.6 and 100,000."""


def main(folder: Path, weights: Path) -> None:
    make_features(folder, weights)
    rows = []
    for distance, max_pairs in MEASURED:
        for _ in range(ROUNDS):
            rows += [run(folder, way, distance, max_pairs, __file__) for way in WAYS]
        own = [row for row in rows if (row["distance"], row["count"]) == (distance, max_pairs)]
        check_equal([row for row in own if row["digest"]])
        report(own, distance)
    (HERE / "results" / "duplicates_kept.json").write_text(json.dumps(rows, indent=1) + "\n")


def make_features(folder: Path, weights: Path) -> None:
    import duplicates_real

    from semisup import images
    from semisup.steps import make_cifar10

    folder.mkdir(parents=True, exist_ok=True)
    source = HERE.parent / make_cifar10.SOURCE
    for name, tar in (("evaluation", make_cifar10.TEST), ("unlabeled", make_cifar10.TRAIN)):
        if not (folder / f"{name}.npy").exists():
            samples = make_cifar10.read_tar(source / tar)
            pixels = np.stack([images.decode(sample.members["jpg"]) for sample in samples])
            np.save(folder / f"{name}.npy", duplicates_real.describe(weights, pixels))


def one(folder: Path, way: str, distance: float, max_pairs: int) -> dict:
    """The nearest of each image of U, and the closest pairs, as find_duplicates looks for them."""
    import faiss
    import torch

    from semisup import memory

    memory.keep_freed()
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    evaluation = np.load(folder / "evaluation.npy")
    unlabeled = np.load(folder / "unlabeled.npy")
    began, wall = time.process_time(), time.perf_counter()
    find = WAYS[way](evaluation, distance)
    built = time.process_time()
    columns = find(unlabeled, max_pairs)
    done = time.process_time()
    digest = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
    return {
        "way": way, "distance": distance, "count": max_pairs, "cpu_seconds": done - built,
        "seconds": time.perf_counter() - wall, "build_cpu_seconds": built - began,
        "num_pairs": len(columns[-1]) if columns else 0, "peak_mb": peak_mb(),
        "digest": digest if way in EXACT else "",
    }  # fmt: skip


def ours(evaluation, distance):
    from semisup.features import Features
    from semisup.neighbors import Neighbors
    from semisup.search import sample_size, search

    neighbors = Neighbors(evaluation, distance)

    def find(unlabeled, max_pairs):
        blocks = in_blocks(unlabeled)
        some = unlabeled[:: len(unlabeled) // sample_size(len(unlabeled), max_pairs)]
        sample = [Features(np.arange(len(some)), some)]

        def read():
            return (Features(np.arange(first, first + len(own)), own) for first, own in blocks)

        found = search(read, sample, len(unlabeled), neighbors, max_pairs)
        return [found.identity, found.match, found.distance, *found.closest.sorted()]

    return find


def in_blocks(unlabeled):
    return [(first, unlabeled[first : first + BLOCK]) for first in range(0, len(unlabeled), BLOCK)]


def faiss_flat(evaluation, distance):
    """Exact distances of what may be the nearest, and of what may be among the closest, alone."""
    import faiss

    from semisup.pairs import Closest, Nearest

    index = faiss.IndexFlatL2(evaluation.shape[1])
    theirs = evaluation.astype(np.float32)
    index.add(theirs)

    def near(queries, closest):
        own = queries.astype(np.float32)
        limits, squares, match = index.range_search(own, distance**2 + SLACK)
        counts = np.diff(limits.astype(np.int64))
        if not len(squares):
            return
        starts = limits[:-1][counts > 0].astype(np.int64)
        cut = np.repeat(np.minimum.reduceat(squares, starts), counts[counts > 0]) + 2 * SLACK
        last = closest.cut**2 + SLACK
        if len(squares) > closest.limit:
            nth = np.partition(squares, closest.limit - 1)[closest.limit - 1]
            last = min(last, nth + 2 * SLACK)
        rows = np.flatnonzero((squares <= cut) | (squares <= last))
        query, match = np.repeat(np.arange(len(own)), counts)[rows], match[rows]
        inner = np.empty(len(rows))
        for first in range(0, len(rows), 1024):
            here = slice(first, first + 1024)  # exact, as in ours: small enough for the cache
            product = own.take(query[here], 0) * theirs.take(match[here], 0)
            product.sum(1, dtype=np.float64, out=inner[here])
        lengths = [(x.astype(np.float64) ** 2).sum(1) for x in (own, theirs)]
        apart = np.sqrt(lengths[0][query] + lengths[1][match] - 2 * inner).astype(np.float32)
        close = apart <= np.float32(distance)
        yield query[close], match[close], apart[close]

    def find(unlabeled, max_pairs):
        closest, nearest = Closest(max_pairs), Nearest(len(unlabeled))
        for first, own in in_blocks(unlabeled):
            for query, match, apart in near(own, closest):
                nearest.add(first + query, match, apart)
                closest.add(apart, first + query, match)
        rows = np.flatnonzero(nearest.match >= 0)
        return [rows, nearest.match[rows], nearest.distance[rows], *closest.sorted()]

    return find


def faiss_range_search(evaluation, distance):
    import faiss

    index = faiss.IndexFlatL2(evaluation.shape[1])
    index.add(evaluation.astype(np.float32))

    def find(unlabeled, max_pairs):
        for _, own in in_blocks(unlabeled):
            index.range_search(own.astype(np.float32), distance**2)
        return []

    return find


WAYS = {
    "ours": ours,
    "faiss_flat": faiss_flat,
    "faiss_range_search": faiss_range_search,
}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        made = one(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
        print(json.dumps(made))

"""The search of near-duplicates beside Faiss: `duplicates.py FOLDER`; on real features: `duplicates_kept.py`.

Every way runs in a process of its own on one thread, ways interleaved in each round, imports and the
making of data not counted; processor time is compared, as others may use the machine. Features are
made up: 512 dimensions, a spectrum that falls as that of a network's, 1,000 clusters; every
hundredth image of U is a near-duplicate of an evaluation image, at one of four distances. A way that
is exact and finds other pairs than Faiss ends the comparison. Beside them the floor of every search
that looks at each pair: their products alone, in bfloat16, looked at by nobody. What is not exact, the growth with U
and the extraction run once.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow"))

THREADS, ROUNDS, DIMENSIONS, BLOCK = 1, 3, 512, 16_384
NUM_EVALUATION, NUM_UNLABELED = 10_000, 100_000
PLANTED = (0.02, 0.1, 0.2, 0.3)
EXACT = ["ours", "faiss_flat"]
SLACK = 1e-5
"""More than a squared distance of Faiss is off."""

APPROXIMATE = ["ivf_of_evaluation_1", "ivf_of_evaluation_8", "ivfpq_of_unlabeled"]


def main(folder: Path) -> None:
    make_features(folder, max(NUM_UNLABELED, 1_000_000))
    rows = []
    for distance in (0.1, 0.3, 0.6):
        for _ in range(ROUNDS):
            rows += [run(folder, way, distance, NUM_UNLABELED) for way in [*EXACT, "products"]]
        check_equal([row for row in rows if row["distance"] == distance and row["way"] in EXACT])
        report(rows, distance)
    rows.append(run(folder, "extract_resnet18", 0.3, 128))
    rows += [run(folder, "ours_from_store", 0.3, n) for n in (10_000, 100_000, 1_000_000)]
    rows += [run(folder, way, 0.3, NUM_UNLABELED) for way in APPROXIMATE]
    report(rows, 0.3)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "duplicates.json").write_text(json.dumps(rows, indent=1) + "\n")


def make_features(folder: Path, num_unlabeled: int) -> None:
    """Writes both sets, and U as the pipeline stores it, unless they are there."""
    from semisup import schemas, tables
    from semisup.features import pack

    stored = folder / "unlabeled.parquet"
    if stored.exists() and tables.count_rows(stored) == num_unlabeled:
        return
    folder.mkdir(parents=True, exist_ok=True)
    scale = np.exp(-np.arange(DIMENSIONS) / 60)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    centres = rng.normal(size=(1000, DIMENSIONS)) * scale

    def draw(count: int) -> np.ndarray:
        x = centres[rng.integers(1000, size=count)]
        x = (x + 0.8 * rng.normal(size=(count, DIMENSIONS)) * scale) @ turn
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    evaluation = draw(NUM_EVALUATION)
    np.save(folder / "evaluation.npy", evaluation.astype(np.float16))
    unlabeled = np.lib.format.open_memmap(
        folder / "unlabeled.npy", "w+", np.float16, (num_unlabeled, DIMENSIONS)
    )
    for start in range(0, num_unlabeled, 10_000):
        x = draw(10_000)
        near = np.arange(0, 10_000, 100)
        step = rng.normal(size=(len(near), DIMENSIONS))
        step *= np.resize(PLANTED, len(near))[:, None] / np.linalg.norm(step, axis=1, keepdims=True)
        x[near] = evaluation[rng.integers(NUM_EVALUATION, size=len(near))] + step
        x[near] /= np.linalg.norm(x[near], axis=1, keepdims=True)
        unlabeled[start : start + 10_000] = x

    def blocks():
        for start in range(0, num_unlabeled, BLOCK):
            own = np.arange(start, min(start + BLOCK, num_unlabeled))
            shard_ids, sample_indices = tables.split_identity(own)
            yield {
                "shard_id": shard_ids, "sample_index": sample_indices,
                "feature": pack(np.asarray(unlabeled[own])),
            }  # fmt: skip

    tables.write_blocks(folder / "unlabeled.parquet", blocks(), schemas.FEATURES)


FAISS = {"OPENBLAS_CORETYPE": "SKYLAKEX"} if "avx512f" in Path("/proc/cpuinfo").read_text() else {}
"""Faiss's OpenBLAS chooses kernels for newer processors by itself that take up to five times as long."""


def run(folder: Path, way: str, distance: float, count: int, script: str | Path = __file__) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)} | FAISS
    command = [sys.executable, str(script), str(folder), way, str(distance), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def check_equal(rows: list[dict]) -> None:
    if len({row["digest"] for row in rows}) != 1:
        sys.exit(f"the pairs differ: {[(row['way'], row['num_pairs']) for row in rows]}")


def report(rows: list[dict], distance: float) -> None:
    import pandas as pd

    frame = pd.DataFrame([row for row in rows if row["distance"] == distance])
    found = frame.groupby(["way", "count"], sort=False).agg(
        cpu=("cpu_seconds", "median"), low=("cpu_seconds", "min"), high=("cpu_seconds", "max"),
        wall=("seconds", "median"), build=("build_cpu_seconds", "median"), pairs=("num_pairs", "max"), peak_mb=("peak_mb", "median"),
    )  # fmt: skip
    found["images_per_second"] = found.index.get_level_values("count") / found.cpu
    print(f"\ndistance {distance}\n{found.round(3).to_string()}", flush=True)


# --- one way, in a process of its own ------------------------------------------------------


def one(folder: Path, way: str, distance: float, count: int) -> dict:
    import faiss
    import torch

    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    if way == "extract_resnet18":
        return extract(count)
    evaluation = np.load(folder / "evaluation.npy")
    unlabeled = None
    if way != "ours_from_store":
        unlabeled = np.load(folder / "unlabeled.npy", mmap_mode="r")[:count].copy()
    began = time.process_time()
    search = WAYS[way](evaluation, unlabeled, distance, folder)
    built, wall = time.process_time(), time.perf_counter()
    query, match = search(count)
    done, wall = time.process_time(), time.perf_counter() - wall
    order = np.lexsort((match, query))
    pairs = np.stack([query[order], match[order]]).astype(np.int64)
    return {
        "way": way, "distance": distance, "count": count, "cpu_seconds": done - built,
        "seconds": wall, "build_cpu_seconds": built - began, "num_pairs": len(query),
        "digest": hashlib.sha256(pairs.tobytes()).hexdigest(), "peak_mb": peak_mb(),
    }  # fmt: skip


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def ours(evaluation, unlabeled, distance, folder):
    from semisup import memory
    from semisup.neighbors import Neighbors

    memory.keep_freed()  # as the step does
    neighbors = Neighbors(evaluation, distance)

    def search(count):
        starts = range(0, count, BLOCK)
        return joined(
            (start + p.query, p.match)
            for start in starts
            for p in neighbors.within(unlabeled[start : start + BLOCK])
        )

    return search


def ours_from_store(evaluation, unlabeled, distance, folder):
    from semisup import memory
    from semisup.features import read_features
    from semisup.neighbors import Neighbors

    memory.keep_freed()
    neighbors = Neighbors(evaluation, distance)

    def search(count):
        found, start = [], 0
        for block in read_features(folder / "unlabeled.parquet"):
            vectors = block.vectors[: count - start]
            found += [(start + p.query, p.match) for p in neighbors.within(vectors)]
            start += len(vectors)
            if start >= count:
                break
        return joined(found)

    return search


def faiss_flat(evaluation, unlabeled, distance, folder):
    """The range is a little wider, then the distances that decide are computed exactly."""
    import faiss

    index = faiss.IndexFlatL2(DIMENSIONS)
    index.add(evaluation.astype(np.float32))
    queries = unlabeled.astype(np.float32)

    def search(count):
        limits, _, match = index.range_search(queries, distance**2 + SLACK)
        query = np.repeat(np.arange(count), np.diff(limits).astype(np.int64))
        apart = unlabeled[query].astype(np.float64) - evaluation[match]
        close = np.sqrt((apart**2).sum(1)).astype(np.float32) <= np.float32(distance)
        return query[close], match[close]

    return search


def products(evaluation, unlabeled, distance, folder):
    import torch

    tile = 2048
    index = torch.from_numpy(evaluation.astype(np.float32)).bfloat16().split(tile)
    queries = torch.from_numpy(unlabeled.astype(np.float32)).bfloat16().split(tile)

    def search(count):
        for each in queries:
            for matches in index:
                each @ matches.T
        return np.empty(0, np.int64), np.empty(0, np.int64)

    return search


def ivf_of_evaluation(probes):
    def build(evaluation, unlabeled, distance, folder):
        import faiss

        index = faiss.index_factory(DIMENSIONS, "IVF256,Flat")
        index.train(evaluation.astype(np.float32))
        index.add(evaluation.astype(np.float32))
        index.nprobe = probes
        queries = unlabeled.astype(np.float32)

        def search(count):
            limits, _, match = index.range_search(queries, distance**2)
            return np.repeat(np.arange(count), np.diff(limits).astype(np.int64)), match

        return search

    return build


def ivfpq_of_unlabeled(evaluation, unlabeled, distance, folder):
    """The usual way around: U is the index, compressed; building it grows with U."""
    import faiss

    index = faiss.index_factory(DIMENSIONS, "IVF1024,PQ64")
    index.train(unlabeled[: 256 * 256].astype(np.float32))
    for start in range(0, len(unlabeled), BLOCK):
        index.add(unlabeled[start : start + BLOCK].astype(np.float32))
    index.nprobe = 8
    queries = evaluation.astype(np.float32)

    def search(count):
        match = index.search(queries, 10)[1].ravel()  # compressed distances have no threshold
        query = np.repeat(np.arange(len(queries)), 10)
        query, match = query[match >= 0], match[match >= 0]
        apart = unlabeled[match].astype(np.float64) - evaluation[query]
        close = np.sqrt((apart**2).sum(1)).astype(np.float32) <= np.float32(distance)
        return match[close], query[close]

    return search


WAYS = {
    "ours": ours,
    "ours_from_store": ours_from_store,
    "faiss_flat": faiss_flat,
    "products": products,
    "ivf_of_evaluation_1": ivf_of_evaluation(1),
    "ivf_of_evaluation_8": ivf_of_evaluation(8),
    "ivfpq_of_unlabeled": ivfpq_of_unlabeled,
}


def joined(found) -> tuple[np.ndarray, np.ndarray]:
    rows = [(np.empty(0, np.int64), np.empty(0, np.int64)), *found]
    query, match = (np.concatenate(column) for column in zip(*rows, strict=True))
    return query, match


def extract(count: int) -> dict:
    """Decoding of photographs of 0.2 megapixels and the forward pass of a ResNet-18."""
    import io

    import torch
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from semisup import fingerprints, loader, memory, models, transforms
    from semisup.settings import Preprocessing

    memory.keep_freed()
    imagenet = Preprocessing(image_size=224, resize=256)
    photographs = [Image.fromarray(p) for p in load_sample_images().images]
    contents = []
    for i in range(count):
        crop = photographs[i % 2].crop((i % 64, i % 32, 512 + i % 64, 400 + i % 16))
        crop.save(buffer := io.BytesIO(), "JPEG", quality=90)
        contents.append(buffer.getvalue())
    torch.manual_seed(0)
    model = models.build("resnet18", 1000)
    names = [str(i) for i in range(1000)]
    weights = models.Weights("resnet18", imagenet, names, model.state_dict())
    observe = models.observer(weights, "float32", THREADS)
    fit = transforms.evaluation_transform(imagenet)
    observe(torch.zeros(64, 3, 224, 224, dtype=torch.uint8))  # warm
    began, wall = time.process_time(), time.perf_counter()
    for start in range(0, count, 64):
        pixels = [loader.decode(content) for content in contents[start : start + 64]]
        [fingerprints.fingerprint(each) for each in pixels]
        observe(torch.stack([fit(each) for each in pixels]))
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    return {
        "way": "extract_resnet18", "distance": 0.3, "count": count, "cpu_seconds": seconds,
        "seconds": wall, "build_cpu_seconds": 0.0, "num_pairs": 0, "digest": "", "peak_mb": peak_mb(),
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        made = one(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
        print(json.dumps(made))

"""One way of finding the best K images of each class, in a process of its own: `merge.py WAY K PATHS`.

Prints one line of JSON: seconds of the merge (imports excluded), CPU seconds, peak memory and a
digest of the result (class, log-odds, image, in the order of the selection).
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

NUM_CLASSES, NUM_SHARDS = 1000, 100
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def ours(paths: list[str], k: int, threads: int = 2, again: int = 1) -> Columns:
    from semisup import memory
    from semisup.merging import merge
    from semisup.scores import Rows, ScoreTable
    from semisup.selection import Cut

    class Again(ScoreTable):
        """A part read once more, as other images: those of shards that come after all others."""

        def __init__(self, path: Path) -> None:
            super().__init__(path.parent.parent / path.name)
            self.offset = np.int64(int(path.parent.name) * NUM_SHARDS) << 32

        def read(self, tier: int, classes: np.ndarray | None = None) -> Rows:
            rows = super().read(tier, classes)
            return rows._replace(identity=lambda at: rows.identity(at) + self.offset)

    memory.keep_freed()  # as the step does
    parts = [Path(path).parent / str(i) / Path(path).name for i in range(again) for path in paths]
    cut = Cut(np.full(NUM_CLASSES, k))
    chosen = merge(parts, cut, threads=threads, open_part=Again)
    return chosen.class_id, chosen.log_odds, chosen.identity


def ours_1_thread(paths: list[str], k: int) -> Columns:
    return ours(paths, k, threads=1)


def ours_10_times(paths: list[str], k: int) -> Columns:
    return ours(paths, k, again=10)


def ours_100_times(paths: list[str], k: int) -> Columns:
    return ours(paths, k, again=100)


def ours_100_times_large(paths: list[str], k: int) -> Columns:
    """Parts of a million images, as a run on a billion has them."""
    return ours(paths, k, again=100)


def duckdb_window_10_times(paths: list[str], k: int) -> Columns:
    many = " UNION ALL ".join(
        f"SELECT class_id, log_odds, image + {i * NUM_SHARDS} * 4294967296 AS image "
        f"FROM read_parquet({paths})"
        for i in range(10)
    )
    return _duckdb(WINDOW.format(rows=f"({many})", k=k))


def decode(paths: list[str], k: int) -> Columns:
    """The floor of whoever reads everything: decode class, score and image; no selection."""
    import pyarrow.parquet as pq

    for path in paths:
        pq.ParquetFile(path).read(["class_id", "log_odds", "image"], use_threads=True)
    return (np.empty(0),) * 3


WINDOW = """SELECT class_id, log_odds, image FROM {rows}
    QUALIFY row_number() OVER (PARTITION BY class_id ORDER BY log_odds DESC, image) <= {k}
    ORDER BY class_id, log_odds DESC, image"""


def duckdb_window(paths: list[str], k: int) -> Columns:
    return _duckdb(WINDOW.format(rows=f"read_parquet({paths})", k=k))


def duckdb_max(paths: list[str], k: int) -> Columns:
    return _duckdb(
        f"""SELECT class_id, row.s AS log_odds, -row.i AS image FROM (
            SELECT class_id, unnest(max({{'s': log_odds, 'i': -image}}, {k})) AS row
            FROM read_parquet({paths}) GROUP BY class_id)
        ORDER BY class_id, log_odds DESC, image"""
    )


def _duckdb(query: str) -> Columns:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET threads TO 2")
        found = connection.sql(query).fetchnumpy()
    return found["class_id"], found["log_odds"], found["image"]


def polars_top_k(paths: list[str], k: int) -> Columns:
    import polars as pl

    best = pl.struct(pl.col("log_odds"), -pl.col("image").alias("i")).top_k(k).alias("best")
    found = (
        pl.scan_parquet(paths)
        .group_by("class_id")
        .agg(best)
        .explode("best")
        .unnest("best")
        .with_columns(image=-pl.col("i"))
        .sort("class_id", "log_odds", "image", descending=[False, True, False])
        .collect(engine="streaming")
    )
    return tuple(found[name].to_numpy() for name in ("class_id", "log_odds", "image"))


def polars_top_k_by(paths: list[str], k: int) -> Columns:
    import polars as pl

    best = pl.col("log_odds", "image").top_k_by(["log_odds", "image"], k, reverse=[False, True])
    found = (
        pl.scan_parquet(paths)
        .group_by("class_id")
        .agg(best)
        .explode("log_odds", "image")
        .sort("class_id", "log_odds", "image", descending=[False, True, False])
        .collect(engine="streaming")
    )
    return tuple(found[name].to_numpy() for name in ("class_id", "log_odds", "image"))


WAYS: list[Callable[[list[str], int], Columns]] = [
    ours,
    ours_1_thread,
    ours_10_times,
    ours_100_times,
    ours_100_times_large,
    decode,
    duckdb_window,
    duckdb_window_10_times,
    duckdb_max,
    polars_top_k,
    polars_top_k_by,
]


def warm_up(way: str) -> None:
    """Import what is imported late, so that it is not measured."""
    if way.startswith("duckdb"):
        import duckdb  # noqa: F401
    elif way.startswith("polars"):
        import polars  # noqa: F401
    else:
        import pandas  # noqa: F401  # pyarrow does when it hands over numpy arrays
        import pyarrow.parquet  # noqa: F401

        import semisup.scores  # noqa: F401


def peak_mb() -> float:
    """Of this process; what getrusage says is at least that of the process which started it."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def main(way: str, k: int, paths: list[str]) -> None:
    warm_up(way)
    imports_mb = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    columns = {each.__name__: each for each in WAYS}[way](paths, k)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    most_mb = peak_mb()
    digest = hashlib.sha256()
    for column, kind in zip(columns, (np.int16, np.float32, np.int64), strict=True):
        digest.update(np.ascontiguousarray(column.astype(kind)))
    print(
        json.dumps(
            {
                "way": way,
                "k": k,
                "seconds": wall,
                "cpu_seconds": cpu,
                "peak_mb": most_mb,
                "imports_mb": imports_mb,
                "num_rows": len(columns[0]),
                "digest": digest.hexdigest()[:16],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])

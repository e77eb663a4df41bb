"""Bytes on disk and decoding of the score store beside the fastest Parquet layout: `store.py FOLDER`.

One part of a million images, P = 10. Beside it the wide layout that decodes fastest of all we know:
a row per image, ten columns of class ids (dictionary) and ten of scores (plain), uncompressed.
Decoding is class ids, scores and identity of every row, one thread, CPU seconds, in interleaved rounds.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import score_files

from semisup import schemas, scores, tables
from semisup.selection import Ranked

NUM_IMAGES, P, ROUNDS = 1_000_000, 10, 15
HERE = Path(__file__).parent
IDENTITY = ["shard_id", "sample_index"]


def main(folder: Path) -> None:
    # A shard holds 10,000 images, a part 100 shards.
    folder.mkdir(parents=True, exist_ok=True)
    image = np.arange(NUM_IMAGES)
    rows = score_files.make_part(0, NUM_IMAGES)
    identity = np.repeat((image // 10_000 << 32) | image % 10_000, P)
    ours, wide = folder / "part-00000.parquet", folder / "wide.parquet"
    scores.write_scores(ours, rows._replace(identity=identity))
    write_images(folder / "images-00000.parquet", image)
    write_wide(wide, rows)
    columns = ["class_id", "log_odds", *IDENTITY]
    ways = {
        "ours, what the merge reads": lambda: read(ours, columns),
        "ours, all columns": lambda: read(ours, schemas.SCORES.names),
        "ours, checksums verified": lambda: read(ours, columns, True),
        "wide": lambda: read(wide, None),
    }
    rounds = [{name: measure(way) for name, way in ways.items()} for _ in range(ROUNDS)]
    seconds = {name: sorted(each[name] for each in rounds) for name in ways}
    sizes = {
        path.name: path.stat().st_size / NUM_IMAGES for path in sorted(folder.glob("*.parquet"))
    }
    floor = seconds["wide"][ROUNDS // 2]
    for name, values in seconds.items():
        median = values[ROUNDS // 2]
        spread = f"({values[0]:.3f} to {values[-1]:.3f})"
        print(f"{name:28} {median:6.3f} s {spread}   {median / floor:5.2f} x")
    for name, value in sizes.items():
        print(f"{name:28} {value:6.1f} bytes an image")
    (HERE / "results").mkdir(exist_ok=True)
    found = {"seconds": seconds, "bytes_per_image": sizes}
    (HERE / "results" / "store.json").write_text(json.dumps(found, indent=1) + "\n")


def write_images(path: Path, image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "shard_id": (image // 10_000).astype(np.int32),
        "sample_index": (image % 10_000).astype(np.int32),
        "logsumexp": np.round(rng.normal(14, 2, len(image)) * 4096) / 4096,
        "status": ["ok"] * len(image),
        "reason": [""] * len(image),
    }
    tables.write_table(path, columns, schemas.IMAGES)


def write_wide(path: Path, rows: Ranked) -> None:
    class_id, log_odds = (column.reshape(-1, P) for column in (rows.class_id, rows.log_odds))
    columns = {"image": np.arange(NUM_IMAGES, dtype=np.int32)}
    columns |= {f"c{i}": class_id[:, i] for i in range(P)}
    columns |= {f"s{i}": log_odds[:, i] for i in range(P)}
    pq.write_table(
        pa.table(columns),
        path,
        compression="none",
        use_dictionary=[f"c{i}" for i in range(P)],
        column_encoding={"image": "DELTA_BINARY_PACKED"},
    )


def read(path: Path, columns: list[str] | None, verify: bool = False) -> None:
    pq.ParquetFile(path, page_checksum_verification=verify).read(columns, use_threads=False)


def measure(way: Callable[[], None]) -> float:
    start = time.process_time()
    way()
    return time.process_time() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What files hold, as golden.json keeps it: digests, and numbers where a network made them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from semisup.features import read_all


def digest(*paths: str) -> str:
    """Of what the files hold: rows of tables, bytes of others; folders with all below."""
    whole = hashlib.sha256()
    for path in map(Path, paths):
        below = sorted(path.rglob("*.*")) if path.is_dir() else [path]
        for file in below:
            whole.update(f"\0{file}\0".encode())
            if file.suffix == ".parquet":
                whole.update(repr(pq.read_table(file).to_pylist()).encode())
            else:
                whole.update(file.read_bytes())
    return whole.hexdigest()


def summary_digest(path: str, of_file: str) -> str:
    """Without the digest of a table's file, in which the library writes its own version."""
    summary = json.loads(Path(path).read_text())
    del summary[of_file]
    return hashlib.sha256(json.dumps(summary).encode()).hexdigest()


def vectors(path: str) -> list[float]:
    return [float(x) for x in read_all([Path(path)]).vectors.ravel()]


def numbers(path: str, *columns: str) -> list[float]:
    table = pq.read_table(path, columns=list(columns)).to_pydict()
    return [float(x) for name in columns for x in np.array(table[name]).ravel()]

"""Small pictures of images by identity, read from the tars where they lie, as data URIs."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from semisup import images, samples, schemas, tables
from semisup.ledger import Manifest

LARGEST_SIDE = 112
MAX_BYTES = 64 << 20


class Picture(NamedTuple):
    """``src`` is empty where the image cannot be shown, and ``problem`` says why."""

    src: str
    problem: str = ""


def thumbnail(content: bytes) -> Picture:
    """A picture of at most ``LARGEST_SIDE`` pixels a side."""
    try:
        pixels = images.decode(content)
    except images.ImageError as error:
        return Picture("", f"{error.kind}: {error}")
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if max(image.size) <= LARGEST_SIDE:
        image.save(buffer, "PNG")
        return Picture(_data_uri("png", buffer.getvalue()))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=82)
    return Picture(_data_uri("jpeg", buffer.getvalue()))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def read_pictures(manifests: Iterable[str | Path], identities: Iterable[int]) -> dict[int, Picture]:
    """A picture of each of these images of a dataset; opens only the parts that hold them."""
    wanted = np.unique(np.fromiter(identities, np.int64))
    pictures: dict[int, Picture] = {}
    for manifest, here in samples.parts_of(map(Path, manifests), wanted):
        pictures |= _read_part(manifest, samples.samples_path(manifest), wanted[here])
    missing = Picture("", "not in the samples table")
    return {int(i): pictures.get(int(i), missing) for i in wanted}


def _read_part(manifest_path: Path, samples_path: Path, wanted: np.ndarray) -> dict[int, Picture]:
    manifest: Manifest = tables.read_json(manifest_path)
    paths = {shard["shard_id"]: shard["path"] for shard in manifest["shards"]}
    columns = ["shard_id", "sample_index", "offset", "size_bytes"]
    table = tables.read_table(samples_path, schemas.SAMPLES, columns)
    rows = np.flatnonzero(np.isin(tables.identity(table), wanted))
    pictures = {}
    for row in table.take(rows).to_pylist():
        identity = (row["shard_id"] << 32) | row["sample_index"]
        path = paths[row["shard_id"]]
        pictures[identity] = _read_one(path, row["offset"], row["size_bytes"])
    return pictures


def _read_one(path: str, offset: int, size_bytes: int) -> Picture:
    if offset < 0:
        return Picture("", "no image")
    if size_bytes > MAX_BYTES:
        return Picture("", f"{size_bytes:,} bytes: too large to show")
    try:
        return thumbnail(samples.read_range(path, offset, size_bytes))
    except images.ImageError as error:
        return Picture("", f"{error.kind}: {error}")

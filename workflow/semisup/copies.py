"""Images with the same bytes or the same pixels: as an evaluation image, and as one earlier in U."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semisup import schemas, tables, tars
from semisup.samples import parts_of, read_samples
from semisup.selection import find_copies

IMAGES_AT_A_TIME = 100_000_000
"""More are compared in several rounds, each for a share of the hashes; 56 bytes an image."""

DECODED = (tars.OK, "zero_feature")


class Source(NamedTuple):
    """A dataset: the files of its parts, of what is told of its images and of its index."""

    dataset: str
    images: list[Path]
    manifests: list[Path]


class Found(NamedTuple):
    """Copies by identity, and the first image that is the same: its source, its identity.

    An image is here once for each source that holds the same, sources in their order.
    """

    copy: np.ndarray
    first_source: np.ndarray
    first: np.ndarray


def same_pixels(sources: list[Source], at_a_time: int = IMAGES_AT_A_TIME) -> Found:
    """Images of the last source whose pixels stand in another source, or earlier in their own."""
    num_images = sum(tables.count_rows(path) for source in sources for path in source.images)
    rounds = max(-(-num_images // at_a_time), 1)
    found = []
    for share in range(rounds):
        blocks = list(_hashes(sources, share, rounds))
        source, identity, hashes = map(np.concatenate, zip(*blocks, strict=True))
        # Few of U's images are in any group of equal ones: all that follows looks at those alone.
        several = np.union1d(*find_copies(np.arange(len(identity)), hashes))
        for position in range(len(sources)):
            rows = several[np.isin(source[several], (position, len(sources) - 1))]
            copy, first = find_copies(rows, hashes[rows])
            own = (source[copy] == len(sources) - 1) & (source[first] == position)
            copy, first = copy[own], first[own]
            found.append(Found(identity[copy], source[first], identity[first]))
    together = Found(*map(np.concatenate, zip(*found, strict=True)))
    order = np.lexsort((together.first_source, together.copy))
    return Found(*(column[order] for column in together))


def _hashes(sources: list[Source], share: int, rounds: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Source, identity and pixel hash of the decoded images whose hash falls to this round."""
    for position, source in enumerate(sources):
        for path in source.images:
            names = ["shard_id", "sample_index", "pixel_hash", "status"]
            table = tables.read_table(path, schemas.DESCRIBED, names)
            status = table["status"].cast(pa.string()).to_numpy(zero_copy_only=False).astype(str)
            packed = b"".join(table["pixel_hash"].to_pylist())
            hashes = np.frombuffer(packed, np.uint64).reshape(-1, 2)
            rows = np.flatnonzero(np.isin(status, DECODED) & (hashes[:, 0] % rounds == share))
            identity = tables.identity(table, rows=rows)
            yield np.full(len(rows), position, np.int16), identity, hashes[rows]


def copy_columns(sources: list[Source], found: Found) -> dict[str, Any]:
    """The columns of the table of copies."""
    own_bytes = _content_hashes(sources[-1], found.copy)
    first_bytes = np.full(len(found.copy), b"", object)
    for position, source in enumerate(sources):
        here = np.flatnonzero(found.first_source == position)
        first_bytes[here] = _content_hashes(source, found.first[here])
    columns: dict[str, Any] = {}
    for prefix, identity in (("", found.copy), ("first_", found.first)):
        shard_ids, sample_indices = tables.split_identity(identity)
        columns |= {f"{prefix}shard_id": shard_ids, f"{prefix}sample_index": sample_indices}
    names = np.array([source.dataset for source in sources], object)
    columns["first_dataset"] = names[found.first_source]
    columns["same"] = np.where(own_bytes == first_bytes, "bytes", "pixels")
    return columns


def _content_hashes(source: Source, identities: np.ndarray) -> np.ndarray:
    found = np.full(len(identities), b"", object)
    for manifest, here in parts_of(source.manifests, identities):
        table = read_samples([manifest], ["shard_id", "sample_index", "content_hash"]).table
        rows = np.searchsorted(tables.identity(table), identities[here])
        found[here] = table["content_hash"].take(rows).to_pylist()
    return found

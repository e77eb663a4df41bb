"""Batches of decoded images, in an order known beforehand, from any position on."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semisup import images, transforms
from semisup.samples import Samples, read_range


class Batch(NamedTuple):
    """Decoded images of some rows. ``failures``: (row, kind, reason) of those left out."""

    rows: np.ndarray
    images_NCHW: torch.Tensor  # uint8
    failures: list[tuple[int, str, str]]


class _Batches(Dataset[Batch]):
    """Item i is batch i: rows and the seed of each, given by ``plan(i)``."""

    def __init__(
        self,
        samples: Samples,
        plan: Callable[[int], tuple[np.ndarray, np.ndarray | None]],
        transform: Callable[[torch.Tensor], torch.Tensor],
        image_size: int,
    ) -> None:
        self.plan, self.transform, self.image_size = plan, transform, image_size
        self.offsets = samples.table["offset"].to_numpy()
        self.sizes = samples.table["size_bytes"].to_numpy()
        self.shard_ids = samples.table["shard_id"].to_numpy()
        self.shard_paths = samples.shard_paths

    def __getitem__(self, index: int) -> Batch:
        rows, seeds = self.plan(index)
        decoded, good, failures = [], [], []
        for i, row in enumerate(rows):
            try:
                pixels = self._decode(int(row))
            except images.ImageError as error:
                failures.append((int(row), error.kind, str(error)))
                continue
            if seeds is not None:
                torch.default_generator.manual_seed(int(seeds[i]))
            decoded.append(self.transform(pixels))
            good.append(row)
        size = self.image_size
        stacked = (
            torch.stack(decoded) if decoded else torch.empty(0, 3, size, size, dtype=torch.uint8)
        )
        return Batch(np.array(good, dtype=np.int64), stacked, failures)

    def _decode(self, row: int) -> torch.Tensor:
        path = self.shard_paths[int(self.shard_ids[row])]
        content = read_range(path, int(self.offsets[row]), int(self.sizes[row]))
        return transforms.to_tensor(images.decode(content))


def _load(batches: _Batches, order: range, workers: int) -> Iterator[Batch]:
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=order,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def evaluation_batches(
    samples: Samples,
    rows: np.ndarray,
    image_size: int,
    resize: int,
    batch_size: int,
    workers: int,
) -> Iterator[Batch]:
    """The images of ``rows`` in order. No batch spans two shards, so that what a batch holds, and
    with it the last bits of a score, does not depend on how shards are grouped into parts."""
    shard_ids = samples.table["shard_id"].to_numpy()[rows]
    starts = [start for first, last in _runs(shard_ids) for start in range(first, last, batch_size)]
    ends = [*starts[1:], len(rows)]

    def plan(index: int) -> tuple[np.ndarray, None]:
        return rows[starts[index] : ends[index]], None

    transform = transforms.evaluation_transform(image_size, resize)
    return _load(_Batches(samples, plan, transform, image_size), range(len(starts)), workers)


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of equal values."""
    if len(values) == 0:
        return []
    cuts = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(values)], strict=True))


class TrainingOrder(NamedTuple):
    """Which image stands at each position of a training, given by seed and position alone.

    Position p is image p % N of epoch p // N; every epoch is a permutation of the N rows.
    """

    rows: np.ndarray
    seed: int
    images: int
    batch_size: int

    @property
    def num_steps(self) -> int:
        return -(-self.images // self.batch_size)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and augmentation seeds of the positions of a step."""
        start = step * self.batch_size
        positions = np.arange(start, min(start + self.batch_size, self.images))
        epochs, places = np.divmod(positions, len(self.rows))
        rows = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = _permutation(self.seed, int(epoch), len(self.rows))[places[here]]
        return self.rows[rows], _mix(positions, self.seed)


def _mix(positions: np.ndarray, seed: int) -> np.ndarray:
    """A seed for each position: multiplication modulo 2^64 by odd constants, then 63 bits."""
    offset = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    mixed = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + offset
    return (mixed >> np.uint64(1)).astype(np.int64)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def training_batches(
    samples: Samples,
    order: TrainingOrder,
    transform: Callable[[torch.Tensor], torch.Tensor],
    image_size: int,
    first_step: int,
    workers: int,
) -> Iterator[Batch]:
    """The batches of a training from any step on."""
    batches = _Batches(samples, order.batch, transform, image_size)
    return _load(batches, range(first_step, order.num_steps), workers)

"""Which image stands where in a training: from seed and position alone, however many ranks there are."""

import functools
from typing import NamedTuple

import numpy as np

BLOCK = 64
"""Consecutive images that stay near each other, so that a disk reads runs, not single images."""

WINDOW = 1024
"""Blocks mixed with each other, image by image."""


class TrainingOrder(NamedTuple):
    """The images of a training. ``rows``: those to learn from, N of them, in the order of their shards.

    Position p is image p % N of epoch p // N; every epoch is a permutation of the N rows. Blocks of
    rows are shuffled over the whole epoch, so shards may be sorted by class; the images of a window
    of blocks are shuffled among themselves. A step is a run of ``batch_size`` positions, split into
    micro-batches: one forward pass of one rank each.
    """

    rows: np.ndarray
    seed: int
    images: int
    batch_size: int
    device_batch_size: int | None = None

    @property
    def num_steps(self) -> int:
        return -(-self.images // self.batch_size)

    def num_images(self, step: int) -> int:
        """How many positions a step has: only the last may have fewer than the others."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def num_passes(self, step: int, num_ranks: int) -> int:
        """Forward passes of each rank in a step: the same for all."""
        return -(-self.num_images(step) // (self._pass_size(step, num_ranks) * num_ranks))

    def positions(self, step: int, forward_pass: int, rank: int, num_ranks: int) -> range:
        """The positions of one micro-batch; a rank may have none when images run out."""
        size = self._pass_size(step, num_ranks)
        start = (forward_pass * num_ranks + rank) * size
        first = step * self.batch_size
        return range(first, first + self.num_images(step))[start : start + size]

    def _pass_size(self, step: int, num_ranks: int) -> int:
        return self.device_batch_size or -(-self.num_images(step) // num_ranks)

    def rows_at(self, positions: range) -> np.ndarray:
        """The rows of some positions: as fast at the end of a training as at its start."""
        length = len(self.rows)
        epochs, places = np.divmod(np.arange(positions.start, positions.stop), length)
        last_window = max(length // BLOCK - 1, 0) // WINDOW
        windows = np.minimum(places // (WINDOW * BLOCK), last_window)
        rows = np.empty(len(places), np.int64)
        for epoch, window in sorted(set(zip(epochs.tolist(), windows.tolist(), strict=True))):
            here = (epochs == epoch) & (windows == window)
            shuffled = _window(self.seed, epoch, window, window == last_window, length)
            rows[here] = shuffled[places[here] - window * WINDOW * BLOCK]
        return self.rows[rows]

    def seeds_at(self, positions: range) -> np.ndarray:
        """A seed of the augmentation for each: multiplied modulo 2^64 by odd constants, 63 bits."""
        numbers = np.arange(positions.start, positions.stop).astype(np.uint64)
        offset = np.uint64(self.seed * 0xD1342543DE82EF95 % 2**64)
        return ((numbers * np.uint64(0x9E3779B97F4A7C15) + offset) >> np.uint64(1)).astype(np.int64)


@functools.lru_cache(maxsize=4)
def _window(seed: int, epoch: int, window: int, is_last: bool, length: int) -> np.ndarray:
    """The rows of a window, shuffled. What is left over when blocks are cut belongs to the last."""
    blocks = np.sort(_blocks(seed, epoch, length // BLOCK)[window * WINDOW : (window + 1) * WINDOW])
    rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    if is_last:
        rows = np.append(rows, np.arange(length // BLOCK * BLOCK, length))
    return rows[np.random.default_rng([seed, epoch, window]).permutation(len(rows))]


@functools.lru_cache(maxsize=2)
def _blocks(seed: int, epoch: int, num_blocks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 0, 1]).permutation(num_blocks)

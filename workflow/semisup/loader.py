"""Batches of decoded images, in an order known beforehand, from any position on."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semisup import images, tables, tars, transforms
from semisup.order import TrainingOrder
from semisup.samples import Samples, read_indexed, will_read
from semisup.settings import Preprocessing
from semisup.tables import DataError
from semisup.vision import torchvision

BATCH_SECONDS = 600
"""After which a batch will not come any more: its worker hangs, and with it all ranks."""

Look = Callable[[torch.Tensor], torch.Tensor]
"""From the pixels of an image, uint8 (3, height, width), to what a batch holds of it."""


class Batch(NamedTuple):
    """Decoded images of some rows. ``failures``: (row, kind, reason) of those left out.

    ``more``: what further looks at the same pixels gave, a tensor each; none without images.
    """

    rows: np.ndarray
    images_NCHW: torch.Tensor  # uint8
    failures: list[tuple[int, str, str]]
    more: list[torch.Tensor] = []


def refuse_unread(batch: Batch) -> None:
    """Raises DataError where an image that is there could not be read: it may be readable again.

    Without it something else would be learned or measured than in a run that nothing disturbed.
    """
    unread = [reason for _, kind, reason in batch.failures if kind == tars.READ_ERROR]
    if unread:
        raise DataError(
            f"{len(unread)} images of a batch cannot be read any more: {unread[0]}. Restore the file "
            "or its disk, and run again; what was done is taken over."
        )


Plan = Callable[[Any], tuple[np.ndarray, np.ndarray | None]]
"""From what names a batch to its rows, and to the seed of each where the transform is random."""


class _Batches(Dataset[Batch]):
    """The batches of a plan, by what names them."""

    def __init__(
        self,
        samples: Samples,
        plan: Plan,
        transform: Look,
        image_size: int,
        more: Sequence[Look] = (),
    ) -> None:
        self.plan, self.transform, self.image_size, self.more = plan, transform, image_size, more
        self.offsets = samples.table["offset"].to_numpy()
        self.sizes = samples.table["size_bytes"].to_numpy()
        self.shard_ids = samples.table["shard_id"].to_numpy()
        self.content_hashes = tables.fixed_binary(samples.table["content_hash"])
        self.shard_paths, self.max_pixels = samples.shard_paths, samples.max_pixels

    def __getitem__(self, name: Any) -> Batch:
        rows, seeds = self.plan(name)
        self._announce(np.sort(rows))
        decoded, good, failures = [], [], []
        looks: list[list[torch.Tensor]] = [[] for _ in self.more]
        for i, row in enumerate(rows):
            try:
                pixels = self._decode(int(row))
            except images.ImageError as error:
                failures.append((int(row), error.kind, str(error)))
                continue
            if seeds is not None:
                torch.default_generator.manual_seed(int(seeds[i]))
            decoded.append(self.transform(pixels))
            for found, look in zip(looks, self.more, strict=True):
                found.append(look(pixels))
            good.append(row)
        size = self.image_size
        stacked = (
            torch.stack(decoded) if decoded else torch.empty(0, 3, size, size, dtype=torch.uint8)
        )
        more = [torch.stack(found) for found in looks if found]
        return Batch(np.array(good, dtype=np.int64), stacked, failures, more)

    def _announce(self, rows: np.ndarray) -> None:
        """Let the kernel read the images of a batch while the first are decoded."""
        for row in rows.tolist():
            path = self.shard_paths[int(self.shard_ids[row])]
            will_read(path, int(self.offsets[row]), int(self.sizes[row]))

    def _decode(self, row: int) -> torch.Tensor:
        path = self.shard_paths[int(self.shard_ids[row])]
        place = int(self.offsets[row]), int(self.sizes[row])
        content = read_indexed(path, *place, self.content_hashes[row].tobytes())
        return decode(content, self.max_pixels)


def decode(content: bytes, max_pixels: int = images.MAX_PIXELS) -> torch.Tensor:
    """uint8 pixels (3, height, width), those of images.decode, and what it raises.

    Most JPEGs by torchvision's decoder, which gives the same pixels in two thirds of the time.
    """
    if images.is_plain_jpeg(content, max_pixels):
        try:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            return torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB)
        except RuntimeError:
            pass  # the other decoder says why, in better words
    return transforms.to_tensor(images.decode(content, max_pixels))


def _load(
    batches: _Batches, names: Iterable[Any], workers: int, set_up: Callable[[int], None]
) -> Iterator[Batch]:
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=names,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=4 if workers else None,
            timeout=BATCH_SECONDS if workers else 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=set_up,
        )
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _one_thread_without_signals(worker: int) -> None:
    """A signal to all processes of a job is for the one that trains: it needs its next batch."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    _one_thread(worker)


def _kill_workers() -> None:
    """Python asks workers to end, by a signal they do not heed, and waits for them for ever.

    So after any error that left an iterator in its traceback, as the death of one worker does.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would take it for an error
    for worker in multiprocessing.active_children():
        worker.kill()


atexit.register(_kill_workers)  # after that of Python, hence called before it


def evaluation_batches(
    samples: Samples,
    rows: np.ndarray,
    preprocessing: Preprocessing,
    batch_size: int,
    workers: int,
    more: Sequence[Look] = (),
) -> Iterator[Batch]:
    """The images of ``rows`` in order. No batch spans two shards, so that what a batch holds, and
    with it the last bits of a score, does not depend on how shards are grouped into parts."""
    shard_ids = samples.table["shard_id"].to_numpy()[rows]
    starts = [start for first, last in _runs(shard_ids) for start in range(first, last, batch_size)]
    ends = [*starts[1:], len(rows)]

    def plan(index: int) -> tuple[np.ndarray, None]:
        return rows[starts[index] : ends[index]], None

    transform = transforms.evaluation_transform(preprocessing)
    batches = _Batches(samples, plan, transform, preprocessing.image_size, more)
    return _load(batches, range(len(starts)), workers, _one_thread)


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of equal values."""
    if len(values) == 0:
        return []
    cuts = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(values)], strict=True))


def training_batches(
    samples: Samples,
    order: TrainingOrder,
    transform: Callable[[torch.Tensor], torch.Tensor],
    image_size: int,
    first_step: int,
    rank: int,
    num_ranks: int,
    workers: int,
) -> Generator[Batch, None, None]:
    """The micro-batches of one rank, from any step on.

    Signals do not end the workers: whoever leaves early closes the generator.
    """

    def plan(place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        positions = order.positions(*place, rank, num_ranks)
        return order.rows_at(positions), order.seeds_at(positions)

    places = (
        (step, forward_pass)
        for step in range(first_step, order.num_steps)
        for forward_pass in range(order.num_passes(step, num_ranks))
    )
    batches = _Batches(samples, plan, transform, image_size)
    return _closable(_load(batches, places, workers, _one_thread_without_signals))


def _closable(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Workers end with the iterator, which a traceback may hold; a closed generator holds nothing."""
    yield from batches

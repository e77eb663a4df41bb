"""The order of a training's images: every image once an epoch, whatever the ranks and the start."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import order
from semisup.order import TrainingOrder

lengths = st.integers(1, 150)
positions = st.integers(0, 400)


@pytest.fixture(scope="module", autouse=True)
def small_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "BLOCK", 4)
        patch.setattr(order, "WINDOW", 3)
        order._window.cache_clear()
        yield
        order._window.cache_clear()


def make_order(length: int, seed: int = 0, **keys: int | None) -> TrainingOrder:
    return TrainingOrder(np.arange(length) * 10, seed, **{"images": 500, "batch_size": 8, **keys})  # type: ignore[arg-type]


@given(lengths, st.integers(0, 3), st.integers(0, 5))
def test_every_epoch_holds_every_image_once(length: int, seed: int, epoch: int) -> None:
    of_epoch = make_order(length, seed).rows_at(range(epoch * length, (epoch + 1) * length))
    assert sorted(of_epoch.tolist()) == [i * 10 for i in range(length)]


def test_epochs_and_seeds_differ() -> None:
    first, second = (make_order(100).rows_at(range(i, i + 100)) for i in (0, 100))
    other = make_order(100, seed=1).rows_at(range(100))
    assert len({tuple(each.tolist()) for each in (first, second, other)}) == 3


@given(lengths, st.tuples(positions, positions, positions))
def test_it_goes_on_from_any_position(length: int, cuts: tuple[int, int, int]) -> None:
    first, middle, last = sorted(cuts)
    whole = make_order(length)
    pieces = [whole.rows_at(range(first, middle)), whole.rows_at(range(middle, last))]
    assert np.concatenate(pieces).tolist() == whole.rows_at(range(first, last)).tolist()


@given(st.integers(25, 150))
def test_a_window_reads_whole_blocks(length: int) -> None:
    window = make_order(length).rows_at(range(12)) // 10
    blocks = np.unique(window // 4)
    assert sorted(window.tolist()) == (blocks[:, None] * 4 + np.arange(4)).ravel().tolist()


def test_shards_sorted_by_class_are_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "BLOCK", 64)
    monkeypatch.setattr(order, "WINDOW", 1024)
    classes = np.repeat(np.arange(100), 1300)
    of_batch = classes[TrainingOrder(np.arange(130_000), 0, 130_000, 256).rows_at(range(256))]
    assert len(np.unique(of_batch)) > 80


@given(st.integers(1, 20), st.integers(1, 5), st.none() | st.integers(1, 9), st.integers(1, 100))
def test_ranks_share_each_step_without_loss_or_repetition(
    batch_size: int, num_ranks: int, device_batch_size: int | None, images: int
) -> None:
    order = make_order(
        10, batch_size=batch_size, images=images, device_batch_size=device_batch_size
    )
    seen = [
        position
        for step in range(order.num_steps)
        for number in range(order.num_passes(step, num_ranks))
        for rank in range(num_ranks)
        for position in order.positions(step, number, rank, num_ranks)
    ]
    assert seen == list(range(images))


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 5))
def test_with_a_device_batch_size_no_number_of_ranks_changes_a_pass(
    batch_size: int, device_batch_size: int, num_ranks: int
) -> None:
    order = make_order(10, batch_size=batch_size, images=70, device_batch_size=device_batch_size)

    def passes(num_ranks: int) -> list[range]:
        found = [
            order.positions(step, number, rank, num_ranks)
            for step in range(order.num_steps)
            for number in range(order.num_passes(step, num_ranks))
            for rank in range(num_ranks)
        ]
        return [each for each in found if each]

    assert passes(num_ranks) == passes(1)


def test_each_position_has_a_seed_of_its_own() -> None:
    seeds = np.concatenate([make_order(10, seed).seeds_at(range(100_000)) for seed in range(3)])
    assert len(np.unique(seeds)) == 300_000
    assert seeds.min() >= 0

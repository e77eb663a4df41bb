"""U against itself: near-copies within cells, and the cells."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from semisup import cells, near_copies, schemas, tables
from semisup.features import Features, pack
from semisup.settings import FindNearCopies, MergeNearCopies, SortIntoCells, TrainCells
from semisup.steps import find_near_copies, merge_near_copies, sort_into_cells, train_cells


def features(count: int, seed: int, dimensions: int = 8) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def brute_force(images: Features, distance: float) -> list[tuple[int, int, float]]:
    order = np.argsort(images.identity)
    kept: list[int] = []
    found = []
    for own in order.tolist():
        for other in kept:
            square = ((images.vectors[own].astype(float) - images.vectors[other]) ** 2).sum()
            if np.float32(np.sqrt(square)) <= np.float32(distance):
                apart = float(np.float32(np.sqrt(square)))
                found.append((int(images.identity[own]), int(images.identity[other]), apart))
                break
        else:
            kept.append(own)
    return found


@options(max_examples=60)
@given(st.integers(1, 40), st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.8, 1.2]))
def test_each_image_close_to_an_earlier_kept_one_is_a_near_copy(count, seed, distance) -> None:
    rng = np.random.default_rng(seed)
    vectors = features(count, seed)
    vectors = vectors[rng.integers(0, count, count)]  # some stand several times
    images = Features(rng.permutation(1000)[:count].astype(np.int64), vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_copies, "BLOCK", 7)
        found = near_copies.in_cell(images, distance)
    expected = brute_force(images, distance)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_an_image_is_in_the_cell_of_the_closest_centroid_and_of_the_first_of_equals() -> None:
    centroids, vectors = features(9, 1), features(300, 2)
    centroids[5] = centroids[2]
    squares = ((vectors[:, None].astype(float) - centroids[None].astype(float)) ** 2).sum(2)
    assert cells.assign(vectors, centroids).tolist() == squares.argmin(1).tolist()
    assert 5 not in cells.assign(vectors, centroids)


def run_all(folder: Path, vectors: np.ndarray, bounds: list[int], num_cells: int) -> np.ndarray:
    """The steps over U in parts that end at these rows; returns the table of near-copies."""
    for part, (start, end) in enumerate(zip([0, *bounds], [*bounds, len(vectors)], strict=True)):
        columns = {
            "shard_id": np.arange(start, end) // 50,
            "sample_index": np.arange(start, end) % 50,
        }
        columns["feature"] = pack(vectors[start:end])
        tables.write_blocks(folder / f"part-{part:05d}.parquet", [columns], schemas.FEATURES)
    num_parts, num_groups = len(bounds) + 1, min(num_cells, 3)
    train_cells.main(
        TrainCells(num_parts=num_parts, num_cells=num_cells, seed=1),
        folder / "part-00000.parquet", folder / "centroids.parquet",
    )  # fmt: skip
    for part in range(num_parts):
        sort_into_cells.main(
            SortIntoCells(num_groups=num_groups), folder / f"part-{part:05d}.parquet",
            folder / "centroids.parquet", folder / f"cells-{part:05d}.parquet",
        )  # fmt: skip
    for group in range(num_groups):
        find_near_copies.main(
            FindNearCopies(num_parts=num_parts, group=group, max_distance=0.1),
            folder / "cells-00000.parquet", folder / f"near_copies-{group:05d}.parquet", 1,
        )  # fmt: skip
    merge_near_copies.main(
        MergeNearCopies(num_groups=num_groups),
        folder / "near_copies-00000.parquet", folder / "near_copies.parquet",
    )  # fmt: skip
    return (folder / "near_copies.parquet").read_bytes()


def planted() -> tuple[np.ndarray, set[int]]:
    """700 features, of which the last 100 are copies of the first, a little changed."""
    vectors = features(700, 3, 16)
    noise = np.random.default_rng(4).normal(size=(100, 16)) * 0.002
    vectors[600:] = (vectors[:100].astype(float) + noise).astype(np.float16)
    return vectors, set(range(600, 700))


def test_near_copies_do_not_depend_on_parts(tmp_path: Path) -> None:
    vectors, _ = planted()
    one = run_all(tmp_path / "one", vectors, [], 4)
    assert one == run_all(tmp_path / "three", vectors, [150, 600], 4)
    assert one == run_all(tmp_path / "empty", vectors, [300, 300], 4)


def test_one_cell_finds_all_and_several_cells_most(tmp_path: Path) -> None:
    vectors, copies = planted()
    for num_cells, least in ((1, 100), (8, 90)):
        folder = tmp_path / str(num_cells)
        run_all(folder, vectors, [350], num_cells)
        table = tables.read_table(folder / "near_copies.parquet", schemas.NEAR_COPIES)
        found = table["shard_id"].to_numpy() * 50 + table["sample_index"].to_numpy()
        first = table["first_shard_id"].to_numpy() * 50 + table["first_sample_index"].to_numpy()
        assert len(copies & set(found.tolist())) >= least
        planted_ones = found >= 600
        assert (first[planted_ones] == found[planted_ones] - 600).all()

from pathlib import Path

import numpy as np
import pytest

from semisup import schemas, tables
from semisup.features import pack, read_all, read_features, read_sample
from semisup.tables import DataError


def write(path: Path, vectors: list[np.ndarray], first: int = 0, row_group: int = 3) -> Path:
    columns = {
        "shard_id": np.zeros(len(vectors), np.int32),
        "sample_index": np.arange(first, first + len(vectors), dtype=np.int32),
        "feature": [row for vector in vectors for row in pack(vector[None])],
    }
    tables.write_blocks(path, [columns], schemas.FEATURES, row_group)
    return path


def test_features_come_back_as_they_were_stored_block_by_block(tmp_path) -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    path = write(tmp_path / "part.parquet", list(vectors))
    blocks = list(read_features(path))
    assert [len(block.identity) for block in blocks] == [3, 3, 2]
    together = read_all([path])
    assert together.vectors.dtype == np.float16
    assert (together.vectors == vectors.astype(np.float16)).all()
    assert together.identity.tolist() == list(range(8))


def test_a_sample_is_from_all_over_a_part_and_reads_little_of_it(tmp_path) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    path = write(tmp_path / "part.parquet", list(vectors), row_group=10)
    blocks = read_sample(path, 14)
    assert [block.identity.tolist() for block in blocks] == [
        [row, row + 5] for row in range(0, 200, 30)
    ]
    for block in blocks:
        assert (block.vectors == vectors[block.identity].astype(np.float16)).all()
    assert read_sample(write(tmp_path / "empty.parquet", []), 1) == []


def test_a_part_without_images_has_no_block(tmp_path) -> None:
    empty = write(tmp_path / "empty.parquet", [])
    full = write(tmp_path / "full.parquet", [np.ones(3)], first=4)
    assert list(read_features(empty)) == []
    assert read_all([empty, full]).identity.tolist() == [4]


def test_a_set_of_which_nothing_could_be_described_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"empty\.parquet: none of the images could be described"):
        read_all([write(tmp_path / "empty.parquet", [])])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_naming_the_row(tmp_path, value) -> None:
    path = write(tmp_path / "part.parquet", [np.ones(3), np.array([0, value, 1])])
    with pytest.raises(DataError, match=r"part\.parquet: the feature in row 1 is not finite"):
        read_all([path])


def test_the_row_that_is_not_finite_is_that_of_the_file(tmp_path) -> None:
    vectors = [np.ones(3)] * 9 + [np.full(3, np.nan)]
    path = write(tmp_path / "part.parquet", vectors, row_group=4)
    with pytest.raises(DataError, match=r"part\.parquet: the feature in row 9 is not finite"):
        list(read_features(path))


def test_a_sample_keeps_no_more_than_itself(tmp_path) -> None:
    path = write(tmp_path / "part.parquet", [np.ones(3)] * 1000, row_group=1000)
    for block in read_sample(path, 10):
        assert len(block.vectors) <= 10
        assert block.vectors.base is None
        assert block.identity.base is None


def test_features_of_two_descriptors_are_refused(tmp_path) -> None:
    paths = [write(tmp_path / f"{n}.parquet", [np.ones(n)]) for n in (3, 4)]
    with pytest.raises(DataError, match=r"features of \[3, 4\] dimensions cannot be compared"):
        read_all(paths)
    with pytest.raises(DataError, match="features differ in length"):
        read_all([write(tmp_path / "mixed.parquet", [np.ones(3), np.ones(4)])])

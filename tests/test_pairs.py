"""What is kept of close pairs, whatever the blocks they come in."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.features import pack
from semisup.pairs import ORDER, Closest, Nearest, merge_pairs, read_evaluation
from semisup.tables import DataError

rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    max_size=40,
    unique_by=lambda row: row[:2],
)


def blocks_of(pairs: list, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [
        (
            np.array([row[0] for row in block]),
            np.array([row[1] for row in block]),
            np.array([row[2] for row in block], np.float32),
        )
        for block in (pairs[i : i + size] for i in range(0, len(pairs), size))
    ]


@given(rows, st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_nearest_is_the_first_of_the_closest(pairs, size, random) -> None:
    random.shuffle(pairs)
    nearest = Nearest(5)
    for block in blocks_of(pairs, size):
        nearest.add(*block)
    for query in range(5):
        own = sorted((distance, match) for q, match, distance in pairs if q == query)
        assert nearest.match[query] == (own[0][1] if own else -1)
        assert nearest.distance[query] == (own[0][0] if own else np.inf)


@given(rows, st.integers(1, 7), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_closest_pairs_do_not_depend_on_blocks_and_their_order(pairs, size, limit, random):
    random.shuffle(pairs)
    closest = Closest(limit)
    for query, match, distance in blocks_of(pairs, size):
        closest.add(distance, query, match)
    expected = sorted((distance, query, match) for query, match, distance in pairs)[:limit]
    found = list(zip(*(column.tolist() for column in closest.sorted()), strict=True))
    assert found == expected
    assert closest.count <= limit * 5 // 4


@given(rows, st.integers(1, 7), st.integers(1, 9))
def test_merging_the_closest_of_parts_gives_the_closest_of_all(pairs, size, limit) -> None:
    whole, parts = Closest(limit), Closest(limit)
    for query, match, distance in blocks_of(pairs, size):
        whole.add(distance, query, match)
        part = Closest(limit)
        part.add(distance, query, match)
        parts.add(*part.sorted())
    assert [c.tolist() for c in parts.sorted()] == [c.tolist() for c in whole.sorted()]


def write_parts(folder: Path, keys: dict[int, str]) -> list[Path]:
    """Two parts with ties between images, sets and evaluation images; all keys "k" but these."""
    rng = np.random.default_rng(0)
    paths = []
    for part in range(2):
        shard, index, dataset, evaluation = np.indices((2, 5, 2, 3)).reshape(4, -1)
        distance = rng.choice([0.25, 0.5, 0.75], len(shard)).astype(np.float32)
        columns = {
            "shard_id": 2 * part + shard, "sample_index": index, "distance": distance,
            "evaluation_dataset": np.array(["other", "test"], object)[dataset],
            "evaluation_shard_id": evaluation // 2, "evaluation_sample_index": evaluation % 2,
            "key": np.array([keys.get(row, "k") for row in range(len(shard))], object),
            "evaluation_key": np.full(len(shard), "e", object),
        }  # fmt: skip
        order = np.lexsort([columns[name] for name in ORDER[::-1]])
        paths.append(folder / f"part-{part:05d}.parquet")
        columns = {name: np.asarray(column)[order] for name, column in columns.items()}
        tables.write_table(paths[-1], columns, schemas.DUPLICATES)
    return paths


@pytest.mark.parametrize("limit", [0, 1, 7, 50, 1000])
def test_a_merge_takes_the_first_of_all_rows_in_order(tmp_path, limit) -> None:
    paths = write_parts(tmp_path, {3: "another"})
    rows = [
        row for path in paths for row in tables.read_table(path, schemas.DUPLICATES).to_pylist()
    ]
    expected = sorted(rows, key=lambda row: [row[name] for name in ORDER])[:limit]
    assert merge_pairs(paths, limit).to_pylist() == expected


def test_one_long_key_costs_its_own_length_not_that_of_every_row(tmp_path) -> None:
    paths = write_parts(tmp_path, {0: "long" * 250_000})
    tracemalloc.start()
    try:
        merged = merge_pairs(paths, 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(len(key) for key in merged["key"].to_pylist()) > 2_000_000
    assert peak < 20_000_000  # a column of texts of fixed width would take 480 MB


def test_evaluation_sets_of_two_descriptors_are_refused(tmp_path) -> None:
    sets = {}
    for dimensions in (8, 16):
        path = tmp_path / f"{dimensions}.parquet"
        features = pack(np.ones((2, dimensions)))
        columns = {"shard_id": [0, 0], "sample_index": [0, 1], "feature": features}
        tables.write_table(path, columns, schemas.FEATURES)
        sets[f"of_{dimensions}"] = [path]
    with pytest.raises(DataError, match=r"16\.parquet: features of \[8, 16\] dimensions cannot be"):
        read_evaluation(sets)

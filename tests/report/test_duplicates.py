from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.config import Remove
from semisup.report.duplicates import (
    BARS,
    MAX_PAIRS,
    choose_pairs,
    count_distances,
    cuts_in_force,
)


@given(st.lists(st.booleans(), max_size=100))
def test_no_pair_is_shown_twice_and_none_too_many(removed: list[bool]) -> None:
    closest, at_cut = choose_pairs(np.array(removed, bool))
    shown = [*closest, *at_cut]
    assert len(shown) == len(set(shown)) == min(len(removed), MAX_PAIRS)
    assert all(0 <= place < len(removed) for place in shown)


def test_pairs_next_to_the_cut_are_shown_on_both_of_its_sides() -> None:
    removed = np.arange(100) < 50
    assert choose_pairs(removed) == (list(range(12)), list(range(44, 56)))


def test_the_cut_of_the_closest_is_the_distance_of_the_last_of_them() -> None:
    cuts = cuts_in_force(Remove(closest=2, max_distance=0.5), np.array([0.2, 0.1]))
    assert cuts == [("closest 2", 0.2), ("max_distance 0.5", 0.5)]


def test_a_distance_of_nothing_is_a_cut() -> None:
    cuts = cuts_in_force(Remove(max_distance=0), np.array([0.1]))
    assert cuts == [("max_distance 0", 0)]


def test_without_a_rule_there_is_no_cut() -> None:
    assert cuts_in_force(Remove(), np.array([0.1])) == []


def test_every_image_that_is_close_is_counted_once_at_its_distance(tmp_path: Path) -> None:
    """The farthest too, whose distance as a float32 is more than the limit."""
    parts = [[0.0, 0.1, 0.3], [], [0.3, 0.2999, 0.15]]
    paths = [tmp_path / f"nearest-{i:05d}.parquet" for i in range(len(parts))]
    for path, distances in zip(paths, parts, strict=True):
        columns = {name: np.zeros(len(distances), np.int32) for name in schemas.NEAREST.names}
        names = np.array(["test"] * len(distances), object)
        far = np.array(distances, np.float32)
        tables.write_table(
            path, columns | {"evaluation_dataset": names, "distance": far}, schemas.NEAREST
        )
    assert float(np.float32(0.3)) > 0.3
    counts = count_distances(paths, 0.3)
    assert counts.sum() == 6
    assert counts[[0, BARS // 3, BARS // 2, BARS - 1]].tolist() == [1, 1, 1, 3]

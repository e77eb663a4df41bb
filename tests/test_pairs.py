"""What is kept of close pairs, whatever the blocks they come in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semisup.pairs import Closest, Nearest

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
    assert closest.num_dropped + closest.count == len(pairs)
    assert closest.count <= 2 * limit


@given(rows, st.integers(1, 7), st.integers(1, 9))
def test_merging_the_closest_of_parts_gives_the_closest_of_all(pairs, size, limit) -> None:
    whole, parts = Closest(limit), Closest(limit)
    for query, match, distance in blocks_of(pairs, size):
        whole.add(distance, query, match)
        part = Closest(limit)
        part.add(distance, query, match)
        parts.add(*part.sorted())
    assert [c.tolist() for c in parts.sorted()] == [c.tolist() for c in whole.sorted()]

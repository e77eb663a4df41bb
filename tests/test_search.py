"""The search of one part, against brute force, whatever a sample says of it."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from semisup import neighbors
from semisup.features import Features
from semisup.neighbors import Neighbors
from semisup.search import sample_size, search
from test_neighbors import brute_force, cases, features


class Part:
    """Features in blocks, and how often they were read."""

    def __init__(self, vectors: np.ndarray, size: int = 7) -> None:
        rows = range(0, len(vectors), size)
        self.identity = 3 * np.arange(len(vectors)) + 10
        self.blocks = [
            Features(self.identity[row : row + size], vectors[row : row + size]) for row in rows
        ]
        self.times_read = 0

    def read(self) -> Iterator[Features]:
        self.times_read += 1
        return iter(self.blocks)


@options(max_examples=60)
@given(cases(), st.sampled_from([1, 3, 40]), st.sampled_from([0.0, 0.1, 0.5, 1.2, 9.0]))
def test_what_is_found_is_that_of_brute_force_whatever_the_sample_says(case, limit, said) -> None:
    index, vectors, distance = case
    part, near = Part(vectors), Neighbors(index, distance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Neighbors, "quantile", lambda *_: said)
        found = search(part.read, part.blocks[:1], len(vectors), near, limit)
    pairs = brute_force(index, vectors, distance)
    kept = list(zip(*(column.tolist() for column in found.closest.sorted()), strict=True))
    assert kept == sorted((apart, int(part.identity[i]), j) for i, j, apart in pairs)[:limit]
    nearest = {i: min((apart, match) for row, match, apart in pairs if row == i) for i, *_ in pairs}
    assert found.identity.tolist() == [int(part.identity[i]) for i in sorted(nearest)]
    columns = found.distance.tolist(), found.match.tolist()
    assert list(zip(*columns, strict=True)) == [nearest[i] for i in sorted(nearest)]
    assert found.num_images == len(vectors)


@pytest.mark.parametrize("limit", [2, 3, 40])
def test_where_a_cut_leaves_one_pair_too_few_all_is_searched_again(limit, monkeypatch) -> None:
    index, vectors = features(30, 1), features(40, 2)
    part, near = Part(vectors), Neighbors(index, 2.0)
    pairs = sorted(
        (apart, int(part.identity[i]), j) for i, j, apart in brute_force(index, vectors, 2.0)
    )
    monkeypatch.setattr(Neighbors, "quantile", lambda *_: pairs[limit - 2][0])
    found = search(part.read, part.blocks[:1], len(vectors), near, limit)
    assert part.times_read == 3
    kept = list(zip(*(column.tolist() for column in found.closest.sorted()), strict=True))
    assert kept == pairs[:limit]


def test_a_part_is_read_once_where_the_sample_says_enough() -> None:
    index, vectors = features(400, 1, 24), features(2000, 2, 24)
    part, near = Part(vectors, 500), Neighbors(index, 2.0)
    found = search(part.read, part.blocks[1:2], len(vectors), near, 1000)
    assert part.times_read == 1
    assert 1000 <= found.closest.count < 4000  # of 800,000 pairs
    search(part.read, [], len(vectors), near, 1000)
    assert part.times_read == 2


def test_a_sample_of_other_images_costs_another_search() -> None:
    index, vectors = features(400, 1, 24), features(2000, 2, 24)
    part, near = Part(vectors), Neighbors(index, 2.0)
    same = [Features(np.arange(400), index)]  # all at distance zero from one of the index
    found = search(part.read, same, len(vectors), near, 800)
    assert part.times_read == 2
    assert found.closest.count >= 800


@given(st.integers(0, 9), st.floats(0.001, 0.999), st.sampled_from([1, 7, 2048]))
def test_a_quantile_is_that_of_all_pairs(seed: int, share: float, compared: int) -> None:
    index, vectors = features(30, seed, 16), features(20, seed + 100, 16)
    squares = ((vectors[:, None].astype(float) - index[None].astype(float)) ** 2).sum(2)
    expected = np.sort(np.sqrt(squares).ravel())[int(np.ceil(share * 600)) - 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "COMPARED", compared)
        found = Neighbors(index, 1.0).quantile(vectors, share)
    assert found == pytest.approx(expected, abs=1e-3) if share <= 599 / 600 else found == np.inf


def test_a_sample_holds_hundreds_of_the_pairs_that_are_kept() -> None:
    assert sample_size(200_000, 100_000) == 401
    assert sample_size(10**9, 1000) == 1024
    assert sample_size(0, 0) == 1


def test_a_sample_is_a_small_part_of_all_images() -> None:
    assert sample_size(6400, 1) == 101

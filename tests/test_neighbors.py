"""Near neighbours, against brute force."""

import numpy as np
import pytest

from semisup.neighbors import Neighbors


def features(count: int, seed: int, dimensions: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("distance", [0.5, 0.9, 1.2])
def test_pairs_are_those_of_brute_force(distance):
    index, queries = features(60, 0), features(80, 1)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - index[None], axis=2)
    expected = np.argwhere(exact.astype(np.float32) <= np.float32(distance))
    pairs = Neighbors(index).within(queries, distance)
    assert np.stack([pairs.query, pairs.match], 1).tolist() == expected.tolist()
    assert pairs.distance == pytest.approx(exact[expected[:, 0], expected[:, 1]], abs=1e-6)


def test_the_distance_of_equal_features_is_exactly_zero():
    same = features(5, 2)
    pairs = Neighbors(same).within(same, 0.0)
    assert pairs.query.tolist() == pairs.match.tolist() == [0, 1, 2, 3, 4]
    assert pairs.distance.tolist() == [0] * 5


def test_every_match_of_one_image_is_found_not_only_the_closest():
    index = np.repeat(features(1, 3), 4, axis=0)
    assert len(Neighbors(index).within(index[:1], 0.1).match) == 4

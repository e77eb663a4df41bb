"""Bounds of distances: none is above what its own distance allows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from semisup import bounds
from semisup.bounds import OTHERS, Bound
from test_neighbors import PRECISIONS, cases, features


def in_a_plane(count: int, seed: int, across: list[float]) -> np.ndarray:
    """Features of 8 dimensions in 64, and a little across."""
    made = np.zeros((count, 64), np.float16)
    made[:, :8] = features(count, seed, 8)
    made[:, 9] = np.resize(across, count)
    return made


@options(max_examples=60)
@given(
    st.one_of(
        cases().map(lambda case: case[:2]),
        st.integers(0, 99).map(
            lambda seed: (
                np.concatenate([in_a_plane(60, seed, [0]), in_a_plane(3, seed, [0.5, -0.5, 1])]),
                in_a_plane(60, seed + 100, [0, 1e-4, 3e-4, 1e-3, -3e-4]),
            )
        ),
    ),
    PRECISIONS,
    st.sampled_from([6, 13, 37, 105]),
    st.sampled_from([7, 1024]),
)
def test_every_bound_is_within_what_its_own_distance_allows(case, dtype, width, block) -> None:
    """As if each pair were exactly as far apart as pairs may be."""
    vectors, queries = (torch.from_numpy(each).double() for each in case)
    axes = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "BLOCK", block)
        squares = bounds.squared_lengths(vectors)
        bound = Bound(vectors, squares, axes[:, : width - OTHERS], dtype)
    squares = bounds.squared_lengths(queries)
    found = bound.shorten(queries.float(), squares) @ bound.short.T
    apart = torch.cdist(queries, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    for match in range(len(vectors)):
        allowed = bound.threshold(squares, apart[:, match].float())
        assert (found[:, match].view(bounds.BITS[dtype]) <= allowed).all()
    assert torch.isinf(found[:, len(vectors) :].float()).all()


@pytest.mark.parametrize(("low", "expected"), [(0, [100]), (2, [50, 50]), (4, [25] * 4)])
def test_rows_are_as_many_at_a_time_as_their_low_bounds_allow(low, expected, monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MOST", 100 * bounds.GROUP)
    least = torch.full((100, 4), 9)
    least[:, :low] = 1
    slices = list(bounds.some_rows(least, torch.full((100,), 5)))
    assert [each.stop - each.start for each in slices] == expected
    assert [row for each in slices for row in range(100)[each]] == list(range(100))

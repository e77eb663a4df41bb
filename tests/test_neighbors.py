"""Near neighbours, against brute force in exact arithmetic and against Faiss."""

import math
from fractions import Fraction

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from semisup import bounds, neighbors
from semisup.neighbors import Neighbors
from semisup.pairs import Closest, Nearest


def features(count: int, seed: int, dimensions: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def search(index: np.ndarray, queries: np.ndarray, distance: float) -> list[tuple[int, int, float]]:
    found = list(Neighbors(index, distance).within(queries))
    rows = [row for pairs in found for row in zip(*(c.tolist() for c in pairs), strict=True)]
    return sorted(rows)


def brute_force(index: np.ndarray, queries: np.ndarray, distance: float) -> list[tuple]:
    squares = ((queries[:, None].astype(np.float64) - index[None].astype(np.float64)) ** 2).sum(2)
    exact = np.sqrt(squares).astype(np.float32)
    return [
        (i, j, float(exact[i, j])) for i, j in np.argwhere(exact <= np.float32(distance)).tolist()
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """Features with ties, near-duplicates, zero vectors; a distance that some pair may have."""
    dimensions = draw(st.sampled_from([3, 16, 40, 100]))
    index = features(draw(st.integers(1, 30)), draw(st.integers(0, 99)), dimensions)
    queries = features(draw(st.integers(1, 30)), draw(st.integers(100, 199)), dimensions)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    for row in range(0, len(queries), 3):
        noise = rng.normal(size=dimensions) * draw(st.sampled_from([0, 1e-4, 1e-2, 0.2]))
        queries[row] = (index[rng.integers(len(index))] + noise).astype(np.float16)
    if draw(st.booleans()):
        index[rng.integers(len(index))] = index[0]
        queries[rng.integers(len(queries))] = queries[0]
    if draw(st.booleans()):  # few pictures, each many times: most distances are ties
        index = index[rng.integers(min(len(index), 3), size=len(index))]
        queries = queries[rng.integers(min(len(queries), 3), size=len(queries))]
    if draw(st.booleans()):  # as short as no feature is
        index[::2] *= draw(st.sampled_from([0.1, 0.5, 0.9]))
        queries[::2] *= draw(st.sampled_from([0.1, 0.5, 0.9]))
    if draw(st.booleans()):
        queries[rng.integers(len(queries))] = 0
        index[rng.integers(len(index))] = 0
    if draw(st.booleans()):  # exactly the distance of a pair
        some = queries[rng.integers(len(queries))].astype(float) - index[rng.integers(len(index))]
        return index, queries, float(np.float32(math.sqrt((some**2).sum())))
    return index, queries, draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.4, 2.0]))


def arrange(
    patch: pytest.MonkeyPatch, dtype: torch.dtype, tile: int, widths: tuple[int, int] | None
) -> None:
    """Small blocks, and bounds of these widths where the features have so many; else the cheapest."""
    patch.setattr(neighbors, "_is_bfloat16_fast", lambda device: dtype == torch.bfloat16)
    patch.setattr(neighbors, "QUERIES", tile)
    patch.setattr(neighbors, "TILE", tile)
    patch.setattr(bounds, "GROUP", min(tile, 64))
    patch.setattr(bounds, "BLOCK", 7)
    patch.setattr(bounds, "MOST", 40)
    patch.setattr(neighbors, "COMPARED", 11)
    patch.setattr(neighbors, "WIDTHS", (6, 7, 13, 37, 69))
    if widths:
        patch.setattr(Neighbors, "_cost", lambda self, chosen, left: chosen != widths)


PRECISIONS = st.sampled_from([torch.float32, torch.bfloat16])
CHOSEN = st.sampled_from([None, (6, 6), (6, 13), (7, 37), (13, 13), (13, 69), (37, 37)])


@options(max_examples=100)
@given(cases(), PRECISIONS, st.sampled_from([4, 2048]), CHOSEN)
def test_pairs_and_distances_are_those_of_brute_force(case, dtype, tile, widths) -> None:
    index, queries, distance = case
    with pytest.MonkeyPatch.context() as patch:
        arrange(patch, dtype, tile, widths)
        assert search(index, queries, distance) == brute_force(index, queries, distance)


@options(max_examples=100)
@given(
    cases(), PRECISIONS, st.sampled_from([4, 16, 2048]), CHOSEN, st.sampled_from([0, 1, 2, 7, 1000])
)
def test_what_is_kept_is_that_of_brute_force_whatever_is_left_out(
    case, dtype, tile, widths, limit
) -> None:
    """The nearest, the first where there are ties, and the closest pairs, queries in blocks."""
    index, queries, distance = case
    pairs = brute_force(index, queries, distance)
    closest, nearest = Closest(limit), Nearest(len(queries))
    with pytest.MonkeyPatch.context() as patch:
        arrange(patch, dtype, tile, widths)
        search = Neighbors(index, distance)
        for start in range(0, len(queries), 13):
            block = queries[start : start + 13]
            for query, match, apart in search.within(block, lambda: closest.cut):
                nearest.add(start + query, match, apart)
                closest.add(apart, start + query, match)
    for query in range(len(queries)):
        own = min(((apart, match) for i, match, apart in pairs if i == query), default=(np.inf, -1))
        assert (nearest.distance[query], nearest.match[query]) == own
    kept = list(zip(*(column.tolist() for column in closest.sorted()), strict=True))
    assert kept == sorted((apart, i, j) for i, j, apart in pairs)[:limit]


def test_few_pairs_are_found_where_few_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(neighbors, "TILE", 128)
    monkeypatch.setattr(neighbors, "QUERIES", 128)
    index, queries = features(2000, 1, 24), features(2000, 2, 24)
    search, closest = Neighbors(index, 1.2), Closest(100)
    num_found = 0
    for query, match, apart in search.within(queries, lambda: closest.cut):
        closest.add(apart, query, match)
        num_found += len(query)
    num_close = sum(len(found.query) for found in search.within(queries))
    assert len(queries) <= num_found < num_close / 20


@pytest.mark.parametrize("widths", [(6, 6), (13, 13), (69, 69), (6, 13), (13, 69), (6, 69)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_bound_loses_a_pair(widths, dtype, monkeypatch) -> None:
    """At their tightest: pairs at all distances around the threshold."""
    arrange(monkeypatch, dtype, 64, widths)
    index = features(50, 1, 64)
    away = np.linspace(0.25, 0.35, 50)[:, None] * features(50, 2, 64)
    queries = (index + away).astype(np.float16)
    index_of = Neighbors(index, 0.3)
    found = [tuple(row) for p in index_of.within(queries) for row in zip(*p[:2], strict=True)]
    assert index_of.coarse.short.shape == (64, widths[0])
    assert (index_of.fine.short.shape[1] if index_of.fine else widths[0]) == widths[1]
    assert sorted(found) == [(i, j) for i, j, _ in brute_force(index, queries, 0.3)]
    assert 10 < len(found) < 45


def test_few_exact_distances_are_computed_where_bounds_decide(monkeypatch) -> None:
    """Of features that are mostly in few dimensions; the finer bound leaves fewer than the coarse."""
    spectrum = np.exp(-np.arange(64) / 8)
    index, queries = (features(700, seed, 64) * spectrum for seed in (1, 2))
    index, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (index, queries))
    found = Neighbors._distance
    counts: list[int] = []

    def counted(self, block, squares, query, match):
        counts.append(len(query))
        return found(self, block, squares, query, match)

    monkeypatch.setattr(Neighbors, "_distance", counted)
    computed = {}
    for widths in ((13, 13), (13, 37), (69, 69)):
        arrange(monkeypatch, torch.float32, 1024, widths)
        counts.clear()
        search(index.astype(np.float16), queries.astype(np.float16), 0.7)
        computed[widths] = sum(counts)
    assert computed[69, 69] <= computed[13, 37] < computed[13, 13] / 4
    assert computed[13, 37] < 1.2 * computed[69, 69]


@pytest.mark.parametrize(
    ("distance", "left", "expected"),
    [(0, 0, (6, None)), (1e9, 0, (6, 69)), (1e9, 1e9, (69, None))],
    ids=[
        "distances cost nothing",
        "distances cost all",
        "and so does whatever the coarse one leaves",
    ],
)
def test_the_widths_are_those_that_cost_least(distance, left, expected, monkeypatch) -> None:
    arrange(monkeypatch, torch.float32, 1024, None)
    monkeypatch.setattr(neighbors, "DISTANCE", distance)
    monkeypatch.setattr(neighbors, "LEFT", left)
    monkeypatch.setattr(neighbors, "FINER", 0)
    spread = features(400, 1, 64) * np.exp(-np.arange(64) / 30)
    spread = (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float16)
    chosen = Neighbors(spread[:200], 0.9)
    list(chosen.within(spread[200:]))
    fine = chosen.fine.short.shape[1] if chosen.fine else None
    assert (chosen.coarse.short.shape[1], fine) == expected


def test_pairs_are_those_of_faiss() -> None:
    index, queries = features(3000, 1, 64), features(5000, 2, 64)
    queries[:500] = index[:500]
    queries[500:1000] = (index[500:1000] + 0.03 * features(500, 3, 64)).astype(np.float16)
    flat = faiss.IndexFlatL2(64)
    flat.add(index.astype(np.float32))
    for distance in (0.02, 0.3, 0.8):
        limits, _, labels = flat.range_search(queries.astype(np.float32), distance**2)
        rows = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        found = [(i, j) for i, j, _ in search(index, queries, distance)]
        assert found == sorted(zip(rows.tolist(), labels.tolist(), strict=True))


def test_distances_are_exact_and_rounded_once() -> None:
    index, queries = features(5, 7, 33), features(6, 8, 33)
    for query, match, distance in search(index, queries, 2.0):
        differences = [
            Fraction(float(a)) - Fraction(float(b))
            for a, b in zip(queries[query], index[match], strict=True)
        ]
        square = sum(d * d for d in differences)
        assert Fraction(float(square)) == square  # a float64 holds it whole
        assert distance == float(np.float32(math.sqrt(float(square))))


def test_the_distance_of_equal_features_is_exactly_zero() -> None:
    same = features(5, 2)
    assert search(same, same, 0.0) == [(i, i, 0.0) for i in range(5)]


def test_every_match_of_one_image_is_found_not_only_the_closest() -> None:
    index = np.repeat(features(1, 3), 4, axis=0)
    assert [match for _, match, _ in search(index, index[:1], 0.1)] == [0, 1, 2, 3]

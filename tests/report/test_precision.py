import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semisup.report.precision import curve_edges, measure, table_edges
from semisup.selection import ranks_in_class

rows = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), max_size=80)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    class_ids, labels = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return class_ids, ranks_in_class(class_ids), labels


@given(rows)
def test_the_buckets_hold_every_row_once(pairs: list[tuple[int, int]]) -> None:
    found = measure(*columns(pairs))
    for buckets in (found.table, found.curve):
        assert sum(bucket.share.total for bucket in buckets) == len(pairs)
        assert sum(bucket.share.hits for bucket in buckets) == found.overall.hits
        assert sum(bucket.clutter for bucket in buckets) == found.clutter


@given(rows)
def test_the_classes_hold_every_row_once(pairs: list[tuple[int, int]]) -> None:
    found = measure(*columns(pairs))
    assert sum(share.total for share in found.by_class.values()) == len(pairs)
    assert sum(share.hits for share in found.by_class.values()) == found.overall.hits


def test_an_image_of_no_class_counts_as_wrong() -> None:
    found = measure(np.array([0, 0]), np.array([1, 2]), np.array([0, -1]))
    assert (found.overall, found.clutter) == ((1, 2), 1)


def test_precision_so_far_is_that_of_all_ranks_up_to_the_last() -> None:
    found = measure(np.zeros(4, int), np.arange(1, 5), np.array([0, 0, 1, 1]))
    assert [(b.last, b.so_far.value) for b in found.table] == [(1, 1.0), (2, 1.0), (4, 0.5)]


@given(st.integers(1, 20_000), st.integers(1, 10**6))
def test_the_last_bucket_ends_at_the_last_rank(length: int, num_rows: int) -> None:
    for edges in (table_edges(length), curve_edges(length, num_rows)):
        assert edges == sorted(set(edges))
        assert edges[-1] == length
        assert edges[0] >= 1

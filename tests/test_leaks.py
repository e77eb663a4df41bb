import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from semisup import schemas
from semisup.leaks import by_features, by_hash, by_pixels, joined

hashes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12)


def bits(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


@given(hashes, hashes, st.integers(0, 20), st.data())
def test_leaks_by_hash_are_those_of_comparing_all(ours, theirs, limit, data) -> None:
    for i, value in enumerate(theirs[: len(ours)]):  # some are near
        flips = data.draw(st.lists(st.integers(0, 62), max_size=4))
        for flip in flips:
            value ^= 1 << flip
        ours[i] = value
    evaluation = {"test": (np.arange(len(theirs)), np.array(theirs, np.int64))}
    found = by_hash(evaluation, np.array(ours, np.int64), limit)
    least = [min((bits(own, other) for other in ours), default=99) for own in theirs]
    assert found.identity.tolist() == [i for i, n in enumerate(least) if n <= limit]
    assert found.distance.tolist() == [n for n in least if n <= limit]


def pairs(rows: list[tuple]) -> pa.Table:
    names = ["sample_index", "evaluation_dataset", "evaluation_sample_index", "distance"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns |= {"shard_id": [0] * len(rows), "evaluation_shard_id": [0] * len(rows)}
    columns |= {"key": ["u"] * len(rows), "evaluation_key": ["t"] * len(rows)}
    names = schemas.DUPLICATES.names
    return pa.table({name: columns[name] for name in names}, schema=schemas.DUPLICATES)


def told(hashes: list[int]) -> pa.Table:
    columns = {"shard_id": [0] * len(hashes), "sample_index": range(len(hashes))}
    table = pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()})
    return table.append_column("pixel_hash", packed(hashes))


def packed(hashes: list[int]) -> pa.Array:
    return pa.array([value.to_bytes(16) for value in hashes], pa.binary(16))


def test_every_image_with_the_same_pixels_is_leaked() -> None:
    leak = by_pixels({"test": told([3, 1, 3]), "other": told([2, 3])}, packed([3, 5, 3]))
    assert leak.dataset.tolist() == ["other", "test", "test"]
    assert leak.identity.tolist() == [1, 0, 2]
    assert leak.distance.tolist() == [0, 0, 0]


def test_leaks_of_both_kinds_together_are_each_there_once() -> None:
    same = by_pixels({"test": told([9, 9, 3, 3])}, packed([3]))
    leak = joined([by_features(pairs(ROWS), 0.3), same])
    assert leak.dataset.tolist() == ["other", "test", "test", "test"]
    assert leak.identity.tolist() == [2, 0, 2, 3]
    assert leak.distance.tolist() == np.array([0.2, 0.3, 0, 0], np.float32).tolist()


ROWS = [(5, "test", 2, 0.1), (6, "test", 2, 0.2), (6, "other", 2, 0.2), (7, "test", 0, 0.3)]


def test_an_evaluation_image_is_leaked_once_by_its_closest() -> None:
    leak = by_features(pairs(ROWS), cut=0.2)
    assert leak.dataset.tolist() == ["other", "test"]
    assert leak.identity.tolist() == [2, 2]
    assert leak.distance.tolist() == np.array([0.2, 0.1], np.float32).tolist()


def test_only_what_is_learned_from_leaks() -> None:
    leak = by_features(pairs(ROWS), cut=1.0, learned=np.array([6, 7]))
    assert leak.dataset.tolist() == ["other", "test", "test"]
    assert leak.identity.tolist() == [2, 0, 2]
    assert len(by_features(pairs(ROWS), 1.0, np.array([], np.int64)).identity) == 0

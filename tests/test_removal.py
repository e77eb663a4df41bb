"""Which images may not be selected, from tables written here."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Dataset, make_jpeg
from semisup import removal, schemas, tables, tars
from semisup.config import Remove
from semisup.removal import Recorded, removed_images
from semisup.selection import closest_images
from semisup.tables import DataError

DISTANCES = {0: 0.1, 1: 0.2, 2: 0.2, 3: 0.4, 4: 0.5}  # of samples of shard 0
HEADER = "shard_id,sample_index,key,decision\n"
HASHES = [tars.content_hash(make_jpeg(i)).hex() for i in range(9)]


@pytest.fixture
def manifests(make_dataset: Dataset) -> list[Path]:
    return make_dataset([[(f"k{i}", {"jpg": make_jpeg(i)}) for i in range(9)]], None, "u")


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    match = {"evaluation_dataset": ["test"] * 5, "evaluation_shard_id": [0] * 5}
    match |= {"evaluation_sample_index": range(5), "shard_id": [0] * 5}
    nearest = {"sample_index": list(DISTANCES), "distance": list(DISTANCES.values()), **match}
    tables.write_table(tmp_path / "nearest.parquet", nearest, schemas.NEAREST)
    # Sample 4 has the pixels of a test image, 5 of one and of sample 4; 6 of 5, 7 is close to 5.
    copies = {"shard_id": [0] * 4, "sample_index": [4, 5, 5, 6], "same": ["pixels"] * 4}
    copies |= {"first_dataset": ["test", "test", "u", "u"], "first_shard_id": [0] * 4}
    copies |= {"first_sample_index": [4, 4, 4, 5]}
    tables.write_table(tmp_path / "copies.parquet", copies, schemas.COPIES)
    near = {"shard_id": [0], "sample_index": [7], "first_shard_id": [0], "first_sample_index": [5]}
    near["distance"] = np.array([0.01], np.float32)
    tables.write_table(tmp_path / "near.parquet", near, schemas.NEAR_COPIES)
    # Sample 1 is 0.2 from test image 1, 0.3 from 7; of sample 0 the closest pair stood beyond the bound.
    pairs = {name: ["u"] * 2 for name in ("key", "evaluation_key")} | {"shard_id": [0] * 2}
    pairs |= {"evaluation_dataset": ["test"] * 2, "evaluation_shard_id": [0] * 2}
    pairs |= {"sample_index": [1, 1], "evaluation_sample_index": [1, 7], "distance": [0.2, 0.3]}
    tables.write_table(tmp_path / "pairs.parquet", pairs, schemas.DUPLICATES)
    names = [[tmp_path / f"{name}.parquet"] for name in ("nearest", "pairs", "copies", "near")]
    return Recorded(*names, reviewed=[])


def removed(recorded: Recorded, manifests: list[Path], **rules: object) -> dict[int, str]:
    rules = {"evaluation_copies": False, "copies": False, "near_copies": False, **rules}
    found = removed_images(Remove.model_validate(rules), recorded, manifests)
    return dict(zip(found.identity.tolist(), found.reason.tolist(), strict=True))


NEAR, SAME = "duplicate_of_evaluation", "copy_of_evaluation"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {}),
        ({"closest": 2}, {0: NEAR, 1: NEAR}),  # a tie: the first identity
        ({"max_distance": 0.2}, {0: NEAR, 1: NEAR, 2: NEAR}),
        ({"closest": 4, "max_distance": 0.1}, dict.fromkeys(range(4), NEAR)),
        ({"evaluation_copies": True}, {4: SAME, 5: SAME}),
        ({"evaluation_copies": True, "closest": 9},
         {**dict.fromkeys(range(4), NEAR), 4: SAME, 5: SAME}),
        ({"copies": True, "near_copies": True}, {5: "copy", 6: "copy", 7: "near_copy"}),
        ({"copies": True, "evaluation_copies": True}, {4: SAME, 5: SAME, 6: "copy"}),
    ],
)  # fmt: skip
def test_each_rule_removes_what_it_says(recorded, manifests, rules, expected) -> None:
    assert removed(recorded, manifests, **rules) == expected


@pytest.mark.parametrize(("closest", "warns"), [(5, False), (6, True)])
def test_fewer_images_recorded_than_shall_be_removed_are_said(
    recorded, manifests, caplog, closest, warns
) -> None:
    assert len(removed(recorded, manifests, closest=closest)) == 5
    text = (
        "duplicates.remove.closest is 6, but only 5 images are close enough to be recorded: raise"
    )
    assert (text in caplog.text) == warns


@pytest.mark.parametrize(
    ("closest", "max_distance"), [(0, None), (1, None), (40, 0.3), (40, 0.1), (999, None), (0, 0.5)]
)
def test_the_closest_of_all_parts_are_found_a_piece_at_a_time(
    tmp_path, monkeypatch, closest, max_distance
) -> None:
    rng, paths, largest = np.random.default_rng(4), [], []
    for part in range(5):
        distance = rng.integers(0, 50, 100).astype(np.float32) / 64  # ties are the rule
        columns = {"shard_id": [part] * 100, "sample_index": range(100), "distance": distance}
        columns |= {"evaluation_dataset": ["test"] * 100, "evaluation_shard_id": [0] * 100}
        paths.append(tmp_path / f"nearest-{part}.parquet")
        tables.write_table(
            paths[-1], columns | {"evaluation_sample_index": [0] * 100}, schemas.NEAREST
        )
    pieces = list(zip(*removal.read_nearest(paths), strict=True))
    expected = closest_images(*map(np.concatenate, pieces), closest, max_distance)

    def seen(identities: np.ndarray, *rest: object) -> tuple[np.ndarray, np.ndarray]:
        largest.append(len(identities))
        return closest_images(identities, *rest)

    monkeypatch.setattr(removal, "closest_images", seen)
    monkeypatch.setattr(removal, "WAITING", 60)
    found = removal.read_closest(paths, closest, max_distance)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert max(largest) <= max(100, len(found[0])) + 100 + len(found[0])


def test_without_rules_nothing_is_read() -> None:
    nowhere = [Path("nowhere")]
    assert len(removed_images(None, Recorded(*[nowhere] * 5), [])) == 0


def reviewed(recorded: Recorded, tmp_path: Path, lines: str) -> Recorded:
    path = tmp_path / "reviewed.csv"
    path.write_text(lines)
    return recorded._replace(reviewed=[path])


def test_a_review_overrides_distances_and_evaluation_copies_but_not_copies(
    recorded, manifests, tmp_path
) -> None:
    lines = "0,0,k0,keep\n0,4,k4,keep\n0,5,k5,keep\n0,6,k6,keep\n0,3,k3,remove\n0,8,k8,remove\n"
    recorded = reviewed(recorded, tmp_path, HEADER + lines)
    rules = {"closest": 2, "evaluation_copies": True, "copies": True}
    found = {1: NEAR, 3: NEAR, 5: "copy", 6: "copy", 8: NEAR}
    assert removed(recorded, manifests, **rules) == found


def test_an_image_close_to_two_evaluation_images_is_removed_if_one_row_says_so(
    recorded, manifests, tmp_path
) -> None:
    recorded = reviewed(recorded, tmp_path, HEADER + "0,1,k1,keep\n0,1,k1,remove\n0,2,k2,keep\n")
    assert removed(recorded, manifests) == {1: NEAR}


PAIRS = "shard_id,sample_index,evaluation_dataset,evaluation_shard_id,evaluation_sample_index,decision\n"


@pytest.mark.parametrize(
    ("lines", "rules", "expected"),
    [
        ("0,1,test,0,1,keep\n", {"max_distance": 0.25}, {0, 2}),
        ("0,1,test,0,1,keep\n", {"max_distance": 0.3}, {0, 1, 2}),  # of pair 1, 7 nothing is said
        ("0,1,test,0,1,keep\n0,1,test,0,7,keep\n", {"max_distance": 0.3}, {0, 2}),
        ("0,1,test,0,7,keep\n", {"max_distance": 0.3}, {0, 1, 2}),
        ("0,1,more,0,1,keep\n", {"max_distance": 0.3}, {0, 1, 2}),  # an image of another set
        ("0,1,test,0,1,keep\n", {"closest": 4}, {0, 1, 2, 3}),
        ("0,1,test,0,1,keep\n", {"closest": 3}, {0, 2}),
        ("0,0,test,0,0,keep\n0,2,test,0,2,remove\n", {"closest": 2}, {1, 2}),
        ("0,1,test,0,7,keep\n", {"closest": 2, "max_distance": 0.0}, {0, 1}),
        ("0,4,test,0,3,keep\n", {"evaluation_copies": True}, {4, 5}),
        ("0,4,test,0,4,keep\n", {"evaluation_copies": True}, {5}),
        ("0,4,test,0,3,keep\n0,8,test,0,3,remove\n", {}, {8}),
    ],
)  # fmt: skip
def test_a_keep_clears_the_pair_it_names_and_no_other(
    recorded, manifests, tmp_path, lines, rules, expected
) -> None:
    recorded = reviewed(recorded, tmp_path, PAIRS + lines)
    assert set(removed(recorded, manifests, **rules)) == expected


def test_images_that_go_in_spite_of_a_keep_are_counted(
    recorded, manifests, tmp_path, caplog
) -> None:
    recorded = reviewed(recorded, tmp_path, PAIRS + "0,1,test,0,1,keep\n0,0,test,0,0,keep\n")
    with caplog.at_level("INFO", "semisup"):
        assert set(removed(recorded, manifests, max_distance=0.3)) == {1, 2}
    assert "1 images with a keep go: a rule holds for another pair of theirs" in caplog.text


def test_the_distance_is_that_to_the_closest_evaluation_image_where_it_is_recorded(
    recorded, manifests, tmp_path
) -> None:
    recorded = reviewed(recorded, tmp_path, HEADER + "0,8,k8,remove\n")
    found = removed_images(Remove(closest=1), recorded, manifests)
    known = dict(zip(found.identity.tolist(), found.distance.tolist(), strict=True))
    assert known[0] == np.float32(0.1)
    assert known[4] == np.float32(0.5)
    assert np.isnan(known[6]) and np.isnan(known[8])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "0,9,k9,remove\n3,0,far,keep\n0,1,k1,keep\n",
         r"2 images are not in U: k9 \(sample 9 of shard 0\), far \(sample 0 of shard 3\)"),
        (HEADER + "0,1,k2,remove\n0,2,k2,keep\n",
         r"1 unknown keys: 'k2' \(sample 1 of shard 0 is 'k1'\)\. The list was made for another"),
        ("shard_id,sample_index,decision\n0,99,remove\n", "1 images are not in U: image "),
        (HEADER + "0,1,k1,maybe\n", "decision must be keep or remove, not .'maybe'"),
        (HEADER + "0,one,k1,keep\n", r"line 2: .* must be whole numbers from 0, not '0' and 'one'"),
        (HEADER + "0,1,k1,keep\n-1,1,k1,keep\n", "line 3: .* not '-1' and '1'"),
        (HEADER + "0,1.5,k1,keep\n", "line 2: .* not '0' and '1.5'"),
        ("shard_id,decision\n0,keep\n", "columns .'sample_index'. are missing"),
        (PAIRS + "0,1,test,0,,keep\n", "evaluation_sample_index must be .* not '0' and ''"),
        ("shard_id,sample_index,evaluation_dataset,decision\n0,1,test,keep\n",
         "columns .'evaluation_shard_id', 'evaluation_sample_index'. are missing"),
        ("dataset," + HEADER + "u,0,1,k1,keep\n,0,1,k1,keep\n", "line 3: dataset is empty"),
        ("content_hash," + HEADER + f"{HASHES[1]},0,1,k1,keep\n{HASHES[1]},0,2,k2,keep\n",
         r"1 images have other bytes than content_hash says: k2 \(sample 2 of shard 0\)\. The list"),
        ("", "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_a_wrong_review_is_refused(recorded, manifests, tmp_path, content, message) -> None:
    with pytest.raises(DataError, match=message):
        removed(reviewed(recorded, tmp_path, content), manifests)


def test_a_list_without_decisions_changes_nothing(recorded, manifests, tmp_path) -> None:
    assert removed(reviewed(recorded, tmp_path, HEADER), manifests, closest=1) == {0: NEAR}


def test_rows_about_another_dataset_are_left_out(recorded, manifests, tmp_path, caplog) -> None:
    lines = "u,0,1,k1,remove\nother,0,2,k2,remove\nother,7,7,far,keep\n"
    with caplog.at_level("INFO", "semisup"):
        assert removed(reviewed(recorded, tmp_path, "dataset," + HEADER + lines), manifests) == {
            1: NEAR
        }
    assert "2 rows are about other, not u" in caplog.text
    header = "dataset,content_hash," + HEADER
    assert removed(reviewed(recorded, tmp_path, header + "other,x,0,2,k2,keep\n"), manifests) == {}


def test_a_list_of_other_bytes_is_told_though_keys_repeat(make_dataset, recorded, tmp_path) -> None:
    """A tar put before the others moves every image by one shard."""
    shards = [[(f"{i:04d}", {"jpg": make_jpeg(10 * s + i)}) for i in range(2)] for s in range(3)]
    of_second = tars.content_hash(shards[1][0][1]["jpg"]).hex()
    lines = f"shard_id,sample_index,key,content_hash,decision\n0,0,0000,{of_second},remove\n"
    recorded = reviewed(recorded, tmp_path, lines)
    assert removed(recorded, make_dataset(shards[1:], None, "u")) == {0: NEAR}
    with pytest.raises(DataError, match=r"1 images have other bytes .* 0000 \(sample 0 of shard 0"):
        removed(recorded, make_dataset(shards, None, "u"))


def test_at_most_twenty_unknown_images_are_listed(recorded, manifests, tmp_path) -> None:
    lines = "".join(f"5,{i},x{i},keep\n" for i in range(30))
    with pytest.raises(DataError, match=r"30 images are not in U: x0 .*x19 .* and 10 more"):
        removed(reviewed(recorded, tmp_path, HEADER + lines), manifests)


def test_keys_that_look_like_numbers_or_nothing_are_text(make_dataset, recorded, tmp_path) -> None:
    samples = [(key, {"jpg": make_jpeg(i)}) for i, key in enumerate(("007", "NA", "1e3"))]
    manifests = make_dataset([samples], None, "u2")
    lines = HEADER + "0,0,007,keep\n0,1,NA,remove\n0,2,1e3,keep\n"
    assert removed(reviewed(recorded, tmp_path, lines), manifests) == {1: NEAR}

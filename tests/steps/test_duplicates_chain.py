"""extract_features, find_duplicates, merge_duplicates and find_copies, one after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from searched_sets import (
    DESCRIBE,
    OTHER,
    TEST,
    UNLABELED,
    Searched,
    describe,
    digest,
    make_network,
    search,
)

from conftest import Dataset, make_jpeg
from semisup import loader, models, schemas, tables, tars
from semisup.copies import Source, same_pixels
from semisup.features import read_all
from semisup.images import ImageError
from semisup.steps import extract_features
from semisup.tables import DataError

network = pytest.fixture(make_network, name="network")
searched = pytest.fixture(search, name="searched")


def test_a_part_does_not_discard_what_another_makes_of_an_equal_tar(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = [(str(i), {"jpg": make_jpeg(i)}) for i in range(3)]
    manifests = make_dataset([tar, tar], None)
    write_part = extract_features.write_part

    def write_second_after_first(*arguments: Any) -> None:
        monkeypatch.setattr(extract_features, "write_part", write_part)
        describe(tmp_path / "features", manifests[:1], network)
        write_part(*arguments)

    monkeypatch.setattr(extract_features, "write_part", write_second_after_first)
    outputs = [tmp_path / "features" / f"{name}-00001.parquet" for name in ("part", "images")]
    extract_features.main(DESCRIBE, manifests[1], network, *outputs, 0)
    first, second = (
        pd.read_parquet(tmp_path / "features" / f"part-0000{part}.parquet") for part in range(2)
    )
    assert len(first) == 3
    assert first.feature.tolist() == second.feature.tolist()
    assert not list((tmp_path / "features" / "work").iterdir())


def test_all_pairs_are_there_closest_first_with_keys_of_both(searched: Searched) -> None:
    pairs = searched.table("pairs")
    assert len(pairs) == 22 * 10  # two of 24 images are broken
    order = ["distance", "shard_id", "sample_index", "evaluation_dataset", "evaluation_shard_id"]
    order.append("evaluation_sample_index")
    assert pairs.equals(pairs.sort_values(order, ignore_index=True))
    ours = {(s, i): key for s, shard in enumerate(UNLABELED) for i, (key, _) in enumerate(shard)}
    theirs = {("test", i // 3, i % 3): key for i, (key, _) in enumerate(TEST)}
    theirs |= {("other", 0, i): key for i, (key, _) in enumerate(OTHER)}
    for row in pairs.itertuples():
        assert row.key == ours[row.shard_id, row.sample_index]
        found = row.evaluation_dataset, row.evaluation_shard_id, row.evaluation_sample_index
        assert row.evaluation_key == theirs[found]


def test_equal_keys_in_two_evaluation_sets_are_two_images(searched: Searched) -> None:
    pairs = searched.table("pairs")
    same = pairs[(pairs.key == "the bytes of test 2") & (pairs.evaluation_key == "t2")]
    assert set(same.evaluation_dataset) == {"test", "other"}
    closest = same.loc[same.distance.idxmin()]
    assert closest.evaluation_dataset == "test"
    assert closest.distance < 1e-3 < same.distance.max()


def test_the_nearest_of_each_image_is_its_first_pair(searched: Searched) -> None:
    identity = ["shard_id", "sample_index"]
    first = searched.table("pairs").groupby(identity, as_index=False).first()
    pd.testing.assert_frame_equal(searched.nearest(), first[searched.nearest().columns])


def test_pairs_do_not_depend_on_parts(
    searched: Searched, tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    other = Searched(tmp_path / "parts", make_dataset, network, per_part=1)
    for name in ("pairs.parquet", "copies.parquet"):
        assert digest(other.folder / name) == digest(searched.folder / name)
    pd.testing.assert_frame_equal(other.nearest(), searched.nearest())


def test_a_bound_keeps_the_closest_of_all_parts_and_the_nearest_of_every_image(
    searched: Searched, tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    few = Searched(tmp_path / "few", make_dataset, network, per_part=1, limit=7)
    pd.testing.assert_frame_equal(few.table("pairs"), searched.table("pairs").head(7))
    pd.testing.assert_frame_equal(few.nearest(), searched.nearest())


def test_images_that_are_the_same_are_found_by_bytes_and_by_pixels(searched: Searched) -> None:
    copies = searched.table("copies").set_index(["shard_id", "sample_index"])
    first = ["first_dataset", "first_shard_id", "first_sample_index", "same"]
    assert {i: tuple(row) for i, row in copies[first].iterrows()} == {
        (0, 1): ("test", 0, 2, "bytes"),
        (1, 2): ("other", 0, 3, "pixels"),
        (2, 0): ("unlabeled", 0, 4, "pixels"),
        (2, 3): ("unlabeled", 0, 4, "bytes"),
    }


def test_every_image_has_a_status_and_broken_ones_are_not_called_clean(searched: Searched) -> None:
    images = pd.read_parquet(searched.folder / "u" / "images-00000.parquet")
    assert len(images) == 24
    assert images.status.value_counts().to_dict() == {"ok": 22, "truncated_image": 2}
    assert (images[images.status != "ok"].reason != "").all()


def test_an_image_of_which_the_descriptor_says_nothing_is_recorded(
    tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    weights = models.load(network)
    last = [name for name in weights.state if name.endswith("bn2.bias")][-1]
    weights.state[last].fill_(-1000.0)  # what follows is ReLU
    models.save(network, weights)
    shard = [UNLABELED[1][4], UNLABELED[1][5]]
    describe(tmp_path / "u", make_dataset([shard], None), network)
    images = pd.read_parquet(tmp_path / "u" / "images-00000.parquet")
    assert images.status.tolist() == ["zero_feature", "truncated_image"]
    assert images.reason[0] == "the descriptor gives only zeros"
    assert len(tables.read_table(tmp_path / "u" / "part-00000.parquet", schemas.FEATURES)) == 0


def test_an_image_that_cannot_be_read_is_not_left_out_of_the_comparison(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may be scored, and selected, when the disk is back."""

    def fail(*_: object) -> bytes:
        raise ImageError(tars.READ_ERROR, "a.tar: Input/output error")

    manifests = make_dataset([UNLABELED[0]], None)
    with monkeypatch.context() as broken:
        broken.setattr(loader, "read_indexed", fail)
        with pytest.raises(
            DataError, match=r"images could not be read: a\.tar: Input/output error"
        ):
            describe(tmp_path / "u", manifests, network)
    assert not (tmp_path / "u" / "part-00000.parquet").exists()
    describe(tmp_path / "u", manifests, network)


def test_features_that_are_not_finite_are_refused_naming_shard_and_network(
    tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    weights = models.load(network)
    weights.state["stem.0.weight"][0] = float("nan")
    models.save(network, weights)
    with pytest.raises(DataError, match=r"00000\.tar: .* not finite; the weights are bad \(cifar"):
        describe(tmp_path / "u", make_dataset(UNLABELED[:1], None), network)


def test_an_evaluation_set_with_nothing_to_compare_is_refused(
    tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    manifests = make_dataset([[("a", {"jpg": b"no image", "cls": b"0"})]], 3, "test")
    first = describe(tmp_path / "test", manifests, network)
    with pytest.raises(DataError, match="none of the images could be described"):
        read_all([first])


def test_corrupt_images_of_an_evaluation_set_are_left_out_and_recorded(
    tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    shards = [[TEST[0], ("bad", {"jpg": b"no image", "cls": b"0"}), TEST[1]]]
    first = describe(tmp_path / "test", make_dataset(shards, 3, "test"), network)
    assert read_all([first]).identity.tolist() == [0, 2]
    images = pd.read_parquet(tmp_path / "test" / "images-00000.parquet")
    assert images.status.tolist() == ["ok", "not_an_image", "ok"]


def images_with(path: Path, hashes: list[int]) -> Path:
    """What is told of images of one shard whose pixels these numbers stand for."""
    columns = {"shard_id": [0] * len(hashes), "sample_index": range(len(hashes))}
    columns |= {"pixel_hash": [np.array([h, 1], np.uint64).tobytes() for h in hashes]}
    columns |= {"perceptual_hash": hashes, "status": ["ok"] * len(hashes)}
    tables.write_table(path, columns | {"reason": [""] * len(hashes)}, schemas.DESCRIBED)
    return path


def test_a_copy_is_told_of_each_dataset_that_holds_the_same(tmp_path: Path) -> None:
    """Two images of U that are an evaluation image are copies of each other too."""
    hashes = {"other": [8, 5], "test": [5, 7, 7], "u": [1, 7, 7, 1, 5]}
    sources = [
        Source(name, [images_with(tmp_path / name, numbers)], [])
        for name, numbers in hashes.items()
    ]
    for at_a_time in (100, 2):
        found = same_pixels(sources, at_a_time)
        rows = zip(*(column.tolist() for column in found), strict=True)
        assert list(rows) == [(1, 1, 1), (2, 1, 1), (2, 2, 1), (3, 2, 0), (4, 0, 1), (4, 1, 0)]


def test_rounds_of_hashes_find_the_same_copies(searched: Searched) -> None:
    sources = [
        Source(name, [searched.folder / folder / "images-00000.parquet"], [])
        for name, folder in (("other", "other"), ("unlabeled", "u"))
    ]
    whole, rounds = same_pixels(sources), same_pixels(sources, at_a_time=3)
    assert len(whole.copy)
    for one, other in zip(whole, rounds, strict=True):
        assert np.array_equal(one, other)

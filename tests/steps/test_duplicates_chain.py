"""extract_features, find_duplicates, merge_duplicates, find_copies, and both passes in one."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import Dataset, make_jpeg
from semisup import loader, models, passes, schemas, settings, tables, tars, transforms
from semisup.copies import Source, same_pixels
from semisup.features import read_all
from semisup.images import ImageError
from semisup.planted import KINDS
from semisup.steps import (
    calibrate_duplicates,
    extract_features,
    find_copies,
    find_duplicates,
    measure_leaks,
    merge_duplicates,
    score_and_describe,
    score_shards,
)
from semisup.tables import DataError
from small import encode, square

CLASSES = ["ant", "bee", "cow"]
DESCRIBE = settings.ExtractFeatures(batch_size=3, precision="float32")
SCORE = settings.ScoreShards(classes_per_image=2, batch_size=3, precision="float32")


def repacked(content: bytes) -> bytes:
    """The same pixels in another file."""
    return encode(loader.decode(content).numpy().transpose(1, 2, 0))


TEST = [(f"t{i}", {"jpg": make_jpeg(1000 + i), "cls": b"1"}) for i in range(6)]
OTHER = [(f"t{i}", {"jpg": make_jpeg(2000 + i), "cls": b"1"}) for i in range(4)]  # the same keys
UNLABELED = [[(f"u{s}-{i}", {"jpg": make_jpeg(100 * s + i)}) for i in range(8)] for s in range(3)]
UNLABELED[0][1] = ("the bytes of test 2", TEST[2][1])
UNLABELED[1][2] = ("the pixels of other 3", {"png": repacked(OTHER[3][1]["jpg"])})
UNLABELED[1][5] = ("broken", {"jpg": make_jpeg(1)[:-40]})
UNLABELED[2][0] = ("the pixels of u0-4", {"png": repacked(UNLABELED[0][4][1]["jpg"])})
UNLABELED[2][3] = ("the bytes of u0-4", UNLABELED[0][4][1])
UNLABELED[2][6] = ("broken again", {"jpg": make_jpeg(1)[:-40]})


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save(tmp_path / "weights.pt", square(12), seed=3)


def save(path: Path, how: settings.Preprocessing, seed: int) -> Path:
    torch.manual_seed(seed)
    model = models.build("cifar_resnet8_w4", len(CLASSES))
    models.save(path, models.Weights("cifar_resnet8_w4", how, CLASSES, model.state_dict()))
    return path


def describe(folder: Path, manifests: list[Path], network: Path) -> Path:
    """The features of a dataset in a folder; returns that of the first part."""
    for part, manifest in enumerate(manifests):
        extract_features.main(
            DESCRIBE, manifest, network,
            folder / f"part-{part:05d}.parquet", folder / f"images-{part:05d}.parquet", 0,
        )  # fmt: skip
    return folder / "part-00000.parquet"


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


class Searched:
    """U and two evaluation sets, described and searched."""

    def __init__(
        self, folder: Path, make: Dataset, network: Path, per_part: int = 3, limit: int = 1000
    ) -> None:
        self.folder = folder
        sets = {"other": make([OTHER], 3, "other"), "test": make([TEST[:3], TEST[3:]], 3, "test")}
        self.manifests = make(UNLABELED, None, "unlabeled", per_part)
        self.evaluation = {name: len(manifests) for name, manifests in sets.items()}
        firsts = [describe(folder / name, sets[name], network) for name in sorted(sets)]
        describe(folder / "u", self.manifests, network)
        for part, manifest in enumerate(self.manifests):
            find_duplicates.main(
                settings.FindDuplicates(
                    record_distance=2.0, max_pairs=limit, evaluation=self.evaluation
                ),
                manifest,
                folder / "u" / f"part-{part:05d}.parquet",
                firsts,
                [sets[name][0] for name in sorted(sets)],
                folder / f"part-{part:05d}.parquet",
                folder / f"nearest-{part:05d}.parquet",
                1,
            )
        merge_duplicates.main(
            settings.MergeDuplicates(num_parts=len(self.manifests), max_pairs=limit),
            folder / "part-00000.parquet",
            folder / "pairs.parquet",
        )
        find_copies.main(
            settings.FindCopies(num_parts=len(self.manifests), evaluation=self.evaluation),
            folder / "u" / "images-00000.parquet",
            self.manifests[0],
            [folder / name / "images-00000.parquet" for name in sorted(sets)],
            [sets[name][0] for name in sorted(sets)],
            folder / "copies.parquet",
        )

    def nearest(self) -> pd.DataFrame:
        paths = sorted(self.folder.glob("nearest-*"))
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")


@pytest.fixture
def searched(tmp_path: Path, make_dataset: Dataset, network: Path) -> Searched:
    return Searched(tmp_path / "run", make_dataset, network)


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


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


NAMES = ["scores/part", "scores/images", "u/part", "u/images"]


def both_in_one(folder: Path, manifest: Path, teacher: Path, descriptor: Path) -> list[Path]:
    paths = [folder / f"{name}-00000.parquet" for name in NAMES]
    made_of = settings.ScoreAndDescribe(score=SCORE, describe=DESCRIBE)
    score_and_describe.main(made_of, manifest, teacher, descriptor, *paths, 0)
    return paths


def one_by_one(folder: Path, manifest: Path, teacher: Path, descriptor: Path) -> list[Path]:
    paths = [folder / f"{name}-00000.parquet" for name in NAMES]
    score_shards.main(SCORE, manifest, teacher, *paths[:2], 0)
    extract_features.main(DESCRIBE, manifest, descriptor, *paths[2:], 0)
    return paths


@pytest.mark.parametrize(
    "other",
    [None, square(12), square(9), square(12).model_copy(update={"interpolation": "bicubic"})],
)
def test_one_pass_makes_the_bytes_of_two(
    other: settings.Preprocessing | None, tmp_path: Path, make_dataset: Dataset, network: Path
) -> None:
    """The descriptor is the teacher, or another network for images that are resized alike or not."""
    descriptor = save(tmp_path / "descriptor.pt", other, seed=4) if other else network
    (manifest,) = make_dataset(UNLABELED, None, "unlabeled", 3)
    alone = one_by_one(tmp_path / "alone", manifest, network, descriptor)
    together = both_in_one(tmp_path / "together", manifest, network, descriptor)
    assert [digest(path) for path in together] == [digest(path) for path in alone]


def test_the_same_network_looks_once(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch
) -> None:
    made, original = [], models.observer
    monkeypatch.setattr(models, "observer", lambda *a: made.append(a) or original(*a))
    (manifest,) = make_dataset(UNLABELED[:1], None)
    both_in_one(tmp_path / "one", manifest, network, network)
    assert len(made) == 1
    both_in_one(tmp_path / "two", manifest, network, save(tmp_path / "d.pt", square(12), seed=4))
    assert len(made) == 3


def test_one_pass_that_is_killed_goes_on_with_the_same_bytes(
    tmp_path: Path, make_dataset: Dataset, network: Path, monkeypatch
) -> None:
    (manifest,) = make_dataset(UNLABELED, None, "unlabeled", 3)
    calm = both_in_one(tmp_path / "calm", manifest, network, network)
    original = tables.write_table
    third = tables.read_json(manifest)["shards"][2]["sha256"][:32]

    def die_at_the_third_shard(path: Path, *arguments, **keywords) -> None:
        if path.name.startswith(third):
            raise KeyboardInterrupt
        original(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_table", die_at_the_third_shard)
        with pytest.raises(KeyboardInterrupt):
            both_in_one(tmp_path / "killed", manifest, network, network)
    assert not list((tmp_path / "killed").rglob("*-00000.parquet"))
    again, made = [], passes._make
    monkeypatch.setattr(passes, "_make", lambda *a: again.append(a[1]) or made(*a))
    resumed = both_in_one(tmp_path / "killed", manifest, network, network)
    assert again == [[2]]
    assert [digest(path) for path in resumed] == [digest(path) for path in calm]


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


@pytest.fixture
def leaked(searched: Searched, network: Path) -> Path:
    """The folder of results of the searched sets, as measure_leaks finds it."""
    results = searched.folder / "results"
    for name, folder in (("unlabeled", "u"), ("test", "test"), ("other", "other")):
        (results / "features" / "net").mkdir(parents=True, exist_ok=True)
        (results / "features" / "net" / name).symlink_to(searched.folder / folder)
    (results / "duplicates").mkdir()
    (results / "duplicates" / "unlabeled").symlink_to(searched.folder)
    chosen = [(0, 1), (1, 2), (2, 7)]
    columns: dict[str, object] = {name: [""] * 3 for name in ("key", "shard", "extension")}
    columns |= {name: [1] * 3 for name in ("class_rank", "prediction_rank", "offset", "size_bytes")}
    columns |= {"class_id": [0] * 3, "class_name": ["ant"] * 3, "score": [0.5] * 3}
    columns |= {"log_odds": [0.0] * 3, "content_hash": [bytes(16)] * 3}
    columns |= {"shard_id": [s for s, _ in chosen], "sample_index": [i for _, i in chosen]}
    path = results / "selections" / "top" / "selection.parquet"
    tables.write_table(path, columns, schemas.SELECTION)
    return results


def measure(results: Path, **changes: object) -> tuple[pd.DataFrame, dict]:
    made_of = {
        "descriptor": "net",
        "leak_distance": None, "record_distance": 2.0, "max_pairs": 1000,
        "remove": {"max_distance": 0.001}, "evaluation": ["other", "test"], "labelled": [],
        "unlabeled": ["unlabeled"], "selections": {"top": "unlabeled"},
        "num_parts": {"unlabeled": 1, "test": 2, "other": 1}, **changes,
    }  # fmt: skip
    leaks, summary = results / "duplicates/leaks.parquet", results / "duplicates/leaks.json"
    measure_leaks.main(settings.MeasureLeaks.model_validate(made_of), results, leaks, summary)
    return pd.read_parquet(leaks), tables.read_json(summary)


def test_leaks_are_found_in_u_and_in_what_was_selected_by_both_descriptors(leaked: Path) -> None:
    leaks, summary = measure(leaked)
    images = ["evaluation_dataset", "evaluation_shard_id", "evaluation_sample_index"]
    found = {
        where: sorted(map(tuple, rows[images].to_numpy().tolist()))
        for where, rows in leaks.groupby(["source", "by"])
    }
    both = [("other", 0, 3), ("test", 0, 2)]
    assert found[("unlabeled", "features")] == both
    assert found[("top", "features")] == both
    assert set(found[("top", "perceptual hash")]) >= set(both)
    assert ("unlabeled", "perceptual hash") not in found
    assert summary["cut"] == 0.001
    assert summary["not_compared"] == {
        "other": {}, "test": {}, "unlabeled": {"truncated_image": 2},
    }  # fmt: skip


def test_an_image_with_the_same_pixels_is_leaked_where_no_pair_says_so(leaked: Path) -> None:
    """As of images without a feature, or where the pairs were bounded."""
    pairs = {name: [] for name in schemas.DUPLICATES.names}
    tables.write_table(leaked / "duplicates/unlabeled/pairs.parquet", pairs, schemas.DUPLICATES)
    leaks, _ = measure(leaked)
    leaks = leaks[leaks.by == "features"]
    images = ["source", "evaluation_dataset", "evaluation_shard_id", "evaluation_sample_index"]
    assert sorted(map(tuple, leaks[images].to_numpy().tolist())) == [
        (source, *image)
        for source in ("top", "unlabeled")
        for image in (("other", 0, 3), ("test", 0, 2))
    ]
    (leaked / "duplicates/unlabeled/copies.parquet").unlink()  # of D there is none
    of_labelled, _ = measure(leaked, unlabeled=[], labelled=["unlabeled"], selections={})
    of_labelled = of_labelled[of_labelled.by == "features"]
    pd.testing.assert_frame_equal(of_labelled, leaks[leaks.source == "unlabeled"])


def test_the_cut_of_leaks_is_what_removes_the_farthest(leaked: Path) -> None:
    nearest = pd.read_parquet(leaked.parent / "nearest-00000.parquet").distance.sort_values()
    _, summary = measure(leaked, remove={"closest": 5, "max_distance": 0.001})
    assert summary["cut"] == pytest.approx(nearest.iloc[4])
    assert measure(leaked, remove={})[1]["cut"] == 2.0
    assert measure(leaked, leak_distance=0.25)[1]["cut"] == 0.25


def test_an_image_without_feature_and_without_a_reason_fails_the_leaks(leaked: Path) -> None:
    path = leaked / "features/net/test/part-00001.parquet"
    table = tables.read_table(path, schemas.FEATURES).slice(1)
    tables.write_table(path, {n: table[n] for n in table.column_names}, schemas.FEATURES)
    with pytest.raises(DataError, match=r"test/part-00001\.parquet: \d features of \d images"):
        measure(leaked)


def test_pairs_that_may_have_been_dropped_are_said(leaked: Path) -> None:
    assert measure(leaked)[1]["complete_to"] == {}
    _, summary = measure(leaked, max_pairs=220)
    assert 0 < summary["complete_to"]["unlabeled"] <= 2


def test_calibration_leaves_out_what_it_cannot_read_and_decodes_what_its_dataset_may_hold(
    searched: Searched, tmp_path: Path, network: Path, caplog
) -> None:
    made_of = settings.CalibrateDuplicates(
        num_images=2, seed=1, precision="float32", evaluation=searched.evaluation
    )
    manifests = [tmp_path / name / "manifest-00000.json" for name in ("other", "test")]
    firsts = [searched.folder / name / "part-00000.parquet" for name in ("other", "test")]
    small = tables.read_json(manifests[0]) | {"max_pixels": 1}
    tables.write_json(manifests[0], small)
    calibrate_duplicates.main(made_of, firsts, manifests, network, tmp_path / "made", 1)
    found = pd.read_parquet(tmp_path / "made")
    assert found.groupby("evaluation_dataset").size().to_dict() == {"test": 2 * len(KINDS)}
    assert "2 evaluation images were left out: {'too_many_pixels': 2}" in caplog.text


def test_calibration_measures_each_kind_against_its_original(
    searched: Searched, tmp_path: Path, network: Path
) -> None:
    made_of = settings.CalibrateDuplicates(
        num_images=2, seed=1, precision="float32", evaluation=searched.evaluation
    )
    manifests = [tmp_path / name / "manifest-00000.json" for name in ("other", "test")]
    firsts = [searched.folder / name / "part-00000.parquet" for name in ("other", "test")]
    for name in ("once", "twice"):
        calibrate_duplicates.main(made_of, firsts, manifests, network, tmp_path / name, 1)
    assert digest(tmp_path / "once") == digest(tmp_path / "twice")
    found = pd.read_parquet(tmp_path / "once")
    assert found.groupby("evaluation_dataset").size().to_dict() == {
        name: 2 * len(KINDS) for name in ("other", "test")
    }
    assert (found.distance_to_others > 0).all()
    row = found[found.kind == "mirrored"].iloc[0]
    source = {"other": OTHER, "test": TEST}[row.evaluation_dataset]
    content = source[row.evaluation_shard_id * 3 + row.evaluation_sample_index][1]["jpg"]
    pixels = loader.decode(content).numpy().transpose(1, 2, 0)
    fit = transforms.evaluation_transform(square(12))
    images = [fit(transforms.to_tensor(p)) for p in (pixels, pixels[:, ::-1].copy())]
    one, other = models.observer(models.load(network), "float32", 1)(torch.stack(images))[1]
    assert row.distance == pytest.approx(float((one - other).norm()), abs=2e-3)

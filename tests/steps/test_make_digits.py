import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray
from PIL import Image

from semisup import images, tars
from semisup.datasets import DIGITS
from semisup.settings import MakeDigits
from semisup.steps.make_digits import PER_CLASS, main, split_by_class

EXPECTED_STATUS = {
    "digit": "ok",
    "clutter": "ok",
    "near_duplicate": "ok",
    "copy": "ok",
    "cmyk": "ok",
    "grey_jpeg": "ok",
    "grey_png": "ok",
    "palette": "ok",
    "rgba": "ok",
    "grey16": "ok",
    "truncated_jpeg": "truncated_image",
    "truncated_png": "truncated_image",
    "empty": "empty",
    "text": "not_an_image",
    "gigapixels": "too_many_pixels",
    "no_image": tars.MISSING_IMAGE,
    "cut": tars.TRUNCATED_TAR,
}
NOT_DIGITS = {"clutter", "text", "gigapixels"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("digits")
    main(MakeDigits(seed=0), output)
    return output


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, bytes]:
    """Image bytes by key, over all splits."""
    return {
        sample.key: path.read_bytes()[sample.offset :][: sample.size_bytes]
        for path in folder.glob("*.tar")
        for sample in read(path)
    }


def read(path: Path) -> list[tars.Sample]:
    return tars.read_shard(path, len(DIGITS.classes)).samples


def read_split(folder: Path, split: str) -> list[tars.Sample]:
    return [sample for path in sorted(folder.glob(f"{split}-*.tar")) for sample in read(path)]


def kind(sample: tars.Sample) -> str:
    return sample.key.partition("-")[0]


def decode(content: bytes) -> NDArray[np.int64]:
    return images.decode(content).astype(np.int64)


def hashes(folder: Path) -> dict[str, str]:
    paths = folder.glob("*")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_writes_exactly_the_shards_datasets_lists(folder: Path) -> None:
    expected = {
        f"{split}-{shard:05d}.tar"
        for split, num_shards in DIGITS.num_shards.items()
        for shard in range(num_shards)
    }
    assert {path.name for path in folder.iterdir()} == expected


def test_labelled_splits_are_balanced_whole_and_decode_to_32_pixels(
    folder: Path, content: dict[str, bytes]
) -> None:
    for split, per_class in PER_CLASS.items():
        samples = read_split(folder, split)
        assert {sample.status for sample in samples} == {tars.OK}
        assert Counter(s.label for s in samples) == dict.fromkeys(range(10), per_class)
        assert {decode(content[s.key]).shape for s in samples} == {(32, 32, 3)}


def test_sizes_of_the_splits(folder: Path) -> None:
    sizes = {split: len(read_split(folder, split)) for split in DIGITS.num_shards}
    assert sizes == {"labeled": 40, "validation": 200, "test": 500, "unlabeled": 1311}


def test_splits_share_no_digit_and_leave_none_out(folder: Path) -> None:
    digits = [
        int(sample.key.rpartition("-")[2])
        for split in DIGITS.num_shards
        for sample in read_split(folder, split)
        if "-of-" not in sample.key and sample.size_bytes and kind(sample) not in NOT_DIGITS
    ]
    assert sorted(digits) == list(range(1797))


def test_split_by_class_is_disjoint_for_any_labels() -> None:
    labels = np.random.default_rng(1).integers(0, 7, 2000)
    splits = split_by_class(labels, np.random.default_rng(2))
    assert sorted(np.concatenate(list(splits.values()))) == list(range(2000))


def test_keys_are_unique_over_all_splits(folder: Path) -> None:
    keys = [sample.key for split in DIGITS.num_shards for sample in read_split(folder, split)]
    assert len(keys) == len(set(keys))


def test_every_kind_of_dirt_is_there_with_its_status(
    folder: Path, content: dict[str, bytes]
) -> None:
    statuses: dict[str, set[str]] = {}
    for sample in read_split(folder, "unlabeled"):
        status = sample.status
        if status == tars.OK:
            try:
                images.decode(content[sample.key])
            except images.ImageError as error:
                status = error.kind
        statuses.setdefault(kind(sample), set()).add(status)
    assert statuses == {name: {status} for name, status in EXPECTED_STATUS.items()}


def test_unlabelled_images_carry_their_true_class_and_clutter_none(folder: Path) -> None:
    labels: dict[str, set[int | None]] = {}
    for sample in read_split(folder, "unlabeled"):
        labels.setdefault(kind(sample), set()).add(sample.label)
    assert labels["digit"] == set(range(10))
    assert labels["near_duplicate"] == set(range(10))
    assert labels["clutter"] == labels["text"] == labels["empty"] == {None}


def test_clutter_has_class_minus_one(folder: Path) -> None:
    with tarfile.open(folder / "unlabeled-00000.tar") as tar:
        names = [n for n in tar.getnames() if n.startswith("clutter-") and n.endswith(".cls")]
        files = [tar.extractfile(name) for name in names]
        assert files
        assert {file.read() for file in files if file} == {b"-1"}


@pytest.mark.parametrize(
    ("name", "format", "mode"),
    [
        ("cmyk", "JPEG", "CMYK"),
        ("grey_jpeg", "JPEG", "L"),
        ("grey_png", "PNG", "L"),
        ("palette", "PNG", "P"),
        ("rgba", "PNG", "RGBA"),
        ("grey16", "PNG", "I;16"),
    ],
)
def test_odd_images_are_what_their_key_says_and_still_show_a_digit(
    content: dict[str, bytes], name: str, format: str, mode: str
) -> None:
    odd = [data for key, data in content.items() if key.startswith(f"{name}-")]
    assert odd
    for data in odd:
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode) == (format, mode)
        grey = decode(data).mean(2)
        assert grey[:, 0].max() < 40 and grey.max() > 200  # dark margin, bright ink


def test_gigapixels_are_only_claimed(content: dict[str, bytes]) -> None:
    assert len(content["gigapixels-0000"]) < 200


def test_near_duplicates_show_their_test_image_in_other_bytes(
    folder: Path, content: dict[str, bytes]
) -> None:
    tests = [sample.key for sample in read_split(folder, "test")]
    pictures = np.stack([decode(content[key]) for key in tests])
    duplicates = [key for key in content if key.startswith("near_duplicate-of-")]
    assert len(duplicates) == 60
    for key in duplicates:
        image = decode(content[key])
        shifted = [np.roll(image, by, axis) for by in (1, -1) for axis in (0, 1)]
        distances = [np.abs(pictures - other).mean((1, 2, 3)) for other in shifted]
        closest = tests[int(np.min(distances, axis=0).argmin())]
        assert key == f"near_duplicate-of-{closest}"
        assert content[key] != content[closest]


def test_copies_have_the_bytes_of_another_unlabelled_image(
    folder: Path, content: dict[str, bytes]
) -> None:
    unlabeled = {sample.key for sample in read_split(folder, "unlabeled")}
    copies = [key for key in unlabeled if key.startswith("copy-of-")]
    assert len(copies) == 40
    for key in copies:
        original = key.removeprefix("copy-of-")
        assert original in unlabeled
        assert content[key] == content[original]


def test_images_are_mostly_jpeg_and_some_png(content: dict[str, bytes]) -> None:
    count = Counter(data[:3] for key, data in content.items() if key.startswith("digit-"))
    assert 0.1 < count[b"\x89PN"] / (count[b"\x89PN"] + count[b"\xff\xd8\xff"]) < 0.2


def test_dirt_is_spread_over_the_shards_and_only_the_last_is_cut(folder: Path) -> None:
    for path in sorted(folder.glob("unlabeled-*.tar")):
        samples = read(path)
        kinds = {kind(sample) for sample in samples}
        assert {"digit", "clutter", "near_duplicate"} <= kinds
        assert ("cut" in kinds) == (path.name == "unlabeled-00009.tar")
        assert 130 < len(samples) < 150


def test_the_cut_tar_ends_inside_an_image_and_inside_a_block(folder: Path) -> None:
    path = folder / "unlabeled-00009.tar"
    size, last = path.stat().st_size, read(path)[-1]
    assert last.offset < size < last.offset + last.size_bytes
    assert size % tarfile.BLOCKSIZE


def test_webdataset_reads_the_same_keys(folder: Path) -> None:
    for name in ("labeled-00000.tar", "test-00000.tar", "unlabeled-00003.tar"):
        path = folder / name
        dataset = webdataset.WebDataset(str(path), shardshuffle=False)
        found = [(s["__key__"], int(s["cls"])) for s in dataset]
        expected = [(s.key, -1 if s.label is None else s.label) for s in read(path)]
        assert found == expected


def test_same_seed_same_bytes_other_seed_other_bytes(folder: Path, tmp_path: Path) -> None:
    main(MakeDigits(seed=0), tmp_path / "same")
    main(MakeDigits(seed=1), tmp_path / "other")
    assert hashes(tmp_path / "same") == hashes(folder)
    other = hashes(tmp_path / "other")
    assert other.keys() == hashes(folder).keys()
    assert not set(other.values()) & set(hashes(folder).values())

import io
import lzma
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torchvision
import webdataset
from PIL import Image

from semisup import images, tars
from semisup.datasets import CIFAR10
from semisup.settings import MakeCifar10
from semisup.steps.make_cifar10 import CLUTTER, TEST, TRAIN, Sample, main, read_tar
from semisup.tables import DataError

REAL_DATA = Path(__file__).parents[2] / "../shared/data"
SIZES = {TRAIN: 400, TEST: 60, CLUTTER: 50}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside shared/data with small tars of the real layout; bytes stand for images."""
    top = tmp_path_factory.mktemp("cifar10")
    for name, prefix in ((TRAIN, "cifar10-train"), (TEST, "cifar10-test"), (CLUTTER, "tin-train")):
        samples = [
            (f"{prefix}-{i:05d}", {"jpg": f"{prefix} {i}".encode(), "cls": label(name, i)})
            for i in range(SIZES[name])
        ]
        write_xz(top / "shared/data" / name, samples)
    (top / "main").mkdir()
    return top / "main"


def label(name: str, number: int) -> bytes:
    return b"-1" if name == CLUTTER else str(number % 10).encode()


def write_xz(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tars.write_tar(path.with_suffix(".plain"), samples)
    path.write_bytes(lzma.compress(path.with_suffix(".plain").read_bytes(), preset=0))
    path.with_suffix(".plain").unlink()


@pytest.fixture(autouse=True)
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def folder(place: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(place)
    main(MakeCifar10(seed=0, num_labels=40), place / "cifar10-40")
    os.chdir(before)
    yield place / "cifar10-40"


def read_split(folder: Path, split: str) -> list[tuple[str, str, bytes, int]]:
    """Key, extension, image bytes and class of every sample."""
    found = []
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name, content in files.items():
            key, _, extension = name.partition(".")
            if extension != "cls":
                found.append((key, extension, content, int(files[f"{key}.cls"])))
    return found


def test_writes_exactly_the_shards_datasets_lists(folder: Path) -> None:
    expected = {
        f"{split}-{shard:05d}.tar"
        for split, num_shards in CIFAR10.num_shards.items()
        for shard in range(num_shards)
    }
    assert {path.name for path in folder.iterdir()} == expected


def test_labeled_is_balanced(folder: Path) -> None:
    assert Counter(s[3] for s in read_split(folder, "labeled")) == dict.fromkeys(range(10), 4)


def test_labeled_and_unlabeled_share_nothing_and_leave_no_training_image_out(folder: Path) -> None:
    labeled = {s[0] for s in read_split(folder, "labeled")}
    unlabeled = {s[0] for s in read_split(folder, "unlabeled")}
    assert not labeled & unlabeled
    train = {f"cifar10-train-{i:05d}" for i in range(SIZES[TRAIN])}
    assert labeled | {key for key in unlabeled if not key.startswith("tin")} == train


def test_unlabeled_holds_all_clutter_without_class_spread_over_the_shards(folder: Path) -> None:
    unlabeled = read_split(folder, "unlabeled")
    clutter = [position for position, s in enumerate(unlabeled) if s[3] == -1]
    assert len(clutter) == SIZES[CLUTTER]
    assert {unlabeled[i][0][:3] for i in clutter} == {"tin"}
    assert min(clutter) < len(unlabeled) / 4 and max(clutter) > len(unlabeled) * 3 / 4


def test_test_keeps_every_image_in_order(folder: Path) -> None:
    keys = [s[0] for s in read_split(folder, "test")]
    assert keys == [f"cifar10-test-{i:05d}" for i in range(SIZES[TEST])]


def test_image_bytes_are_copied(folder: Path) -> None:
    for split in CIFAR10.num_shards:
        for key, extension, content, class_id in read_split(folder, split):
            prefix, _, number = key.rpartition("-")
            assert (extension, content) == ("jpg", f"{prefix} {int(number)}".encode())
            assert class_id == (-1 if prefix == "tin-train" else int(number) % 10)


def test_same_seed_same_bytes_other_seed_other_choice(folder: Path, tmp_path: Path) -> None:
    main(MakeCifar10(seed=0, num_labels=40), tmp_path / "same")
    main(MakeCifar10(seed=1, num_labels=40), tmp_path / "other")
    for path in folder.iterdir():
        assert (tmp_path / "same" / path.name).read_bytes() == path.read_bytes()
    labeled, other = read_split(folder, "labeled"), read_split(tmp_path / "other", "labeled")
    assert {s[0] for s in labeled} != {s[0] for s in other}


def test_webdataset_reads_every_sample(folder: Path) -> None:
    urls = str(folder / "unlabeled-{00000..00015}.tar")
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == SIZES[TRAIN] - 40 + SIZES[CLUTTER]
    assert all({"jpg", "cls"} <= sample.keys() for sample in samples)


def test_all_training_images_may_be_labelled(tmp_path: Path) -> None:
    main(MakeCifar10(seed=0, num_labels=SIZES[TRAIN]), tmp_path)
    assert len(read_split(tmp_path, "labeled")) == SIZES[TRAIN]
    assert len(read_split(tmp_path, "unlabeled")) == SIZES[CLUTTER]


@pytest.mark.parametrize("num_labels", [0, 45, 50_010])
def test_impossible_number_of_labels_is_refused_before_anything_is_read(
    tmp_path: Path, num_labels: int
) -> None:
    with pytest.raises(DataError, match=f"cifar10-{num_labels}: .* multiple of 10"):
        main(MakeCifar10(seed=0, num_labels=num_labels), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_labels_than_images_of_a_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 40 training images of class airplane"):
        main(MakeCifar10(seed=0, num_labels=500), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_source_is_refused_by_name(tmp_path: Path, place: Path) -> None:
    path = tmp_path / "damaged.tar.xz"
    path.write_bytes((place / "../shared/data" / TEST).read_bytes()[:-100])
    with pytest.raises(DataError, match=r"damaged.tar.xz: cannot be read"):
        read_tar(path)


class FakeTorchvision:
    """Stands for torchvision.datasets.CIFAR10: pictures of one colour, 20 to train, 10 to test."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        assert download
        Path(root, "downloaded").touch()
        self.length = 20 if train else 10

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        if number >= self.length:
            raise IndexError
        return Image.new("RGB", (32, 32), (number, 0, 0)), number % 10


def test_without_the_data_it_is_downloaded_beside_output_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeTorchvision)
    main(MakeCifar10(seed=0, num_labels=10), tmp_path / "sets/cifar10-10")
    assert (tmp_path / "sets/cifar10-download/downloaded").exists()
    assert "no clutter" in caplog.text
    unlabeled = read_split(tmp_path / "sets/cifar10-10", "unlabeled")
    assert len(unlabeled) == 10
    for key, extension, content, class_id in unlabeled:
        number = int(key.removeprefix("cifar10-train-"))
        assert (extension, class_id) == ("png", number % 10)
        assert images.decode(content)[0, 0].tolist() == [number, 0, 0]


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise URLError("no route to host")

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"no route to host.* put cifar-10-python.tar.gz"):
        main(MakeCifar10(seed=0, num_labels=10), tmp_path / "sets/cifar10-10")


def first_samples(name: str, count: int) -> list[Sample]:
    """The first samples of a real tar, without unpacking the rest."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(REAL_DATA / name, "r|xz") as tar:
        for info in tar:
            key, _, extension = info.name.rpartition(".")
            if key not in samples and len(samples) == count:
                break
            samples.setdefault(key, {})[extension] = tar.extractfile(info).read()  # type: ignore[union-attr]
    return [Sample(key, files, int(files["cls"])) for key, files in samples.items()]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs ../shared/data")
def test_real_images_arrive_with_their_own_bytes_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals: dict[str, Sample] = {}
    for name, count in ((TRAIN, 1000), (TEST, 200), (CLUTTER, 100)):
        samples = first_samples(name, count)
        originals |= {sample.key: sample for sample in samples}
        write_xz(tmp_path / "shared/data" / name, [(s.key, s.members) for s in samples])
    (tmp_path / "main").mkdir()
    monkeypatch.chdir(tmp_path / "main")
    main(MakeCifar10(seed=0, num_labels=100), tmp_path / "out")
    arrived = [s for split in CIFAR10.num_shards for s in read_split(tmp_path / "out", split)]
    assert len(arrived) == len(originals) == 1300
    for key, extension, content, class_id in arrived:
        assert originals[key].members[extension] == content
        assert originals[key].label == class_id
        side = Image.open(io.BytesIO(content)).size
        assert side == ((64, 64) if class_id == -1 else (32, 32))
    shard = tars.read_shard(tmp_path / "out/unlabeled-00000.tar", 10)
    assert {sample.status for sample in shard.samples} == {tars.OK}

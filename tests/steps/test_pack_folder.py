import os
import random
from collections import Counter
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from semisup import tars
from semisup.settings import PackFolder
from semisup.steps.pack_folder import main, unique_keys
from semisup.tables import DataError


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pack(
    folder: Path, output: Path, classes: list[str] | None = None, num_shards: int = 1
) -> list[tars.Sample]:
    main(PackFolder(folder=str(folder), classes=classes, num_shards=num_shards, stamp=""), output)
    num_classes = None if classes is None else len(classes)
    return [s for p in sorted(output.iterdir()) for s in tars.read_shard(p, num_classes).samples]


def read_webdataset(output: Path) -> dict[str, dict[str, bytes]]:
    """Members by key, as the webdataset library sees them."""
    urls = [str(path) for path in sorted(output.iterdir())]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    found = {
        s["__key__"]: {name: s[name] for name in s if not name.startswith("__")} for s in samples
    }
    assert len(found) == len(samples)
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, a sub-folder, and files that are not images."""
    return make(
        tmp_path / "photos",
        {
            "cat/1.jpg": b"cat one",
            "cat/old/2.PNG": b"cat two",
            "cat/Thumbs.db": b"cache",
            "dog/1.jpeg": b"dog one",
            "dog/notes.txt": b"a note",
        },
    )


def test_class_ids_follow_the_order_of_classes(photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "out", ["dog", "cat"])
    assert read_webdataset(tmp_path / "out") == {
        "cat/1": {"jpg": b"cat one", "cls": b"1"},
        "cat/old/2": {"png": b"cat two", "cls": b"1"},
        "dog/1": {"jpeg": b"dog one", "cls": b"0"},
    }


def test_without_classes_every_image_is_packed_without_label(photos: Path, tmp_path: Path) -> None:
    samples = pack(photos, tmp_path / "out")
    assert {sample.status for sample in samples} == {tars.OK}
    assert read_webdataset(tmp_path / "out") == {
        "cat/1": {"jpg": b"cat one"},
        "cat/old/2": {"png": b"cat two"},
        "dog/1": {"jpeg": b"dog one"},
    }


def test_what_is_left_out_is_counted_and_named(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(photos, {"bird/1.jpg": b"bird", "stray.jpg": b"stray"})
    pack(photos, tmp_path / "out", ["cat", "dog"])
    assert "2 left out, not images: 'cat/Thumbs.db', 'dog/notes.txt'" in caplog.text
    assert "2 left out, not in the folder of a class: 'bird', 'stray.jpg'" in caplog.text


def test_shards_are_even_and_class_mixed(tmp_path: Path) -> None:
    files = {f"{name}/{i}.jpg": b"x" for name in "ab" for i in range(101)}
    pack(make(tmp_path / "in", files), tmp_path / "out", ["a", "b"], num_shards=4)
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"{i:05d}.tar" for i in range(4)]
    for path in paths:
        labels = Counter(sample.label for sample in tars.read_shard(path, 2).samples)
        assert labels.total() in (50, 51)
        assert min(labels[0], labels[1]) > 10


def test_more_shards_than_images_leaves_empty_tars(photos: Path, tmp_path: Path) -> None:
    assert len(pack(photos, tmp_path / "out", num_shards=5)) == 3
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert len(read_webdataset(tmp_path / "out")) == 3


def test_same_images_same_bytes_whatever_the_order_and_time_of_writing(tmp_path: Path) -> None:
    names = [f"{i % 7}/{i}.jpg" for i in range(60)]
    make(tmp_path / "one", {name: name.encode() for name in names})
    random.Random(1).shuffle(names)
    make(tmp_path / "two", {name: name.encode() for name in names})
    os.utime(tmp_path / "two" / names[0], (1, 1))
    pack(tmp_path / "one", tmp_path / "out1", num_shards=3)
    pack(tmp_path / "two", tmp_path / "out2", num_shards=3)
    for path in (tmp_path / "out1").iterdir():
        assert path.read_bytes() == (tmp_path / "out2" / path.name).read_bytes()


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "a.png"],
        ["a.jpg", "a.JPG"],
        ["a.b.jpg", "a_b.jpg", "a_b-2.jpg"],
        ["v1.2/a.jpg", "v1_2/a.jpg"],
        ["...x.jpg", ".hidden.jpg"],
        ["__meta__/a.jpg", "__a__.jpg"],
        ["a b\tc\n.jpg", "ä/ö.jpg", "日本.png"],
        ["x" * 200 + ".jpg", "y" * 120 + "/" + "z" * 120 + ".png"],
        [os.fsdecode(b"latin-\xe4.jpg"), os.fsdecode(b"latin-\xf6.jpg")],
    ],
)
def test_awkward_names_stay_separate_whole_samples(tmp_path: Path, names: list[str]) -> None:
    files = {name: os.fsencode(name) for name in names}
    samples = pack(make(tmp_path / "in", files), tmp_path / "out")
    assert {sample.status for sample in samples} == {tars.OK}
    found = read_webdataset(tmp_path / "out")
    assert sorted(found) == sorted(sample.key for sample in samples)
    packed = [content for members in found.values() for content in members.values()]
    assert sorted(packed) == sorted(files.values())


@given(st.lists(st.text("a./_-2", min_size=1, max_size=6), unique=True))
def test_keys_are_unique_and_without_dots(relatives: list[str]) -> None:
    keys = unique_keys(f"{relative}.jpg" for relative in relatives)
    assert len(set(keys)) == len(relatives)
    assert not any("." in key for key in keys)


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", {"1.jpg": b"one", "deep/2.jpg": b"two"})
    folder = make(tmp_path / "in", {"a/0.jpg": b"zero"})
    (folder / "a/1.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (folder / "a/deep").symlink_to(tmp_path / "elsewhere/deep")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    pack(folder, tmp_path / "out", ["a", "b"])
    found = read_webdataset(tmp_path / "out")
    assert {key: members["jpg"] for key, members in found.items()} == {
        "a/0": b"zero",
        "a/1": b"one",
        "a/deep/2": b"two",
        "b/1": b"one",
        "b/deep/2": b"two",
    }


def refused(folder: Path, tmp_path: Path, match: str, classes: list[str] | None = None) -> None:
    """Packing fails with this message and leaves nothing behind."""
    with pytest.raises(DataError, match=match):
        pack(folder, tmp_path / "made/out", classes)
    assert not list((tmp_path / "made").glob("*"))


def test_broken_link_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/gone.jpg").symlink_to("nowhere.jpg")
    refused(photos, tmp_path, r"cat/gone\.jpg: a broken link to nowhere\.jpg")


def test_link_to_a_folder_above_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/loop").symlink_to(photos)
    refused(photos, tmp_path, "cat/loop: this link leads back")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_unreadable_file_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/bad.jpg").symlink_to("/proc/self/mem")  # opens, but reading it fails
    refused(photos, tmp_path, r"cat/bad\.jpg: cannot be read")


def test_folder_without_image_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a.txt": b"text", ".jpg": b"a suffix needs a name"})
    refused(folder, tmp_path, "in: no image in this folder")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", tmp_path, r"nowhere: cannot be read \(No such file")


def test_class_without_folder_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    refused(photos, tmp_path, "no sub-folder for class 'bird'", ["cat", "bird"])


def test_class_outside_the_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    make(tmp_path / "photos2", {"1.jpg": b"x"})
    refused(photos, tmp_path, "no sub-folder for class '../photos2'", ["cat", "../photos2"])


def test_class_without_image_is_refused_by_name(photos: Path, tmp_path: Path) -> None:
    make(photos, {"bird/list.txt": b"no bird"})
    refused(photos, tmp_path, "bird: no image of this class", ["cat", "bird"])


def test_tars_of_a_former_run_are_replaced(photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "out", num_shards=4)
    pack(photos, tmp_path / "out", num_shards=2)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00000.tar", "00001.tar"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos"}

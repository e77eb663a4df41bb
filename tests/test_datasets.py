import os
from collections.abc import Callable
from pathlib import Path

import braceexpand
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from semisup import datasets
from semisup.config import Dataset

# --- built-in sets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "split"),
    [
        ("digits/labeled", "digits", "labeled"),
        ("cifar10-10/test", "cifar10-10", "test"),
        ("cifar10-4000/unlabeled", "cifar10-4000", "unlabeled"),
        ("cifar10-50000/labeled", "cifar10-50000", "labeled"),
    ],
)
def test_a_builtin_set_is_found(name: str, source: str, split: str) -> None:
    assert datasets.find_builtin(name)[:2] == (source, split)


@pytest.mark.parametrize(
    "name",
    ["", "digits", "digit/test", "cifar10/test", "cifar10-0/test", "cifar10-15/test",
     "cifar10-50010/test", "cifar10-010/test", "digits/test/", "imagenet/test"],
)  # fmt: skip
def test_another_set_is_refused_saying_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match="there are digits/SPLIT and cifar10-N/SPLIT"):
        datasets.find_builtin(name)


def test_another_split_is_refused_saying_what_there_is() -> None:
    with pytest.raises(ValueError, match="there are labeled, test, unlabeled"):
        datasets.find_builtin("cifar10-10/validation")


@pytest.mark.parametrize("builtin", [datasets.DIGITS, datasets.CIFAR10])
def test_a_builtin_set_has_ten_classes_and_splits_with_shards(builtin: datasets.Builtin) -> None:
    assert len(set(builtin.classes)) == 10
    assert {"labeled", "unlabeled", "test"} <= set(builtin.num_shards)
    assert min(builtin.num_shards.values()) > 0


# --- shards --------------------------------------------------------------------------------


def test_shards_of_a_builtin_set_lie_in_the_results() -> None:
    paths = datasets.list_shards(Dataset(builtin="digits/test"), "x", "out")
    assert paths == ["out/datasets/builtin/digits/test-00000.tar"]


def test_shards_of_a_folder_lie_under_the_name_of_the_dataset() -> None:
    paths = datasets.list_shards(Dataset(folder="photos", num_shards=2), "x", "out")
    assert paths == ["out/datasets/x/tars/00000.tar", "out/datasets/x/tars/00001.tar"]


def test_shards_of_several_patterns_stand_in_the_order_given() -> None:
    dataset = Dataset(shards=["b-{0..1}.tar", "a-{08..10}.tar", "c.tar"])
    assert datasets.list_shards(dataset, "x", "out") == [
        "b-0.tar", "b-1.tar", "a-08.tar", "a-09.tar", "a-10.tar", "c.tar"
    ]  # fmt: skip


@pytest.mark.parametrize("shards", [[], ["{0..999999999}"], "{0..9}" * 40, ["{0..600000}"] * 2])
def test_no_shards_or_more_than_a_million_are_refused_at_once(shards: str | list[str]) -> None:
    with pytest.raises(ValueError, match="1 to 1,000,000 files"):
        datasets.list_shards(Dataset(shards=shards), "x", "out")


def test_a_million_shards_are_counted() -> None:
    assert datasets.count_paths("a/{000..999}/{000..999}.tar") == 1_000_000


patterns = st.lists(
    st.sampled_from(
        ["{0..3}", "{03..1}", "{1..9..4}", "{a..d}", "{X..b..3}", "{", "}", "{a,b}", "{", "}", ",",
         "a", ".tar", "\\", "{-2..2}", "{1..2}", "..", "7", "\0"]
    ),
    max_size=9,
).map("".join)  # fmt: skip


@given(patterns)
@example("{a,{b,c}{1..3}}")
@example("{{1..3}}")
@example("{}")
@example("\\{1..3\\}")
@example("{\\{0..3}")
@example("")
def test_paths_are_counted_as_they_are_expanded(pattern: str) -> None:
    try:
        count = datasets.count_paths(pattern)
    except ValueError:
        assume(False)
    assert count == len(list(braceexpand.braceexpand(pattern)))


@given(patterns)
def test_what_cannot_be_expanded_is_not_counted(pattern: str) -> None:
    try:
        list(braceexpand.braceexpand(pattern))
    except ValueError:
        with pytest.raises(ValueError, match="braces that do not match"):
            datasets.count_paths(pattern)


@pytest.mark.parametrize("pattern", ["{a", "a}", "{a,{b}", "{" * 3000 + "}" * 3000, "{" * 99_999])
def test_braces_that_do_not_match_or_nest_too_deep_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="braces that do not match"):
        datasets.count_paths(pattern)


def test_each_path_is_followed_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "data" / "folder.tar").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("data")
    (tmp_path / "data" / "a.tar").touch()
    (tmp_path / "data" / "link.tar").symlink_to(tmp_path / "data" / "a.tar")
    (tmp_path / "data" / "broken.tar").symlink_to("none")
    (tmp_path / "data" / "circle.tar").symlink_to("circle.tar")
    file = os.path.realpath(tmp_path / "data" / "a.tar")
    found = {
        "data/z.tar": "",
        "data/a.tar": file,
        "data/folder.tar": "",
        "linked/a.tar": file,
        "data/link.tar": file,
        "linked//link.tar": file,
        "data/broken.tar": "",
        "data/circle.tar": "",
        "none/a.tar": "",
        "data/nul\0.tar": "",
        "nul\0/a.tar": "",
    }
    assert datasets.real_paths([f"{tmp_path}/{name}" for name in found]) == list(found.values())


def test_a_bare_name_is_looked_for_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tar").touch()
    assert datasets.real_paths(["a.tar", "b.tar"]) == [os.path.realpath("a.tar"), ""]


def test_the_root_is_not_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {".": [("a.tar", "/here/a.tar")], "/": [("b.tar", "/b.tar")]}
    monkeypatch.setattr(datasets, "_list_files", there.__getitem__)
    found = datasets.real_paths(["a.tar", "/a.tar", "b.tar", "/b.tar"])
    assert found == ["/here/a.tar", "", "", "/b.tar"]


@given(st.integers(1, datasets.MAX_SHARDS))
def test_by_default_parts_are_few_and_the_same_until_there_are_twice_as_many_tars(num: int) -> None:
    per_part = datasets.default_shards_per_part(num)
    assert len(datasets.list_parts(num, per_part)) <= 256
    assert per_part == 200 or num > 256 * per_part // 2
    assert per_part in [200 * 2**i for i in range(6)]


def test_more_tars_than_fit_into_256_parts_of_200_make_parts_twice_as_long() -> None:
    tars = (1, 51_200, 51_201, 100_000)
    assert [datasets.default_shards_per_part(num) for num in tars] == [200, 200, 400, 400]


@given(st.integers(0, 1000), st.integers(1, 1200))
def test_parts_are_consecutive_full_and_leave_no_shard_out(num: int, per_part: int) -> None:
    parts = datasets.list_parts(num, per_part)
    assert [shard for part in parts for shard in part] == list(range(num))
    assert all(len(part) == per_part for part in parts[:-1])
    assert all(0 < len(part) <= per_part for part in parts[-1:])


# --- classes -------------------------------------------------------------------------------


def test_classes_from_their_number_are_numbered() -> None:
    assert datasets.list_classes(3) == ["0", "1", "2"]


def test_classes_from_a_list_keep_its_order() -> None:
    assert datasets.list_classes(["dog", "cat"]) == ["dog", "cat"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_classes_from_a_file_are_its_lines(tmp_path: Path, ending: str, mark: str) -> None:
    (tmp_path / "classes.txt").write_bytes(f"{mark}dog{ending}hot dog{ending}".encode())
    assert datasets.list_classes(str(tmp_path / "classes.txt")) == ["dog", "hot dog"]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1),
        min_size=1,
        unique=True,
    )
)
def test_class_names_survive_a_file_with_one_a_line(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    assert datasets.list_classes(names) == names
    path = tmp_path_factory.getbasetemp() / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    assume(not names[0].startswith("\ufeff"))
    assert datasets.list_classes(str(path)) == names


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (0, "no class at all"),
        (-1, "no class at all"),
        ([], "no class at all"),
        (2**15 + 1, "more than 32,768 classes"),
        (10**15, "more than 32,768 classes"),
        (["a", "b", "a", "b"], "these stand twice: a, b"),
        (["a", ""], r"\[''\] cannot be class names"),
        (["a\nb"], "one line of text"),
        (["a\u2028b"], "one line of text"),
        (["caf\udce9"], "one line of text"),
        ("/none/classes.txt", r"'/none/classes.txt' cannot be read \(No such file.*check the path"),
        ("/", "cannot be read"),
        ("nul\0", "is not a text file"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes: int | list[str] | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.list_classes(classes)


def test_names_that_do_not_fit_into_a_command_are_refused() -> None:
    names = [f"{i} " + 100 * "a" for i in range(1000)]
    with pytest.raises(
        ValueError, match=r"names of 1,000 classes take more than the 100,000 bytes"
    ):
        datasets.list_classes(names)


def test_a_file_of_classes_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"classes.txt' is not a text file in UTF-8"):
        datasets.list_classes(str(tmp_path / "classes.txt"))


def test_an_empty_line_in_a_file_of_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\n\ncat\n")
    with pytest.raises(ValueError, match="cannot be class names"):
        datasets.list_classes(str(tmp_path / "classes.txt"))


def test_as_many_classes_as_ids_have_numbers() -> None:
    assert len(datasets.list_classes(2**15)) == 2**15


def test_given_classes_come_before_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    assert datasets.dataset_classes(Dataset(folder=str(tmp_path), classes=["x"])) == ["x"]
    assert datasets.dataset_classes(Dataset(builtin="digits/test", classes=2)) == ["0", "1"]


def test_classes_of_a_builtin_set_are_known() -> None:
    assert datasets.dataset_classes(Dataset(builtin="digits/test"))[:2] == ["zero", "one"]


def test_classes_of_a_folder_are_its_sub_folders_sorted(tmp_path: Path) -> None:
    for name in ("dog", "Cat", "10", "9"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "dog")
    (tmp_path / "readme.txt").touch()
    classes = datasets.dataset_classes(Dataset(folder=str(tmp_path)))
    assert classes == ["10", "9", "Cat", "dog", "linked"]


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    for name in ("dog", ".cache", ".git"):
        (tmp_path / name).mkdir()
    assert datasets.dataset_classes(Dataset(folder=str(tmp_path))) == ["dog"]


def test_a_folder_without_sub_folders_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    with pytest.raises(ValueError, match="has no sub-folder; there must be one per class"):
        datasets.dataset_classes(Dataset(folder=str(tmp_path)))


def test_a_folder_whose_name_is_no_text_is_no_class(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match="cannot be class names"):
        datasets.dataset_classes(Dataset(folder=str(tmp_path)))


def test_classes_of_tars_must_be_given() -> None:
    with pytest.raises(ValueError, match="missing; add the class names"):
        datasets.dataset_classes(Dataset(shards="a.tar"))


# --- stamps --------------------------------------------------------------------------------


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    "change", [append, lambda path: os.utime(path, (1, 1)), lambda path: path.rename(f"{path}2")]
)
def test_the_stamp_of_files_changes_with_name_size_and_time(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.tar"
    path.touch()
    before = datasets.stamp_files([str(path)])
    assert datasets.stamp_files([str(path)]) == before
    change(path)
    assert datasets.stamp_files([str(p) for p in tmp_path.iterdir()]) != before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a class, and a class that is a link to a folder elsewhere; all made long ago."""
    (tmp_path / "photos" / "cat" / "old").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    for folder, _, _ in os.walk(tmp_path):
        os.utime(folder, (1, 1))
    return tmp_path / "photos"


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "cat" / "old" / "2.jpg").touch(),
        lambda photos: (photos / "cat" / "old").rename(photos / "cat" / "new"),
        lambda photos: (photos / "dog" / "2.jpg").touch(),
        lambda photos: (photos / "dog" / "1.jpg").unlink(),
    ],
)
def test_the_stamp_of_a_folder_changes_with_the_files_below_also_behind_links(
    photos: Path, change: Callable[[Path], None]
) -> None:
    before = datasets.stamp_folder(str(photos))
    assert datasets.stamp_folder(str(photos)) == before
    change(photos)
    assert datasets.stamp_folder(str(photos)) != before


def test_the_stamp_of_a_folder_whose_links_run_in_a_circle_is_made(photos: Path) -> None:
    (photos / "cat" / "up").symlink_to(photos)
    (photos / "dog" / "up").symlink_to(photos)
    assert datasets.stamp_folder(str(photos))

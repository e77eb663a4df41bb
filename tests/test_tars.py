import errno
import hashlib
import io
import os
import resource
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import webdataset
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from semisup import tars
from semisup.tars import BAD_LABEL, MISSING_IMAGE, OK, TRUNCATED_TAR, Sample, write_tar

Members = dict[str, bytes]
needs_tar = pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar here")

keys = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="./\0"), min_size=1, max_size=120),
    unique=True,
    max_size=6,
)
contents = st.binary(max_size=1500)
samples_of = st.builds(
    lambda keys, images: [
        (key, {"jpg": image, "cls": str(i).encode()})
        for i, (key, image) in enumerate(zip(keys, images, strict=False))
    ],
    keys,
    st.lists(contents, min_size=6, max_size=6),
)


def read(path: Path, num_classes: int | None = None) -> list[Sample]:
    return tars.read_shard(path, num_classes).samples


def bytes_of(path: Path, sample: Sample) -> bytes:
    return path.read_bytes()[sample.offset :][: sample.size_bytes]


def open_writer(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "w", format=tarfile.PAX_FORMAT)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o444
    tar.addfile(info, io.BytesIO(content))


def tar_of(path: Path, names: list[str], content: bytes = b"x") -> Path:
    """A tar of members in this order, whatever their names."""
    with open_writer(path) as tar:
        for name in names:
            add_member(tar, name, content)
    return path


# --- writing -------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [99, 100, 101, 300])
@pytest.mark.parametrize("size", [0, 511, 8**11 - 1, 8**11])
@pytest.mark.parametrize("letter", ["a", "é", "\udcff"])
def test_a_header_is_that_of_tarfile(length: int, size: int, letter: str) -> None:
    info = tarfile.TarInfo(letter + "a" * (length - 1))
    info.size, info.mode = size, 0o444
    assert tars.member_header(info.name, size) == info.tobuf(tarfile.PAX_FORMAT)


@given(samples_of)
def test_what_is_written_is_read_back(tmp_path: Path, samples: list[tuple[str, Members]]) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, samples)
    found = read(path, num_classes=6)
    assert [sample.key for sample in found] == [key for key, _ in samples]
    assert [bytes_of(path, sample) for sample in found] == [m["jpg"] for _, m in samples]
    assert [sample.label for sample in found] == list(range(len(samples)))
    assert all(sample.status == OK and sample.reason == "" for sample in found)


@given(samples_of)
def test_the_webdataset_library_reads_what_is_written(
    tmp_path: Path, samples: list[tuple[str, Members]]
) -> None:
    write_tar(tmp_path / "a.tar", samples)
    if not samples:  # the library takes a tar without samples for a mistake
        return
    found = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [(s["__key__"], {"jpg": s["jpg"], "cls": s["cls"]}) for s in found] == samples


@needs_tar
@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 100_000])
def test_tar_unpacks_what_is_written(tmp_path: Path, num_bytes: int) -> None:
    names = ["a", "a b", "-rf", "é" * 60, "n" * 95, "n" * 96, "n" * 97, f"{'f' * 90}/{'n' * 90}"]
    samples = [(name, {"jpg": os.urandom(num_bytes), "cls": b"%d" % len(name)}) for name in names]
    write_tar(tmp_path / "a.tar", samples)
    (tmp_path / "out").mkdir()
    command = ["tar", "--extract", f"--file={tmp_path / 'a.tar'}", "--directory", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name, members in samples:
        for extension, content in members.items():
            assert (tmp_path / "out" / f"{name}.{extension}").read_bytes() == content
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == 2 * len(samples)


@given(samples_of)
def test_the_same_samples_make_the_same_bytes(
    tmp_path: Path, samples: list[tuple[str, Members]]
) -> None:
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, samples)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@given(st.lists(st.tuples(st.text("abcé/", min_size=1, max_size=300), contents), max_size=5))
def test_the_writer_says_where_the_content_begins(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    path = tmp_path / "a.tar"
    with tars.Writer(path) as tar:
        offsets = [tar.add(key, {"jpg": content, "cls": b"1"}) for key, content in members]
    whole = path.read_bytes()
    assert tar.sha256 == hashlib.sha256(whole).hexdigest()
    for offset, (_, content) in zip(offsets, members, strict=True):
        assert whole[offset : offset + len(content)] == content


@given(st.lists(st.tuples(st.text("abcé/", min_size=1, max_size=300), contents), max_size=5))
def test_the_bytes_are_those_pythons_tarfile_writes(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    with tars.Writer(tmp_path / "a.tar") as ours, open_writer(tmp_path / "b.tar") as other:
        for name, content in members:
            ours.add(name, {"jpg": content, "json": content})
            add_member(other, f"{name}.jpg", content)
            add_member(other, f"{name}.json", content)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("at_a_time", [None, 700_001], ids=["", "short"])
def test_large_and_many_members_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int | None
) -> None:
    """Whatever the kernel takes at a time."""
    if at_a_time:
        cut = lambda pieces: b"".join(pieces)[:at_a_time]  # noqa: E731
        monkeypatch.setattr(os, "writev", lambda file, pieces: os.write(file, cut(pieces)))
    sizes = [3 << 20, 1 << 20, *range(2000), (1 << 20) - 512]
    samples = [(f"{i:06d}", {"jpg": bytes([i % 251]) * size}) for i, size in enumerate(sizes)]
    write_tar(tmp_path / "a.tar", samples)
    with open_writer(tmp_path / "b.tar") as other:
        for key, members in samples:
            add_member(other, f"{key}.jpg", members["jpg"])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_tar_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_tar(tmp_path / "a.tar", ((str(i), {"jpg": bytes(99_999)}) for i in range(20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_gigabytes_has_a_header_that_says_so() -> None:
    header = tars.member_header("a.jpg", 9_000_000_000)
    assert tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict").name == "a.jpg"
    assert b"size=9000000000" in header or tarfile.nti(header[124:136]) == 9_000_000_000


def test_a_tar_whose_samples_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    def samples():
        yield "a", {"jpg": b"x"}
        raise OSError

    with pytest.raises(OSError):
        write_tar(tmp_path / "a.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_members_belong_to_nobody_and_to_no_time(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": b"x"})])
    with tarfile.open(tmp_path / "a.tar") as tar:
        (member,) = tar.getmembers()
    assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
    assert member.mode == 0o444


# --- samples -------------------------------------------------------------------------------


def test_size_and_hash_of_the_whole_file_and_of_each_image(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": b"pixels"})])
    shard = tars.read_shard(tmp_path / "a.tar", None)
    content = (tmp_path / "a.tar").read_bytes()
    assert shard.size_bytes == len(content)
    assert shard.sha256 == hashlib.sha256(content).hexdigest()
    assert shard.samples[0].content_hash == xxhash.xxh3_128_digest(b"pixels")


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("n01/b.c/d.jpg", "n01/b.c/d", "jpg"),
        ("./a.jpg", "./a", "jpg"),
        ("a.seg.png", "a", "seg.png"),
        ("a.JPEG", "a", "jpeg"),
        ("a b\n.jpg", "a b\n", "jpg"),
    ],
)
def test_a_name_is_split_as_the_webdataset_library_does(
    tmp_path: Path, name: str, key: str, extension: str
) -> None:
    theirs, suffix = base_plus_ext(name)
    assert (theirs, suffix.lower()) == (key, extension)
    (sample,) = read(tar_of(tmp_path / "a.tar", [name]))
    assert sample.key == key
    assert sample.extension == (extension if extension in tars.IMAGE_EXTENSIONS else "")


@pytest.mark.parametrize("name", ["README", "folder/README", ".hidden", "folder/._a.jpg", "a."])
def test_a_member_without_key_or_suffix_is_no_sample(tmp_path: Path, name: str) -> None:
    assert read(tar_of(tmp_path / "a.tar", [name])) == []


def test_a_name_that_is_no_utf8_becomes_readable_text(tmp_path: Path) -> None:
    (sample,) = read(tar_of(tmp_path / "a.tar", ["caf\udce9.jpg"]))
    assert sample.key == "caf\ufffd"
    (sample,) = read(tar_of(tmp_path / "b.tar", ["a.jp\udce9"]))
    assert sample.reason == "no member with an image suffix, only: jp\ufffd"


@pytest.mark.parametrize("extension", sorted(tars.IMAGE_EXTENSIONS))
def test_every_image_suffix_makes_an_image(tmp_path: Path, extension: str) -> None:
    (sample,) = read(tar_of(tmp_path / "a.tar", ["a.cls", f"a.{extension}"]))
    assert (sample.status, sample.extension) == (OK, extension)


def test_the_first_image_of_a_sample_is_its_image(tmp_path: Path) -> None:
    (sample,) = read(tar_of(tmp_path / "a.tar", ["a.json", "a.png", "a.jpg"]))
    assert sample.extension == "png"


def test_a_sample_without_an_image_is_a_row_that_says_what_it_has(tmp_path: Path) -> None:
    (sample,) = read(tar_of(tmp_path / "a.tar", ["a.cls", "a.txt"], b"3"), num_classes=5)
    assert sample == Sample(
        "a", "", -1, 0, xxhash.xxh3_128_digest(b""), 3, MISSING_IMAGE,
        "no member with an image suffix, only: cls, txt",
    )  # fmt: skip


def test_members_of_a_sample_stand_together(tmp_path: Path) -> None:
    found = read(tar_of(tmp_path / "a.tar", ["a.jpg", "b.jpg", "a.cls"]))
    assert [(s.key, s.status) for s in found] == [
        ("a", OK), ("b", OK), ("a", MISSING_IMAGE)
    ]  # fmt: skip


def test_a_suffix_that_comes_again_begins_a_new_sample(tmp_path: Path) -> None:
    found = read(tar_of(tmp_path / "a.tar", ["a.jpg", "a.cls", "a.jpg"]))
    assert [(s.key, s.status) for s in found] == [("a", OK), ("a", OK)]


def test_folders_in_a_tar_are_no_samples(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.tar") as tar:
        info = tarfile.TarInfo("photos.jpg")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    assert read(tmp_path / "a.tar") == []


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_an_image_that_is_a_link_is_a_row_and_hides_nothing_after_it(
    tmp_path: Path, kind: bytes
) -> None:
    with open_writer(tmp_path / "a.tar") as tar:
        add_member(tar, "a.jpg", b"x")
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname = kind, "a.jpg"
        tar.addfile(info)
        add_member(tar, "c.jpg", b"x")
    found = read(tmp_path / "a.tar")
    assert [(s.key, s.status) for s in found] == [("a", OK), ("b", MISSING_IMAGE), ("c", OK)]
    assert found[1].reason == "no member with an image suffix, only: jpg (not a plain file)"


def test_an_image_with_holes_is_a_row_and_hides_nothing_after_it(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.tar") as tar:
        sparse = tarfile.TarInfo("a.jpg")
        sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000"}
        sparse.size = 1
        tar.addfile(sparse, io.BytesIO(b"x"))
        add_member(tar, "b.jpg", b"x")
    found = read(tmp_path / "a.tar")
    assert [(s.key, s.status) for s in found] == [("a", MISSING_IMAGE), ("b", OK)]


# --- labels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"), [(b"0", 0), (b"4", 4), (b"4\n", 4), (b" 4 ", 4), (b"004", 4), (b"-1", None)]
)
def test_a_label_is_read_and_minus_one_means_none(
    tmp_path: Path, text: bytes, label: int | None
) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": b"x", "cls": text})])
    (sample,) = read(tmp_path / "a.tar", num_classes=5)
    assert (sample.label, sample.status) == (label, OK)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"5", ".cls is 5, not below the 5 classes"),
        (b"-2", ".cls is -2, not below the 5 classes"),
        (b"", ".cls is '', not an integer"),
        (b"cat", ".cls is 'cat', not an integer"),
        (b"1.0", ".cls is '1.0', not an integer"),
        (b"\xff\xfe1", "not an integer"),
        (b"9" * 10_000, "not an integer"),
        (b"1 2", ".cls is '1 2', not an integer"),
    ],
)
def test_a_bad_label_is_a_row_with_a_reason(tmp_path: Path, text: bytes, reason: str) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": b"x", "cls": text})])
    (sample,) = read(tmp_path / "a.tar", num_classes=5)
    assert (sample.label, sample.status) == (None, BAD_LABEL)
    assert reason in sample.reason


def test_a_missing_label_is_a_row_with_a_reason(tmp_path: Path) -> None:
    (sample,) = read(tar_of(tmp_path / "a.tar", ["a.jpg"]), num_classes=5)
    assert (sample.label, sample.status, sample.reason) == (None, BAD_LABEL, "no .cls member")


def test_labels_are_not_read_unless_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": b"x", "cls": b"nonsense"})])
    (sample,) = read(tmp_path / "a.tar", num_classes=None)
    assert (sample.label, sample.status) == (None, OK)


# --- damage --------------------------------------------------------------------------------

WHOLE = [(f"key{i}", {"jpg": bytes([65 + i]) * (700 * i + 1), "cls": b"1"}) for i in range(4)]
IMAGES = {key: members["jpg"] for key, members in WHOLE}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "a.tar"
    write_tar(path, WHOLE)
    return path


def list_members(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


@given(st.integers(0, 9_000))
@example(0)
@example(1)
@example(511)
@example(512)
@example(513)
def test_a_tar_cut_anywhere_keeps_its_whole_samples_and_says_that_it_was_cut(
    tmp_path: Path, whole: Path, size: int
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(whole.read_bytes()[:size])
    found = read(path, num_classes=2)
    for sample in found:
        if sample.status == OK:
            assert bytes_of(path, sample) == IMAGES[sample.key]
    ends = {member.name: member.offset_data + member.size for member in list_members(whole)}
    intact = [key for key in IMAGES if ends[f"{key}.cls"] <= size]
    assert [sample.key for sample in found if sample.status == OK] == intact
    end_marker = list_members(whole)[-1].offset_data + tarfile.BLOCKSIZE
    has_marker = size >= end_marker + tarfile.BLOCKSIZE
    assert any(sample.status == TRUNCATED_TAR for sample in found) != has_marker


@pytest.mark.parametrize("key", IMAGES)
def test_a_tar_cut_right_after_a_sample_keeps_it(tmp_path: Path, whole: Path, key: str) -> None:
    last = next(member for member in list_members(whole) if member.name == f"{key}.cls")
    (tmp_path / "a.tar").write_bytes(whole.read_bytes()[: last.offset_data + last.size])
    statuses = {sample.key: sample.status for sample in read(tmp_path / "a.tar", num_classes=2)}
    assert statuses[key] == OK
    assert statuses[""] == TRUNCATED_TAR


@given(st.integers(0, 9_000), st.binary(min_size=1, max_size=20))
def test_damage_anywhere_is_never_fatal_and_never_passes_for_other_bytes(
    tmp_path: Path, whole: Path, position: int, damage: bytes
) -> None:
    path = tmp_path / "a.tar"
    content = bytearray(whole.read_bytes())
    content[position : position + len(damage)] = damage
    path.write_bytes(content)
    for sample in read(path, num_classes=2):
        image = bytes_of(path, sample) if sample.status in (OK, BAD_LABEL) else b""
        assert sample.content_hash == xxhash.xxh3_128_digest(image)
        assert (sample.reason == "") == (sample.status == OK)


checksum_field = range(148, 156)


@given(st.integers(0, 511).filter(lambda i: i not in checksum_field), st.integers(0, 255))
def test_a_damaged_header_is_never_silent(
    tmp_path: Path, whole: Path, position: int, value: int
) -> None:
    second_sample = list_members(whole)[2]
    content = bytearray(whole.read_bytes())
    damaged = content[second_sample.offset + position] != value
    content[second_sample.offset + position] = value
    (tmp_path / "a.tar").write_bytes(content)
    found = read(tmp_path / "a.tar", num_classes=2)
    assert any(sample.status == TRUNCATED_TAR for sample in found) == damaged


@given(st.binary(max_size=3000))
def test_bytes_that_are_no_tar_are_one_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    if content.count(0) < len(content) or not content:
        statuses = [sample.status for sample in read(tmp_path / "a.tar")]
        assert statuses == [TRUNCATED_TAR]


def test_a_compressed_tar_is_one_row(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        add_member(tar, "a.jpg", b"x")
    (sample,) = read(tmp_path / "a.tar")
    assert sample.status == TRUNCATED_TAR


def test_a_header_with_a_negative_size_ends_the_tar_there(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ["a.jpg", "b.jpg"])
    content = bytearray(path.read_bytes())
    header = content[1024 : 1024 + 512]
    header[124:136] = b"\xff" * 11 + b"\x00"  # minus 256, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[1024 : 1024 + 512] = header
    path.write_bytes(content)
    found = read(path)
    assert [(s.key, s.status) for s in found] == [("a", OK), ("", TRUNCATED_TAR)]
    assert "negative size" in found[1].reason


def test_joined_tars_are_read_up_to_the_first_end_and_say_so(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "a.tar").write_bytes(2 * whole.read_bytes())
    found = read(tmp_path / "a.tar", num_classes=2)
    assert [s.status for s in found] == [OK] * len(WHOLE) + [TRUNCATED_TAR]
    assert "joined tars" in found[-1].reason


@given(st.integers(1, 60))
def test_the_zeros_that_fill_a_record_are_no_damage(tmp_path: Path, blocks: int) -> None:
    write_tar(tmp_path / "a.tar", [("a", {"jpg": bytes(512 * blocks)})])
    assert [s.status for s in read(tmp_path / "a.tar")] == [OK]


def test_zeros_where_samples_should_be_are_lost_samples(tmp_path: Path, whole: Path) -> None:
    """A download that had its size before its bytes."""
    content = whole.read_bytes()
    for kept in (0, content.index(b"cls") - 512 // 2):
        start = kept // 512 * 512
        (tmp_path / "a.tar").write_bytes(content[:start] + bytes(50_000))
        found = read(tmp_path / "a.tar", num_classes=2)
        assert found[-1].status == TRUNCATED_TAR
        assert "zeros from byte" in found[-1].reason


def test_an_error_of_the_disk_is_no_damage_of_the_tar(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would be recorded for good."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tars._Bounded, "read", fail)
    with pytest.raises(OSError, match="Input/output"):
        read(whole)


def test_an_image_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = tars.member_header("a.jpg", tars.MAX_BYTES + 1)
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(header)
        file.truncate(512 + tars.MAX_BYTES + 512 + 1024)  # sparse: it takes no disk
    tracemalloc.start()
    (found,) = read(tmp_path / "a.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.status, peak < 10_000_000) == (tars.TOO_LARGE, True)
    assert "1,073,741,825 bytes are more than" in found.reason


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    assert read(tmp_path / "a.tar") == []


def test_a_missing_tar_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read(tmp_path / "none.tar")


def test_a_header_that_claims_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"a" * 600)
    tracemalloc.start()
    shard = tars.read_shard(tmp_path / "a.tar", None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [sample.status for sample in shard.samples] == [tars.TRUNCATED_TAR]
    assert peak < 10_000_000

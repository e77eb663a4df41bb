import json
import os
from pathlib import Path

import pytest

from semisup import stamps, tables
from semisup.datasets import stamp_files


@pytest.fixture
def indexed(tmp_path: Path) -> tuple[list[str], Path]:
    """Two tars and the record of what they held."""
    paths = [str(tmp_path / name) for name in ("a.tar", "b.tar")]
    for path in paths:
        Path(path).write_bytes(path[-5:].encode() * 10)
    record = stamps.record_path(tmp_path / "manifest-00000.json")
    write(record, paths)
    return paths, record


def write(record: Path, paths: list[str]) -> None:
    sha256 = {path: tables.file_sha256(Path(path)) for path in paths}
    stamps.write_record(record, stamp_files(paths), sha256)


def touch(path: str) -> None:
    os.utime(path, ns=(1, os.stat(path).st_mtime_ns + 10**9))


def test_tars_left_alone_keep_their_stamp(indexed) -> None:
    paths, record = indexed
    assert stamps.Watch().stamp(paths, record) == stamp_files(paths)


def test_touched_tars_keep_their_stamp_and_are_hashed_once(indexed) -> None:
    paths, record = indexed
    before = stamp_files(paths)
    touch(paths[1])
    assert stamp_files(paths) != before
    watch = stamps.Watch()
    assert watch.stamp(paths, record) == before
    assert watch.budget < stamps.MAX_HASHED_BYTES
    again = stamps.Watch()
    assert again.stamp(paths, record) == before
    assert again.budget == stamps.MAX_HASHED_BYTES


def test_other_bytes_of_the_same_size_change_the_stamp(indexed) -> None:
    paths, record = indexed
    before = stamp_files(paths)
    Path(paths[0]).write_bytes(b"x" * os.path.getsize(paths[0]))
    touch(paths[0])
    assert stamps.Watch().stamp(paths, record) != before


def test_one_more_tar_changes_the_stamp(indexed, tmp_path: Path) -> None:
    paths, record = indexed
    (tmp_path / "c.tar").write_bytes(b"")
    assert stamps.Watch().stamp([*paths, str(tmp_path / "c.tar")], record) != stamp_files(paths)


def test_a_plan_hashes_no_more_than_its_budget(indexed) -> None:
    paths, record = indexed
    before = stamp_files(paths)
    touch(paths[0])
    assert stamps.Watch(max_hashed_bytes=10).stamp(paths, record) != before


def test_a_tar_modified_after_the_plan_is_not_recorded(indexed) -> None:
    paths, record = indexed
    record.unlink()
    planned = stamp_files(paths)
    touch(paths[0])
    stamps.write_record(record, planned, dict.fromkeys(paths, "hash"))
    assert not record.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stamp": "x", "tars": {"a": [1]}}', "\0"])
def test_a_damaged_record_is_as_none(indexed, content: str) -> None:
    paths, record = indexed
    record.write_text(content)
    assert stamps.Watch().stamp(paths, record) == stamp_files(paths)


def test_the_record_says_what_each_tar_held(indexed) -> None:
    paths, record = indexed
    seen = json.loads(record.read_text())["tars"][paths[0]]
    assert seen[0] == os.path.getsize(paths[0])
    assert seen[2] == tables.file_sha256(Path(paths[0]))

"""Scores of tars that moved to other parts are found in the tables they were written to."""

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chains import SHARDS, Chain, chain, digest, scored, teacher

from conftest import Dataset
from semisup import commits, models, passes, scored_shards, tables

__all__ = ["chain", "scored", "teacher"]

TABLES = [
    "images-00000.parquet",
    "images-00001.parquet",
    "part-00000.parquet",
    "part-00001.parquet",
]


def work(chain: Chain) -> list[Path]:
    return sorted(chain.folder.glob("work/*/*"))


def tables_of(folder: Path) -> list[str]:
    return [digest(folder / name) for name in TABLES]


def part_of_all(chain: Chain, make_dataset: Dataset) -> str:
    """What the tables of one part of all tars hold, in the folder of the chain."""
    (manifest,) = make_dataset(SHARDS, None, shards_per_part=len(SHARDS))
    chain.score(0, manifest)
    return digest(chain.folder / "part-00000.parquet") + digest(
        chain.folder / "images-00000.parquet"
    )


def rows_of(chain: Chain) -> list[Path]:
    return sorted(chain.folder.glob("work/??/*.parquet"))


def links(chain: Chain) -> list[Path]:
    return sorted(chain.folder.glob("work/parts/*"))


def test_when_all_is_counted_no_score_is_stored_twice(chain: Chain) -> None:
    assert len(rows_of(chain)) == len(SHARDS)
    chain.count()
    of_tables = {(chain.folder / name).stat().st_ino for name in TABLES}
    assert {path.stat().st_ino for path in links(chain)} == of_tables
    others = {path for path in work(chain) if path not in links(chain)}
    assert len(others) == len(SHARDS) and not any(path.stat().st_size for path in others)


def test_links_to_tables_that_were_written_anew_elsewhere_are_removed(chain: Chain) -> None:
    """As by scoring and describing in one pass, which links nothing; with them their marks."""
    chain.count()
    for name in TABLES:
        table = chain.folder / name
        tables.write_bytes(table, table.read_bytes())
    chain.count()
    assert work(chain) == []


def test_a_part_that_is_written_again_is_linked_again(chain: Chain) -> None:
    before = {path.name: path.stat().st_ino for path in links(chain)}
    for i, manifest in enumerate(chain.manifests):
        chain.score(i, manifest)
    assert {path.name for path in links(chain)} == before.keys()
    of_tables = {(chain.folder / name).stat().st_ino for name in TABLES}
    assert {path.stat().st_ino for path in links(chain)} == of_tables


def test_what_is_restored_is_what_was_committed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, failures included, so that it does not matter how often a tar moves."""
    committed = {path: digest(path) for path in rows_of(chain)}
    assert len(committed) == len(SHARDS)
    chain.count()
    assert not any(path.exists() for path in committed)
    restored: dict[Path, str] = {}
    original = scored_shards.restore

    def restore(shards: passes.Shards, classes_per_image: int) -> None:
        original(shards, classes_per_image)
        restored.update({path: digest(path) for path in shards.paths})

    monkeypatch.setattr(scored_shards, "restore", restore)
    for i, manifest in enumerate(chain.manifests):
        chain.score(i, manifest)
    assert restored == committed


def test_tars_in_other_parts_are_found_in_the_tables_of_the_former(
    chain: Chain, make_dataset: Dataset, scored: list[list[int]]
) -> None:
    calm = tables_of(chain.folder)
    chain.count()
    together = part_of_all(chain, make_dataset)
    assert scored == []
    chain.folder.joinpath("elsewhere").mkdir()
    alone = Chain(
        chain.folder / "elsewhere", make_dataset(SHARDS, None, shards_per_part=4), chain.teacher
    )
    assert together == digest(alone.folder / "part-00000.parquet") + digest(
        alone.folder / "images-00000.parquet"
    )
    del scored[:]
    back = Chain(chain.folder, make_dataset(SHARDS, None, shards_per_part=2), chain.teacher)
    assert scored == []
    assert tables_of(back.folder) == calm
    back.count()
    assert len(links(back)) == len(TABLES)


@pytest.mark.parametrize("damaged", ["part-00000.parquet", "images-00000.parquet"])
def test_shards_of_a_damaged_table_are_scored_again(
    chain: Chain, scored: list[list[int]], damaged: str
) -> None:
    """Though it is deleted, as its message says, the links lead to the same bytes."""
    calm = tables_of(chain.folder)
    chain.count()
    table = chain.folder / damaged
    with open(table, "r+b") as file:
        file.seek(30)
        file.write(b"\xff\x00\xff\x00")
    table.unlink()
    for i, manifest in enumerate(chain.manifests):
        chain.score(i, manifest)
    assert scored == [[0, 1]]
    assert tables_of(chain.folder) == calm


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"", 0, 1, ""), IndexError, KeyError]
)
def test_shards_are_scored_again_whatever_a_damaged_table_raises(
    chain: Chain, scored: list[list[int]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(path: Path) -> None:
        raise error

    chain.count()
    monkeypatch.setattr(scored_shards, "read_scores", fail)
    chain.score(0, chain.manifests[0])
    assert scored == [[0, 1]]


def test_scores_beside_images_of_others_are_scored_again(
    chain: Chain, scored: list[list[int]]
) -> None:
    chain.count()
    of_first = [
        path for path in work(chain) if path.samefile(chain.folder / "images-00000.parquet")
    ]
    for path in of_first:
        path.unlink()
        os.link(chain.folder / "images-00001.parquet", path)
    chain.score(0, chain.manifests[0])
    assert scored == [[0, 1]]


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV])
def test_where_files_cannot_be_linked_scores_are_kept_as_rows(
    chain: Chain,
    scored: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    make_dataset: Dataset,
    error: int,
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    calm = tables_of(chain.folder)
    monkeypatch.setattr(os, "link", no_links)
    run = Chain(chain.folder / "run", chain.manifests, chain.teacher)
    assert tables_of(run.folder) == calm
    run.count()
    assert work(run) == rows_of(run) and len(rows_of(run)) == len(SHARDS)
    del scored[:]
    part_of_all(run, make_dataset)
    assert scored == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no Linux")
def test_the_work_folder_may_be_on_another_file_system(chain: Chain) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        run = chain.folder / "run"
        run.mkdir()
        (run / "work").symlink_to(elsewhere)
        assert elsewhere.stat().st_dev != run.stat().st_dev
        assert tables_of(Chain(run, chain.manifests, chain.teacher).folder) == tables_of(
            chain.folder
        )
    finally:
        shutil.rmtree(elsewhere)


def test_rows_are_kept_until_both_tables_are_linked(chain: Chain, scored: list[list[int]]) -> None:
    """A job may be killed between the two."""
    for path in links(chain):
        if path.name.endswith(".images.parquet"):
            path.unlink()
    chain.count()
    assert len(rows_of(chain)) == len(SHARDS)
    chain.score(0, chain.manifests[0])
    assert scored == []


def test_a_writer_that_wakes_after_another_keeps_its_own_scores(
    chain: Chain, scored: list[list[int]], monkeypatch: pytest.MonkeyPatch, make_dataset: Dataset
) -> None:
    """With other weights: a job of a run that was killed, about to give its tables their names."""
    (manifest,) = make_dataset(SHARDS, None, "elsewhere", len(SHARDS))
    calm = Chain(chain.folder / "calm", [manifest], chain.teacher)
    weights = models.load(chain.teacher)
    weights.state["fc.bias"] += torch.arange(3)
    models.save(other := chain.folder / "other.pt", weights)
    publish = scored_shards.publish

    def wake_late(*arguments: Any) -> None:
        monkeypatch.setattr(scored_shards, "publish", publish)
        Chain(chain.folder, chain.manifests, other)
        publish(*arguments)

    monkeypatch.setattr(scored_shards, "publish", wake_late)
    chain.score(0, chain.manifests[0])
    both = {digest(path) for path in links(chain)}
    assert digest(chain.folder / "part-00000.parquet") in both
    del scored[:]
    assert part_of_all(chain, make_dataset) == digest(calm.folder / "part-00000.parquet") + digest(
        calm.folder / "images-00000.parquet"
    )
    assert scored == [[2, 3]]  # which the other has scored anew


class Killed(BaseException):
    pass


def killed_after(number: int, patch: pytest.MonkeyPatch) -> None:
    """Before the next change of a file."""
    left = itertools.count(number, -1)

    def of(change: Callable[..., None]) -> Callable[..., None]:
        def perhaps(*arguments: Any, **named: Any) -> None:
            if next(left) <= 0:
                raise Killed
            change(*arguments, **named)

        return perhaps

    for name in ("link", "replace", "unlink"):
        patch.setattr(os, name, of(getattr(os, name)))


def test_a_job_killed_between_any_two_changes_of_files_ends_the_same(
    chain: Chain, scored: list[list[int]], monkeypatch: pytest.MonkeyPatch, make_dataset: Dataset
) -> None:
    """Of the tables or of the work folder; nothing is scored again, there and in other parts."""
    calm = tables_of(chain.folder)
    for number in itertools.count():
        del scored[:]
        chain.count()
        for name in TABLES[::2]:
            (chain.folder / name).unlink(missing_ok=True)  # as Snakemake does
        with monkeypatch.context() as patch:
            killed_after(number, patch)
            try:
                chain.score(0, chain.manifests[0])
            except Killed:
                pass
            else:
                break
        chain.score(0, chain.manifests[0])
        assert tables_of(chain.folder) == calm
        assert scored == []
    assert number >= 12
    chain.count()
    together = part_of_all(chain, make_dataset)
    assert scored == []
    assert together == part_of_all(Chain(chain.folder / "calm", [], chain.teacher), make_dataset)


def test_tars_are_found_in_any_of_the_tables_that_hold_them(
    chain: Chain, make_dataset: Dataset, scored: list[list[int]]
) -> None:
    """Two parts may hold equal tars; the tables of one may be gone."""
    manifests = make_dataset([SHARDS[0], SHARDS[0]], None, "equal", 1)
    run = Chain(chain.folder / "equal", manifests, chain.teacher)
    run.count()
    del scored[:]
    for i, manifest in enumerate(manifests):
        run.score(i, manifest)
    assert scored == []


def test_what_else_lies_in_the_work_folder_is_no_link(chain: Chain) -> None:
    """What killed writers left, of tars that are in U, or what a file system hid."""
    first = rows_of(chain)[0]
    left = [first.with_name(f".{first.name}.x.tmp"), first.with_name(f"{first.stem}-.nfs0001")]
    for path in left:
        path.touch()
    chain.count()
    assert commits.find_marks(first)
    assert all(path.exists() for path in left)


def test_a_mark_is_of_one_tar_in_one_part(tmp_path: Path) -> None:
    """A part is its tars and the shard ids they have: in another place they are another part."""
    one, other = (commits.commit_path(tmp_path, sha, "with") for sha in ("a" * 64, "b" * 64))
    parts = [{0: one}, {1: one}, {0: one, 1: other}]
    for paths in parts:
        for table in commits.part_tables(tmp_path, commits.part_name(paths)):
            tables.write_bytes(table, b"")
    marks = [commits.mark_part(commits.part_name(paths), paths)[0] for paths in parts]
    assert {mark.part for mark in commits.find_marks(one)} == {mark.part for mark in marks}
    assert len({mark.part for mark in marks}) == len(parts)
    assert [mark.shard_id for mark in marks] == [0, 1, 0]
    commits.remove_others([one], [marks[1]])
    assert commits.find_marks(one) == [marks[1]]
    assert len(commits.find_marks(other)) == 1

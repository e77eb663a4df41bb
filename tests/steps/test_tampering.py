"""One row lost or doubled in any table: the books do not balance, and the run fails."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chains import Chain, chain, teacher
from made_report import Outcome

from semisup import rowcounts
from semisup.samples import samples_path
from semisup.tables import DataError

__all__ = ["chain", "teacher"]

READ_BY_THE_REPORT = [
    "datasets/labeled/samples-00000.parquet",
    "datasets/unlabeled/samples-00001.parquet",
    "duplicates/unlabeled/pairs.parquet",
    "scores/teacher/unlabeled/failures.parquet",
    "selections/top/selection.parquet",
    "selections/top/removed.parquet",
    "shards/top/samples-00000.parquet",
    "models/student/pretrain/metrics.parquet",
    "evaluations/student/finetune.parquet",
    "predictions/student/finetune.parquet",
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    made = Outcome(tmp_path_factory.mktemp("tampering"))
    made.make()
    return made


def lose(number: int) -> list[int]:
    return [row for row in range(number) if row != number // 2]


def double(number: int) -> list[int]:
    return sorted([*range(number), number // 2])


def rewrite(path: Path, change: Callable[[int], list[int]], honest_footer: bool) -> None:
    """``honest_footer``: as if the step itself had lost the row; else as if something else had."""
    with pq.ParquetFile(path) as file:
        table, footer = file.read(), file.metadata.metadata
    changed = table.take(pa.array(change(len(table)), pa.int64()))
    counts = rowcounts.count_rows(changed)
    if not honest_footer:
        counts = footer[rowcounts.KEY.encode()].decode()
    with pq.ParquetWriter(path, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({rowcounts.KEY: counts})


@pytest.mark.parametrize("change", [lose, double])
@pytest.mark.parametrize("name", READ_BY_THE_REPORT)
def test_a_row_lost_or_doubled_behind_the_back_of_the_steps_fails_the_run(
    outcome: Outcome, name: str, change: Callable[[int], list[int]]
) -> None:
    path = outcome.path(name)
    before = path.read_bytes()
    rewrite(path, change, honest_footer=False)
    with pytest.raises(DataError, match=re.escape(str(path))):
        outcome.write()
    path.write_bytes(before)


@pytest.mark.parametrize("change", [lose, double])
@pytest.mark.parametrize(
    "name",
    [name for name in READ_BY_THE_REPORT if "metrics" not in name and "pairs" not in name],
)
def test_a_row_a_step_itself_lost_or_doubled_does_not_balance(
    outcome: Outcome, name: str, change: Callable[[int], list[int]]
) -> None:
    path = outcome.path(name)
    before = path.read_bytes()
    rewrite(path, change, honest_footer=True)
    named = rf"{path}: .*shard \d" if "samples" in name else None
    with pytest.raises(DataError, match=named):
        outcome.write()
    path.write_bytes(before)


def test_a_packed_tar_that_is_shorter_than_it_was_fails_the_run(outcome: Outcome) -> None:
    tar = outcome.path("shards/top/0.tar")
    tar.write_bytes(b"")
    with pytest.raises(DataError, match=r"0.tar: 0 bytes; it was written with 1"):
        outcome.write()
    tar.write_bytes(b"0")


@pytest.mark.parametrize("change", [lose, double])
@pytest.mark.parametrize("name", ["part-00000.parquet", "images-00000.parquet"])
@pytest.mark.parametrize("honest_footer", [False, True])
def test_a_row_of_the_scores_lost_or_doubled_fails_the_count(
    chain: Chain, name: str, change: Callable[[int], list[int]], honest_footer: bool
) -> None:
    chain.count()
    rewrite(chain.folder / name, change, honest_footer)
    with pytest.raises(DataError, match=f"{name}: .*shard"):
        chain.count()


@pytest.mark.parametrize("change", [lose, double])
def test_a_row_of_the_index_lost_or_doubled_fails_every_step_that_reads_it(
    chain: Chain, change: Callable[[int], list[int]]
) -> None:
    path = samples_path(chain.manifests[0])
    rewrite(path, change, honest_footer=False)
    for step in (chain.count, lambda: chain.score(0, chain.manifests[0])):
        with pytest.raises(DataError, match=r"samples-00000.parquet: .*of shard [01]: "):
            step()


@pytest.mark.parametrize("change", [lose, double])
@pytest.mark.parametrize("honest_footer", [False, True])
def test_a_row_of_the_selection_lost_or_doubled_is_not_packed(
    chain: Chain, change: Callable[[int], list[int]], honest_footer: bool
) -> None:
    selection = chain.select()
    rewrite(selection, change, honest_footer)
    with pytest.raises(DataError, match=r"selection.parquet: "):
        chain.pack()

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import Dataset
from semisup import samples, tables, tars
from semisup.images import ImageError
from semisup.samples import read_samples
from semisup.tables import DataError
from small import ROOT, make_jpeg

IMAGES = [make_jpeg(i) for i in range(6)]
SHARDS = [
    [("a", {"jpg": IMAGES[0], "cls": b"0"}), ("b", {"jpg": IMAGES[1], "cls": b"1"})],
    [("c", {"cls": b"1"}), ("d", {"jpg": IMAGES[2], "cls": b"9"})],
    [("e", {"jpg": IMAGES[3], "cls": b"-1"}), ("f", {"jpg": IMAGES[4], "cls": b"0"})],
]


def test_rows_of_all_parts_stand_in_the_order_of_identity(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    assert dataset.dataset == "data"
    assert dataset.table["key"].to_pylist() == list("abcdef")
    assert dataset.table["shard_id"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert dataset.table["sample_index"].to_pylist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("shards_per_part", [1, 2, 3, 100])
def test_rows_do_not_depend_on_the_parts(make_dataset: Dataset, shards_per_part: int) -> None:
    whole = read_samples(make_dataset(SHARDS, 2, "whole"))
    dataset = read_samples(make_dataset(SHARDS, 2, "other", shards_per_part))
    assert dataset.table.to_pylist() == whole.table.to_pylist()
    assert sorted(dataset.shard_paths) == [0, 1, 2]


def test_a_row_reads_the_bytes_of_its_image(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    assert [dataset.read(row) for row in (0, 1, 3, 4, 5)] == IMAGES[:5]


def test_a_row_without_image_is_an_image_error(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    with pytest.raises(ImageError) as caught:
        dataset.read(2)
    assert caught.value.kind == "read_error"


def test_a_tar_that_is_gone_is_an_error_of_the_dataset(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    samples.check_tars(dataset)
    os.remove(dataset.shard_paths[1])
    with pytest.raises(DataError, match=r"1 of the 3 indexed tars of 'data' are gone, .*00001.tar"):
        samples.check_tars(dataset)


def test_a_tar_that_became_shorter_is_an_image_error_naming_it(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    path = dataset.shard_paths[2]
    os.truncate(path, 2000)
    with pytest.raises(ImageError, match=f"{path} ends before byte") as caught:
        dataset.read(5)
    assert caught.value.kind == "read_error"


def test_a_tar_that_is_gone_is_an_image_error_naming_it(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    path = Path(dataset.shard_paths[0])
    path.rename(path.with_suffix(".away"))
    with pytest.raises(ImageError, match=f"{path}: No such file") as caught:
        dataset.read(0)
    assert caught.value.kind == "read_error"


def test_many_tars_are_read_with_a_bounded_number_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.bin" for i in range(3 * samples.MAX_OPEN_TARS)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%05d" % i)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for i, path in enumerate(paths):
            assert samples.read_range(str(path), 0, 5) == b"%05d" % i
    assert len(os.listdir("/proc/self/fd")) - before <= samples.MAX_OPEN_TARS


@pytest.mark.parametrize("most", [64, 4096], ids=["no more allowed", "more allowed"])
def test_tars_are_read_where_few_files_may_be_open(tmp_path: Path, most: int) -> None:
    for i in range(100):
        (tmp_path / f"{i}.bin").write_bytes(b"%03d" % i)
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {most}))\n"
        "from semisup.samples import read_range, will_read\n"
        "for i in [*range(100), *range(100)]:\n"
        "    path = f'{sys.argv[1]}/{i}.bin'\n"
        "    will_read(path, 0, 3)\n"
        "    assert read_range(path, 0, 3) == b'%03d' % i\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)


def test_the_samples_table_stands_beside_its_manifest() -> None:
    path = samples.samples_path(Path("x/manifest-00003.json"))
    assert path == Path("x/samples-00003.parquet")


def test_a_samples_table_that_is_not_the_manifests_is_refused(make_dataset: Dataset) -> None:
    first, second, _ = make_dataset(SHARDS, num_classes=2)
    samples.samples_path(first).write_bytes(samples.samples_path(second).read_bytes())
    with pytest.raises(DataError, match=r"samples-00000.parquet: not the table .*manifest-00000"):
        read_samples([first])


def test_statuses_are_one_column_whatever_each_part_holds(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    statuses = dataset.table["status"].cast(pa.string()).to_pylist()
    assert statuses == [tars.OK, tars.OK, tars.MISSING_IMAGE, tars.BAD_LABEL, tars.OK, tars.OK]


@pytest.mark.parametrize(
    ("statuses", "rows"),
    [
        ([tars.OK], [0, 1, 4, 5]),
        ([tars.OK, tars.BAD_LABEL], [0, 1, 3, 4, 5]),
        ([tars.MISSING_IMAGE], [2]),
        (["another"], []),
        ([], []),
    ],
)
def test_rows_with_status(make_dataset: Dataset, statuses: list[str], rows: list[int]) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    assert samples.rows_with_status(dataset, *statuses).tolist() == rows


def test_labelled_rows_are_readable_and_have_a_label(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=2))
    assert samples.labelled_rows(dataset).tolist() == [0, 1, 5]


def test_a_dataset_without_labels_is_refused_by_name(make_dataset: Dataset) -> None:
    dataset = read_samples(make_dataset(SHARDS, num_classes=None, name="photos"))
    with pytest.raises(DataError, match="'photos' has no labelled image among its 6 samples"):
        samples.labelled_rows(dataset)


def test_a_dataset_whose_labels_are_no_numbers_is_refused_with_the_reason(
    make_dataset: Dataset,
) -> None:
    shard = [(f"{i}", {"jpg": SHARDS[0][0][1]["jpg"], "cls": b"circle"}) for i in range(3)]
    dataset = read_samples(make_dataset([shard], num_classes=2))
    with pytest.raises(DataError, match=r"reason, 3 times: \.cls is 'circle', not an integer"):
        samples.labelled_rows(dataset)


def test_an_empty_tar_is_a_part_without_rows(make_dataset: Dataset) -> None:
    manifests = make_dataset([[], SHARDS[0]], num_classes=2)
    assert read_samples(manifests[:1]).table.num_rows == 0
    assert read_samples(manifests).table["shard_id"].to_pylist() == [1, 1]
    assert tables.read_json(manifests[0])["statuses"] == {}

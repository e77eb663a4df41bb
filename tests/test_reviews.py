"""The evaluation side of what people decided; that of U is tested with what it removes."""

from pathlib import Path

import pytest

from conftest import Dataset, make_jpeg
from semisup.checks import ConfigError, load_config
from semisup.reviews import check_evaluation_images
from semisup.tables import DataError
from small import read_config

HEADER = (
    "shard_id,sample_index,decision,evaluation_dataset,evaluation_shard_id,evaluation_sample_index"
)


@pytest.fixture
def manifests(make_dataset: Dataset) -> list[Path]:
    """Two sets; of the first, one in two parts, the keys are a, b, c and d."""
    shards = [[(key, {"jpg": make_jpeg(ord(key))}) for key in keys] for keys in ("ab", "cd")]
    other = [[("z", {"jpg": make_jpeg(1)})]]
    return [*make_dataset(shards, None, "test"), *make_dataset(other, None, "more")]


def review(folder: Path, *lines: str, header: str = f"{HEADER},evaluation_key") -> Path:
    path = folder / "reviewed.csv"
    path.write_text("\n".join([header, *lines, ""]))
    return path


@pytest.mark.parametrize(
    "line", ["0,0,keep,test,0,1,b", "0,0,keep,test,1,0,c", "9,9,remove,more,0,0,z",
             "0,0,keep,elsewhere,7,7,x"],
)  # fmt: skip
def test_images_as_they_stand_there_are_known(tmp_path, manifests, line: str) -> None:
    check_evaluation_images(review(tmp_path, "0,0,keep,test,0,0,a", line), manifests)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "0,0,keep,test,0,1,c",
            r"1 unknown keys of test: 'c' \(sample 1 of shard 0 is 'b'\).* test ",
        ),
        ("0,0,keep,more,0,0,a", r"1 unknown keys of more: 'a' \(sample 0 of shard 0 is 'z'\)"),
        ("0,0,keep,test,2,0,a", r"1 images are not in test: a \(sample 0 of shard 2\)"),
        ("0,0,remove,test,0,-1,a", "evaluation_sample_index must be whole numbers from 0"),
    ],
)
def test_other_images_are_refused_and_named(tmp_path, manifests, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_evaluation_images(review(tmp_path, "0,0,keep,test,0,0,a", line), manifests)


def test_a_list_without_their_keys_is_checked_by_place(tmp_path, manifests) -> None:
    check_evaluation_images(review(tmp_path, "0,0,keep,test,1,1", header=HEADER), manifests)
    with pytest.raises(DataError, match=r"1 images are not in test: image \(sample 2 of shard 1"):
        check_evaluation_images(review(tmp_path, "0,0,keep,test,1,2", header=HEADER), manifests)
    whole = review(tmp_path, "0,0,keep", header="shard_id,sample_index,decision")
    check_evaluation_images(whole, manifests)


def configured(path: Path) -> None:
    raw = read_config()
    raw["duplicates"]["remove"]["reviewed"] = str(path)
    load_config(raw)


def test_names_of_datasets_there_are_not_are_refused_before_any_job(tmp_path) -> None:
    header = f"dataset,{HEADER}"
    configured(review(tmp_path, "unlabeled,0,0,keep,test,0,0", header=header))
    configured(review(tmp_path, "0,0,keep", header="shard_id,sample_index,decision"))
    configured(review(tmp_path, "\0"))  # what is no table is for the step to say
    for line, what in (
        ("unlabelled,0,0,keep,test,0,0", "dataset 'unlabelled', .* did you mean unlabeled?"),
        ("unlabeled,0,0,keep,tset,0,0", "evaluation_dataset 'tset', .* did you mean test?"),
    ):
        with pytest.raises(ConfigError, match=f"duplicates.remove.reviewed: .* has {what}"):
            configured(review(tmp_path, line, header=header))

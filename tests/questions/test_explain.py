"""What is said of one image, from a selection made here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_selection import NUM_IMAGES, TOP, index, make_selection, prepare, write_part

from semisup import schemas, tables, tars
from semisup.plan import Plan
from semisup.questions import explain, sizes
from semisup.selection import Ranked
from semisup.tables import DataError
from small import ROOT, make_jpeg


def ask(
    folder: Path,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    **keys: Any,
) -> str:
    """What is said of an image in a new selection with these ``keys``."""
    patch.chdir(folder)
    make_selection(prepare(**keys))
    return explained(capsys, key)


def explained(capsys: pytest.CaptureFixture[str], key: str) -> str:
    explain.main(Path("config.yaml"), "top", key)
    return capsys.readouterr().out


def test_a_least_score_near_one_tells_scores_apart_that_float32_does_not(
    tmp_path, monkeypatch, capsys
) -> None:
    """Of log-odds from 18.5 to 21.14; a probability in float32 is 1 for all."""
    least = {"images_per_class": 9, "min_score": 1 - 1e-9}  # 20.72
    text = ask(tmp_path, monkeypatch, capsys, "u0-5", shift=18.0, **least)
    assert "bee: score > 0.999999 (log-odds 21.0000), selected: rank 2 of 2" in text
    below = "ant: score > 0.999999 (log-odds 20.5000), below min_score 0.999999999"
    assert below in explained(capsys, "u0-4")


def test_ranked_by_logits_an_image_below_the_least_score_says_so(
    tmp_path, monkeypatch, capsys
) -> None:
    text = ask(tmp_path, monkeypatch, capsys, "u0-5", rank_by="logit", min_score=0.94)
    assert re.search(r"bee: score 0\.95\d+ .*, logit .*, selected: rank 2 of", text)
    assert re.search(
        r"ant: score 0\.92\d+ .*, logit .*, below min_score", explained(capsys, "u0-4")
    )


def test_scores_made_anew_are_not_explained_by_the_selection_of_others(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare()
    folder = make_selection(plan)
    write_part(plan, 1)
    assert "selected" in explained(capsys, "u0-5")
    write_part(plan, 1, shift=1e-6)
    for ask_something in (explain.main, lambda *_: sizes.main(*_[:2], "2", "1", "1")):
        with pytest.raises(
            DataError, match=f"{folder}: the scores were made anew .* Run snakemake"
        ):
            ask_something(Path("config.yaml"), "top", "u0-5")


def write_images(path: str, key: str, first: int) -> None:
    """A tar of six images."""
    samples = [
        (f"{key}-{i}", {"jpg": make_jpeg(first + i), "cls": b"%d" % (i % 2)}) for i in range(6)
    ]
    tars.write_tar(Path(path), samples)


@pytest.mark.parametrize(
    "parts",
    [
        [["new.tar", "u-0.tar"], ["u-1.tar"]],
        [["u-0.tar"], ["u-1.tar", "new.tar"]],
        [["u-0.tar"], ["changed.tar"]],
    ],
    ids=["in front", "behind", "changed"],
)
def test_an_index_made_anew_is_not_looked_up_in_the_results_of_another(
    tmp_path, monkeypatch, capsys, parts
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare()
    folder = make_selection(plan)
    index(plan, "unlabeled", 1, ["u-1.tar"], first_shard=1)
    assert "selected" in explained(capsys, "u0-5")
    write_images("new.tar", "new", 100)
    write_images("changed.tar", "u1", 200)
    first_shard = 0
    for part, shards in enumerate(parts):
        index(plan, "unlabeled", part, shards, first_shard)
        first_shard += len(shards)
    for ask_something in (explain.main, lambda *_: sizes.main(*_[:2], "2", "1", "1")):
        with pytest.raises(DataError, match=f"{folder}: the index was made anew .* Run snakemake"):
            ask_something(Path("config.yaml"), "top", "u0-5")


def test_a_selection_made_before_the_index_was_recorded_is_explained(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_selection(prepare()) / "settings.json"
    made_with = tables.read_json(path)
    del made_with["index"]
    tables.write_json(path, made_with)
    assert "selected" in explained(capsys, "u0-5")


def test_a_configuration_with_a_key_that_stands_twice_is_not_asked(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\nmodels: {}\nseed: 2\n")
    with pytest.raises(
        DataError, match=r"config\.yaml: cannot work:\n  seed: stands .* lines 1, 3;"
    ):
        explain.main(path, "top", "u0-5")


def write_duplicates(plan: Plan) -> None:
    """Of the first part: image 0 is close to test images 0 and 1, image 1 to 2; 2 is a copy of 3 and 4.

    Of the second: image 0 is a copy of image 3 of the first, image 1 is close to its image 4.
    """
    write_images("test.tar", "t", 300)
    index(plan, "test", 0, ["test.tar"])
    close = [(0, 0, 0.1), (1, 2, 0.3)]
    for part, path in enumerate(plan.selection_nearest(TOP)):
        tables.write_table(Path(path), pairs([] if part else close), schemas.NEAREST)
    rows = pairs([*close, (0, 1, 0.2)])
    rows |= {name: ["k"] * 3 for name in ("key", "evaluation_key")}
    tables.write_table(Path(plan.selection_pairs(TOP)[0]), rows, schemas.DUPLICATES)
    copies = {
        "shard_id": [0, 0, 1], "sample_index": [2, 2, 0],
        "first_dataset": ["test", "test", "unlabeled"],
        "first_shard_id": [0, 0, 0], "first_sample_index": [3, 4, 3],
        "same": ["bytes", "pixels", "bytes"],
    }  # fmt: skip
    tables.write_table(Path(plan.selection_copies(TOP)[0]), copies, schemas.COPIES)
    near = {"shard_id": [1], "sample_index": [1], "first_shard_id": [0], "first_sample_index": [4]}
    path = Path(plan.selection_near_copies(TOP)[0])
    tables.write_table(path, {**near, "distance": [0.05]}, schemas.NEAR_COPIES)


def pairs(found: list[tuple[int, int, float]]) -> dict[str, list[Any]]:
    return {
        "shard_id": [0] * len(found),
        "sample_index": [image for image, _, _ in found],
        "evaluation_dataset": ["test"] * len(found),
        "evaluation_shard_id": [0] * len(found),
        "evaluation_sample_index": [other for _, other, _ in found],
        "distance": [distance for _, _, distance in found],
    }


REVIEW = "shard_id,sample_index,evaluation_dataset,evaluation_shard_id,evaluation_sample_index,decision\n"


@pytest.mark.parametrize(
    ("review", "key", "expected"),
    [
        ("", "u0-0", "a near-duplicate of t-0 (sample 0 of test.tar, test), at distance 0.1000"),
        ("0,0,test,0,0,keep", "u0-0",
         "a near-duplicate of t-1 (sample 1 of test.tar, test), at distance 0.2000"),
        ("0,0,test,0,0,keep\n0,0,test,0,1,remove", "u0-0",
         "a near-duplicate of t-1 (sample 1 of test.tar, test), at distance 0.2000"),
        ("0,0,test,0,0,keep\n0,0,test,0,1,keep\n0,0,test,0,5,remove", "u0-0", "by the review"),
        ("0,1,test,0,2,remove", "u0-1", "by the review"),
        ("0,5,test,0,2,remove", "u0-5", "by the review"),
        ("", "u0-2", "the same bytes as t-3 (sample 3 of test.tar, test)"),
        ("0,2,test,0,3,keep", "u0-2", "the same pixels as t-4 (sample 4 of test.tar, test)"),
        ("", "u1-0", "the same bytes as u0-3 (sample 3 of u-0.tar, unlabeled)"),
        ("", "u1-1", "close to u0-4 (sample 4 of u-0.tar, unlabeled), at distance 0.0500"),
    ],
)  # fmt: skip
def test_a_removed_image_is_explained_by_what_decided(
    tmp_path, monkeypatch, capsys, review, key, expected
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reviewed.csv").write_text(REVIEW + review)
    plan = prepare(remove={"max_distance": 0.25, "reviewed": "reviewed.csv"})
    write_duplicates(plan)
    make_selection(plan)
    assert f"  removed: {expected}\n" in explained(capsys, key)


def test_one_of_the_closest_is_explained_by_what_it_is_close_to(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare(remove={"closest": 2})
    write_duplicates(plan)
    make_selection(plan)
    expected = "a near-duplicate of t-2 (sample 2 of test.tar, test), at distance 0.3000"
    assert f"  removed: {expected}\n" in explained(capsys, "u0-1")


@pytest.mark.parametrize("change", ["fewer images", "no index", "no such set"])
def test_an_evaluation_image_that_is_no_longer_there_has_no_name(
    tmp_path, monkeypatch, change
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare(remove={"max_distance": 0.25})
    write_duplicates(plan)
    make_selection(plan)
    if change == "fewer images":
        tars.write_tar(Path("test.tar"), [("t-5", {"jpg": make_jpeg(5), "cls": b"0"})])
        index(plan, "test", 0, ["test.tar"])
    elif change == "no index":
        Path(plan.manifests("test")[0]).unlink()
    else:
        text = Path("config.yaml").read_text()
        Path("config.yaml").write_text(
            text.replace("  test:", "  other:").replace("- test", "- other")
        )
    with pytest.raises(DataError, match=r"or an evaluation set was\. Run snakemake first"):
        explain.main(Path("config.yaml"), "top", "u0-2")


def test_where_logits_rank_the_cut_is_a_logit(tmp_path, monkeypatch, capsys) -> None:
    text = ask(tmp_path, monkeypatch, capsys, "u0-5", rank_by="logit", images_per_class=2)
    last = (
        pd.read_parquet("results/selections/top/selection.parquet")
        .query("class_name == 'bee'")
        .iloc[-1]
    )
    assert (last.class_name, last.class_rank) == ("bee", 2)
    logsumexp = NUM_IMAGES - last.sample_index
    logit = logsumexp - np.log1p(np.exp(-float(last.log_odds)))
    said = f"behind the last selected, whose logit is {logit:.4f} (score {last.score:.6f})"
    assert said in text


def test_a_class_without_a_share_is_said(tmp_path, monkeypatch, capsys) -> None:
    """No image has cow for its best class: by Zipf's law its K is 0."""
    text = ask(tmp_path, monkeypatch, capsys, "u0-5", images_per_class=1, variant="zipf")
    assert "cow: score 0.268941 (log-odds -1.0000), but no image of this class is wanted" in text


def test_a_class_without_a_stored_score_has_none() -> None:
    """Chance chooses by label, whatever the teacher says."""
    stored = Ranked(
        np.array([2, 0], np.int16), np.array([1.5, -3], np.float32), np.zeros(2, np.int64),
        np.array([1, 2], np.int8),
    )  # fmt: skip
    log_odds, ranks = explain._of_classes(stored, np.array([0, 1], np.int16))
    np.testing.assert_array_equal(log_odds, np.array([-3, np.nan], np.float32))
    assert ranks.tolist() == [2, 0]


def test_a_key_of_two_samples_is_told_of_both(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare()
    write_images("u-1.tar", "u0", 50)
    index(plan, "unlabeled", 1, ["u-1.tar"], first_shard=1)
    make_selection(plan)
    told = [line for line in explained(capsys, "u0-3").splitlines() if line.startswith("u")]
    assert told == ["u0-3: sample 3 of u-0.tar", "u0-3: sample 3 of u-1.tar"]


@pytest.mark.parametrize(
    "key",
    ["o'brien", "-n", "--help", "$(shell touch pwned)", "$(", "a$b", "$$(touch pwned)", "a b ",
     "`touch pwned`", "'; touch pwned; '", 'é "x" \\ # % =', "one\ntwo"],
)  # fmt: skip
def test_make_asks_for_a_key_as_it_is_given(tmp_path, monkeypatch, key) -> None:
    monkeypatch.chdir(tmp_path)
    make_selection(prepare())
    Path("workflow").symlink_to(ROOT / "workflow")
    words = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", "explain", f"KEY={key}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(words, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert f"error: no sample of U has the key {key!r}.\n" in done.stderr
    assert not list(tmp_path.rglob("pwned"))


def command(name: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """As a process of its own, which says what it imports."""
    environment = os.environ | {"PYTHONPATH": str(Path(explain.__file__).parents[2])}
    question = ["--configfile", "config.yaml", "--selection", "top", *options]
    words = [sys.executable, "-X", "importtime", "-m", f"semisup.questions.{name}", *question]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True)


def test_the_command_takes_no_time_to_import_pandas(tmp_path, monkeypatch, capsys) -> None:
    """PyArrow would, for an image that is not removed, of which nothing is a frame."""
    text = ask(tmp_path, monkeypatch, capsys, "u0-5")
    done = command("explain", "--key", "u0-5")
    assert done.stdout == text
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "pyarrow" in imported
    assert not [name for name in imported if name.startswith("pandas.")]


def test_a_command_that_needs_pandas_has_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_selection(prepare())
    done = command("sizes", "--k", "2 3", "--p", "1", "--fraction", "1")
    assert "pandas.core.frame" in done.stderr
    assert "|D-hat|" in done.stdout

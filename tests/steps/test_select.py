"""What of the scores is selected, whatever the parts."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chains import SHARDS, Chain, chain, digest, scored, stored, teacher

from browser import Browser
from conftest import Dataset, make_jpeg
from semisup import changes, schemas, tables
from semisup.config import Remove
from semisup.review.page import render
from semisup.samples import read_samples
from semisup.tables import DataError

__all__ = ["chain", "scored", "teacher"]


def test_a_review_of_other_evaluation_images_is_refused(
    chain: Chain, tmp_path: Path, make_dataset: Dataset
) -> None:
    """As after the evaluation set was made anew, in another order."""
    chain.evaluation = make_dataset([[(k, {"jpg": make_jpeg(1)}) for k in "ab"]], None, "test")
    reviewed = tmp_path / "reviewed.csv"
    names = "evaluation_dataset,evaluation_shard_id,evaluation_sample_index,evaluation_key"
    reviewed.write_text(f"shard_id,sample_index,{names},decision\n0,0,test,0,0,b,keep\n")
    with pytest.raises(
        DataError, match=r"1 unknown keys of test: 'b' \(sample 0 of shard 0 is 'a'"
    ):
        chain.select(k=3, p=1, remove=Remove(), reviewed=reviewed)


def test_selection_and_tars_do_not_depend_on_parts_workers_or_who_is_first(
    tmp_path: Path, make_dataset: Dataset, teacher: Path
) -> None:
    shards = [
        *SHARDS,
        SHARDS[1],
        SHARDS[0],
        [(k, {"jpg": make_jpeg(i)}) for i, k in enumerate("ab")],
    ]
    runs = []
    for num_parts, size, workers in ((1, 7, 0), (2, 4, 2), (7, 1, 1)):
        manifests = make_dataset(shards, None, "data", shards_per_part=size)
        assert len(manifests) == num_parts
        run = Chain(tmp_path / str(num_parts), manifests, teacher, workers)
        for part in np.random.default_rng(num_parts).permutation(num_parts).tolist():
            run.score(part, manifests[part])
        selection = run.select()
        packed = run.pack(shards_per_part=num_parts)
        samples = read_samples(sorted(packed.glob("manifest-*"))).table
        tars = sorted((packed / "tars").rglob("*.tar"))
        runs.append([digest(selection), samples, *map(digest, tars)])
    assert runs[0] == runs[1] == runs[2]


def test_fewer_classes_per_image_or_images_per_class_are_a_subset(chain: Chain) -> None:
    whole = pd.read_parquet(chain.select(k=100, p=2))
    first = pd.read_parquet(chain.select(k=100, p=1))
    assert len(whole) == 44
    assert len(first) == 22
    few = pd.read_parquet(chain.select(k=2, p=2))
    pd.testing.assert_frame_equal(
        few, whole[whole.class_rank <= 2].reset_index(drop=True), check_like=False
    )


def test_a_fraction_of_u_is_part_of_a_larger_one_and_is_counted(chain: Chain) -> None:
    found = []
    for fraction in (0.25, 0.5, 1.0):
        rows = pd.read_parquet(chain.select(k=100, p=1, fraction=fraction))
        summary = json.loads((chain.folder / "summary.json").read_text())
        assert len(rows) == summary["num_candidates"]
        assert summary["num_candidates"] + summary["num_not_drawn"] == 22
        found.append(set(rows.key))
    assert found[0] < found[1] < found[2]


def test_zipf_takes_more_of_the_classes_that_are_best_of_more_images(chain: Chain) -> None:
    rows = pd.read_parquet(chain.select(k=4, p=2, variant="zipf"))
    summary = json.loads((chain.folder / "summary.json").read_text())
    wanted = [entry["num_wanted"] for entry in summary["classes"]]
    scores = stored(chain)
    num_best = [((scores.class_id == c) & (scores.prediction_rank == 1)).sum() for c in range(3)]
    by_frequency = sorted(range(3), key=lambda c: -num_best[c])
    # 12 x 1, 1/2, 1/3 over their sum are 6.5, 3.3, 2.2: the one left over goes to the first.
    assert [wanted[c] for c in by_frequency] == [7, 3, 2]
    supply = scores.groupby("class_id").size()
    assert rows.groupby("class_id").size().to_dict() == {
        c: min(wanted[c], supply[c]) for c in supply.index
    }


def test_ranked_by_logit_the_largest_logits_are_chosen_with_their_scores(chain: Chain) -> None:
    rows = pd.read_parquet(chain.select(k=3, rank_by="logit"))
    scores = stored(chain)
    scores["logit"] = -np.logaddexp(0, -scores.log_odds.astype(float)) + scores.logsumexp
    order = ["class_id", "logit", "shard_id", "sample_index"]
    scores = scores.sort_values(order, ascending=[True, False, True, True])
    best = scores.groupby("class_id").head(3).reset_index(drop=True)
    names = ["class_id", "shard_id", "sample_index", "log_odds", "prediction_rank"]
    pd.testing.assert_frame_equal(rows[names], best[names])
    by_softmax = pd.read_parquet(chain.select(k=3))
    assert not rows[names].equals(by_softmax[names])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logsumexp_that_is_not_finite_is_refused_naming_the_part(
    chain: Chain, value: float
) -> None:
    path = chain.folder / "images-00001.parquet"
    table = tables.read_table(path, schemas.IMAGES)
    logsumexp = table["logsumexp"].to_numpy().copy()
    logsumexp[-4] = value  # of an image that is scored
    assert table["status"][len(table) - 4].as_py() == "ok"
    columns = {name: table[name] for name in table.column_names} | {"logsumexp": logsumexp}
    tables.write_table(path, columns, schemas.IMAGES)
    with pytest.raises(DataError, match=r"images-00001\.parquet: logsumexp is not finite"):
        chain.select(rank_by="logit")


def test_ranked_by_logit_min_score_is_still_a_probability(chain: Chain) -> None:
    scores = 1 / (1 + np.exp(-stored(chain).log_odds.astype(float)))
    least = float(scores.median())
    rows = pd.read_parquet(chain.select(k=100, rank_by="logit", min_score=least))
    assert len(rows) == (scores.astype(np.float32) >= np.float32(least)).sum()


def test_random_chooses_images_by_their_label_whatever_their_score(
    tmp_path: Path, make_dataset: Dataset, teacher: Path
) -> None:
    shards = [
        [
            (f"s{s}-{i}", {"jpg": make_jpeg(100 * s + i), "cls": str(i % 2).encode()})
            for i in range(10)
        ]
        for s in range(2)
    ]
    shards[1].append(("broken", {"jpg": make_jpeg(1)[:-40], "cls": b"1"}))
    chain = Chain(tmp_path / "run", make_dataset(shards, 2, shards_per_part=1), teacher)
    rows = pd.read_parquet(chain.select(k=4, variant="random", tags=[2, 0]))
    summary = json.loads((chain.folder / "summary.json").read_text())
    assert [entry["num_images"] for entry in summary["classes"]] == [4, 0, 4]
    assert {entry["cut_score"] for entry in summary["classes"]} == {None}  # chance has no cut
    assert (rows.class_id == np.where(rows.sample_index % 2, 0, 2)).all()
    everything = pd.read_parquet(chain.select(k=99, variant="random", tags=[2, 0]))
    assert "broken" not in set(everything.key)
    assert len(everything) == 20
    first = everything[everything.class_rank <= 4].reset_index(drop=True)
    assert first.key.tolist() == rows.key.tolist()
    scores = stored(chain).set_index(["class_id", "shard_id", "sample_index"]).log_odds
    wanted = scores.reindex(pd.MultiIndex.from_frame(everything[scores.index.names]))
    assert 0 < wanted.isna().sum() < 20
    np.testing.assert_array_equal(everything.log_odds.to_numpy(), wanted.to_numpy())


def test_new_shards_are_scored_alone_and_the_selection_is_that_from_scratch(
    tmp_path: Path, make_dataset: Dataset, teacher: Path
) -> None:
    manifests = make_dataset(SHARDS, None, shards_per_part=1)
    grown = Chain(tmp_path / "grown", manifests[:2], teacher)
    before = pd.read_parquet(grown.select(k=5))
    assert not (grown.folder / "changes.parquet").exists()
    scored = {path: digest(path) for path in grown.folder.glob("part-*")}
    for i, manifest in enumerate(manifests[2:], start=2):
        grown.score(i, manifest)
    grown.manifests = manifests
    after = pd.read_parquet(grown.select(k=5))
    whole = Chain(tmp_path / "whole", manifests, teacher)
    assert digest(grown.folder / "selection.parquet") == digest(whole.select(k=5))
    assert all(digest(path) == before for path, before in scored.items())

    changes = pd.read_parquet(grown.folder / "changes.parquet")
    pairs = ["class_id", "key"]
    was, now = (set(map(tuple, t[pairs].to_numpy())) for t in (before, after))
    for change, expected in (("entered", now - was), ("left", was - now)):
        rows = changes[changes.change == change]
        assert expected
        assert sorted(map(tuple, rows[pairs].to_numpy())) == sorted(expected)


def test_one_of_two_images_with_the_same_bytes_that_leaves_is_said(chain: Chain) -> None:
    """And the report, which reads what is said, has it by class."""
    selection = chain.select(k=100, p=1)
    before = tables.read_table(selection, schemas.SELECTION)
    (first, copy) = np.flatnonzero(np.isin(before["key"].to_numpy(), ["s0-4", "copy"]))
    rows = [row for row in range(len(before)) if row != first]
    after = selection.with_name("after.parquet")
    kept = before.take(rows)
    tables.write_table(after, {n: kept[n] for n in kept.column_names}, schemas.SELECTION)
    assert changes.find_changes(selection, after).select(["change", "key"]).to_pylist() == [
        {"change": "left", "key": "copy"}
    ]
    assert changes.find_changes(after, selection)["change"].to_pylist() == ["entered"]
    assert changes.read_changes(selection) is None
    record = selection.with_name("last.parquet")
    after.replace(selection)
    changes.record_changes(selection)
    class_name = before["class_name"][int(copy)].as_py()
    assert changes.read_changes(selection) == [(class_name, 0, 1)]
    assert digest(record) == digest(selection)


def test_a_last_selection_that_cannot_be_read_is_said_and_replaced(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    last = chain.folder / "last.parquet"
    last.write_bytes(b"not a table")
    assert digest(chain.select()) == digest(last)
    assert "not compared with the selection before" in caplog.text


def test_a_part_without_images_is_no_obstacle(
    tmp_path: Path, make_dataset: Dataset, teacher: Path
) -> None:
    whole = Chain(tmp_path / "whole", make_dataset(SHARDS, None, "whole"), teacher)
    gap = Chain(tmp_path / "gap", make_dataset([SHARDS[0], [], *SHARDS[1:]], None, "gap"), teacher)
    keys = []
    for each in (whole, gap):
        each.count()
        for rank_by in ("softmax", "logit"):
            rows = pd.read_parquet(each.select(k=3, rank_by=rank_by))
            keys.append(rows[["class_id", "key"]].to_numpy().tolist())
    assert keys[0] == keys[2] and keys[1] == keys[3]


def test_an_empty_selection_is_refused_saying_where_the_images_went(chain: Chain) -> None:
    with pytest.raises(DataError, match=r"Of 22 scored images 0 are removed .* of 22 left none"):
        chain.select(min_score=0.999999)


def test_copies_within_u_are_selected_once(chain: Chain) -> None:
    copies = chain.folder / "copies.parquet"
    (place,) = np.flatnonzero(read_samples(chain.manifests[:1]).table["key"].to_numpy() == "copy")
    columns = {"shard_id": [0], "sample_index": [place], "first_dataset": ["data"]}
    columns |= {"first_shard_id": [0], "first_sample_index": [place - 1], "same": ["bytes"]}
    tables.write_table(copies, columns, schemas.COPIES)
    selection = pd.read_parquet(chain.select(k=100, remove=Remove(), copies=copies))
    assert "s0-4" in set(selection.key)
    assert "copy" not in set(selection.key)
    removed = pd.read_parquet(chain.folder / "removed.parquet")
    assert removed.reason.tolist() == ["copy"]
    summary = json.loads((chain.folder / "summary.json").read_text())
    assert (summary["num_scored"], summary["num_candidates"]) == (22, 21)


def test_what_is_decided_on_the_review_page_changes_the_selection(
    chain: Chain, tmp_path: Path
) -> None:
    """Keys pressed in a real browser; the file it downloads is the configuration's."""
    whole = pd.read_parquet(chain.select(k=100, p=1))
    names = ["shard_id", "sample_index", "key"]
    pairs = whole[names].head(3).to_dict("records")
    for place, pair in enumerate(pairs):
        pair |= {"evaluation_dataset": "test", "evaluation_key": "t", "distance": 0.1 * place}
        pair |= {"evaluation_shard_id": 0, "evaluation_sample_index": place}
        pair |= {"class": "", "evaluation_class": "", "pictures": [0, 0]}
    page = tmp_path / "review.html"
    page.write_text(render("Pairs", pairs, [""], ["none"]))
    reviewed = tmp_path / "reviewed.csv"
    with Browser(tmp_path) as browser:
        browser.open(page)
        browser.press("r", "k", "r", "d")
        browser.wait("true")
        until = time.monotonic() + 20
        while not reviewed.exists() and time.monotonic() < until:
            time.sleep(0.02)
    left = pd.read_parquet(chain.select(k=100, p=1, remove=Remove(), reviewed=reviewed))
    gone = {pairs[0]["key"], pairs[2]["key"]}
    assert set(whole.key) - set(left.key) == gone
    removed = pd.read_parquet(chain.folder / "removed.parquet")
    assert removed.reason.tolist() == ["duplicate_of_evaluation"] * 2

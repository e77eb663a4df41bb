"""Scoring shard by shard, and the accounts of what was scored."""

import itertools
import json
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chains import SHARDS, Chain, chain, chain_tars, digest, scored, teacher

from conftest import Dataset, make_jpeg
from semisup import images, loader, models, passes, samples, schemas, settings, tables, transforms
from semisup.progress import Progress
from semisup.samples import read_samples
from semisup.steps import count_images, score_shards
from semisup.tables import DataError
from small import square

__all__ = ["chain", "scored", "teacher"]


def test_every_sample_has_a_status_and_scored_images_have_p_rows(chain: Chain) -> None:
    counts = chain.count()
    assert counts["statuses"] == {
        "ok": 22, "truncated_image": 1, "empty": 1, "not_an_image": 1, "missing_image": 1,
    }  # fmt: skip
    assert counts["num_samples"] == 26
    assert counts["num_score_rows"] == 44
    failures = pd.read_parquet(chain.folder / "failures.parquet")
    assert failures.key.tolist() == ["broken", "empty", "text", "none"]
    assert (failures.reason != "").all()


def test_a_part_of_which_too_much_failed_stops_the_run(chain: Chain) -> None:
    chain.count(max_failure_rate=3 / 11)
    what = r"images-00001.parquet: 3 of 11 samples failed \(1 empty, .*\), more than max_failure_rate 0.2 "
    with pytest.raises(DataError, match=what):
        chain.count(max_failure_rate=0.2)


def test_images_with_more_pixels_than_the_dataset_allows_fail(chain: Chain) -> None:
    manifest = json.loads(chain.manifests[0].read_text())
    tables.write_json(chain.manifests[0], {**manifest, "max_pixels": 119})
    chain.score(0, chain.manifests[0])
    rows = pd.read_parquet(chain.folder / "images-00000.parquet")
    assert set(rows.status) == {"too_many_pixels"}
    assert set(rows.reason) == {"10 x 12 is more than 119 pixels"}


def test_scores_are_the_softmax_of_the_teacher(chain: Chain) -> None:
    scores = pd.read_parquet(chain.folder / "part-00000.parquet")
    image = scores[(scores.shard_id == 0) & (scores.sample_index == 0)].sort_values("log_odds")
    weights = models.load(chain.teacher)
    pixels = images.decode(SHARDS[0][0][1]["jpg"])
    sized = transforms.evaluation_transform(square(12))(transforms.to_tensor(pixels))
    p = models.predictor(weights, "float32", 1)(sized[None]).softmax(1)[0]
    best = p.sort(descending=True)
    assert image.class_id.tolist()[::-1] == best.indices[:2].tolist()
    probabilities = 1 / (1 + np.exp(-image.log_odds.to_numpy()[::-1]))
    assert probabilities == pytest.approx(best.values[:2].numpy(), rel=1e-5)


def score(folder: Path, manifest: Path, teacher: Path, **changes: int) -> Path:
    usual = settings.ScoreShards(classes_per_image=2, batch_size=3, precision="float32")
    score_shards.main(
        usual.model_copy(update=changes),
        manifest,
        teacher,
        folder / "part-00000.parquet",
        folder / "images-00000.parquet",
        0,
    )
    return folder


@pytest.fixture
def broken_off(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a scoring job that ended in its second shard."""
    shard_of_batch = []
    original = models.observer

    def observer(*arguments: Any) -> Any:
        observe = original(*arguments)

        def fail_at_the_fourth_batch(images_NCHW: torch.Tensor) -> models.Seen:
            shard_of_batch.append(len(images_NCHW))
            if len(shard_of_batch) == 4:  # three batches hold the first shard
                raise KeyboardInterrupt
            return observe(images_NCHW)

        return fail_at_the_fourth_batch

    folder = chain.folder / "broken_off"
    with monkeypatch.context() as patch:
        patch.setattr(models, "observer", observer)
        with pytest.raises(KeyboardInterrupt):
            score(folder, chain.manifests[0], chain.teacher)
    assert not list(folder.glob("*.parquet"))
    return folder


def test_a_killed_job_goes_on_at_the_first_missing_shard_with_the_same_bytes(
    chain: Chain, broken_off: Path, scored: list[list[int]]
) -> None:
    score(broken_off, chain.manifests[0], chain.teacher)
    assert scored == [[1]]
    for name in ("part-00000.parquet", "images-00000.parquet"):
        assert digest(broken_off / name) == digest(chain.folder / name)
    assert not list(broken_off.rglob("*.tmp"))


def test_progress_is_that_of_the_part_and_its_rate_that_of_the_job(
    chain: Chain,
    broken_off: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`make status` takes it for the images of the part."""
    caplog.set_level(logging.INFO, "semisup")
    ticks = itertools.count()
    with_ticks = partial(Progress, every_seconds=0, clock=lambda: next(ticks))
    monkeypatch.setattr(passes, "Progress", with_ticks)
    for folder in (broken_off, chain.folder):  # the second of its two shards is left, none is
        score(folder, chain.manifests[0], chain.teacher)
    lines = [line for line in caplog.messages if line.startswith("look at data")]
    assert lines == [
        "look at data 10/15 images  67%  3 images/s  2 s left",
        "look at data 13/15 images  87%  3 images/s  1 s left",
        "look at data 15/15 images 100%  3 images/s  done",
        "look at data 15/15 images 100%  0 images/s  done",
    ]


def test_a_job_that_is_run_again_scores_only_what_has_changed(
    chain: Chain, scored: list[list[int]]
) -> None:
    before = digest(chain.folder / "part-00000.parquet")
    (chain.folder / "part-00000.parquet").unlink()
    chain.score(0, chain.manifests[0])
    assert scored == []
    assert digest(chain.folder / "part-00000.parquet") == before
    manifest = json.loads(chain.manifests[0].read_text())
    manifest["shards"][1]["sha256"] = "0" * 64
    tables.write_json(chain.manifests[0], manifest)
    chain.score(0, chain.manifests[0])
    assert scored == [[1]]
    chain.count()
    kept = {path.name.split("-")[0] for path in chain.folder.glob("work/??/*")}
    assert kept == {shard["sha256"][:32] for shard in all_shards(chain.manifests)}
    assert len(list(chain.folder.glob("work/??/*"))) == len(SHARDS)  # a mark each


def all_shards(manifests: list[Path]) -> list[dict[str, Any]]:
    return [shard for path in manifests for shard in json.loads(path.read_text())["shards"]]


def test_other_weights_leave_nothing_of_the_former_ones(chain: Chain) -> None:
    old = sorted(chain.folder.glob(f"work/*/{all_shards(chain.manifests)[0]['sha256'][:32]}-*"))
    assert len(old) == 2  # its rows, and a mark
    temporary = old[0].with_name(f".{old[0].name}.x.tmp")
    temporary.touch()
    weights = models.load(chain.teacher)
    weights.state["fc.bias"][0] += 1
    models.save(chain.teacher, weights)
    chain.score(0, chain.manifests[0])
    assert not any(path.exists() for path in [*old, temporary])
    assert len(list(chain.folder.glob("work/??/*"))) == 2 * len(SHARDS)


@pytest.mark.parametrize("shards_per_part", [1, 2])
def test_a_tar_in_front_of_the_others_is_scored_alone(
    tmp_path: Path,
    make_dataset: Dataset,
    teacher: Path,
    scored: list[list[int]],
    shards_per_part: int,
) -> None:
    front = [(f"front-{i}", {"jpg": make_jpeg(900 + i)}) for i in range(5)]
    runs = {}
    for name, shards in (("without", SHARDS), ("with", [front, *SHARDS])):
        manifests = make_dataset(shards, None, name, shards_per_part)
        runs[name] = Chain(tmp_path / "alone" / name, manifests, teacher)
        runs[name].select()
    del scored[:]
    grown = Chain(tmp_path / "alone" / "without", runs["with"].manifests, teacher)
    assert scored == [[0]]
    for path in sorted(runs["with"].folder.glob("*-0000*.parquet")):
        assert digest(grown.folder / path.name) == digest(path)
    assert digest(grown.select()) == digest(runs["with"].folder / "selection.parquet")
    shrunk = Chain(grown.folder, runs["without"].manifests, teacher)
    assert scored == [[0]]
    shrunk.count()
    assert len(list(grown.folder.glob("work/??/*"))) == len(SHARDS)


def test_shards_are_not_scored_again_in_another_part(
    chain: Chain, make_dataset: Dataset, scored: list[list[int]]
) -> None:
    (manifest,) = make_dataset(SHARDS, None, shards_per_part=4)
    chain.score(0, manifest)
    assert scored == []


def test_shards_scored_with_other_weights_are_scored_again(
    chain: Chain, broken_off: Path, scored: list[list[int]]
) -> None:
    weights = models.load(chain.teacher)
    weights.state["fc.bias"][0] += 1
    models.save(chain.teacher, weights)
    score(broken_off, chain.manifests[0], chain.teacher)
    assert scored == [[0, 1]]


def test_a_damaged_commit_is_scored_again(
    chain: Chain, broken_off: Path, scored: list[list[int]]
) -> None:
    (commit,) = broken_off.rglob("work/*/*.parquet")
    commit.write_bytes(commit.read_bytes()[:-20])
    score(broken_off, chain.manifests[0], chain.teacher)
    assert scored == [[0, 1]]
    assert digest(broken_off / "part-00000.parquet") == digest(chain.folder / "part-00000.parquet")


@pytest.mark.parametrize("change", [{"classes_per_image": 1}, {"batch_size": 2}])
def test_shards_scored_with_other_settings_are_scored_again(
    chain: Chain, broken_off: Path, scored: list[list[int]], change: dict[str, int]
) -> None:
    score(broken_off, chain.manifests[0], chain.teacher, **change)
    assert scored == [[0, 1]]


def test_a_shard_whose_content_changed_is_scored_again(
    chain: Chain, broken_off: Path, scored: list[list[int]]
) -> None:
    manifest = json.loads(chain.manifests[0].read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    tables.write_json(chain.manifests[0], manifest)
    score(broken_off, chain.manifests[0], chain.teacher)
    assert scored == [[0, 1]]


def test_what_could_not_be_read_is_tried_again(
    chain: Chain, scored: list[list[int]], tmp_path: Path
) -> None:
    tar, calm = chain_tars(chain)[0], chain.folder / "images-00000.parquet"
    away = tar.rename(tmp_path / "away.tar")
    samples._open.cache_clear()
    folder = score(tmp_path / "again", chain.manifests[0], chain.teacher)
    lost = pd.read_parquet(folder / "images-00000.parquet")
    assert (lost.status == "read_error").sum() == 7
    away.rename(tar)
    score(folder, chain.manifests[0], chain.teacher)
    assert scored == [[0, 1], [0]]
    assert digest(folder / "images-00000.parquet") == digest(calm)


def change_image(tar: Path, image: bytes) -> None:
    """As an image of the same length and place, which decodes."""
    other = image[:-40] + image[-40:-30][::-1] + image[-30:]
    loader.decode(other)
    content = tar.read_bytes()
    assert content.count(image) == 1 and other != image
    tar.write_bytes(content.replace(image, other))


def test_an_image_that_changed_since_it_was_indexed_is_not_scored_as_the_old_one(
    chain: Chain, scored: list[list[int]], tmp_path: Path
) -> None:
    tar, calm = chain_tars(chain)[0], digest(chain.folder / "images-00000.parquet")
    whole = tar.read_bytes()
    change_image(tar, SHARDS[0][3][1]["jpg"])
    folder = score(tmp_path / "again", chain.manifests[0], chain.teacher)
    changed = pd.read_parquet(folder / "images-00000.parquet").iloc[3]
    assert changed.status == "read_error"
    assert changed.reason == (
        f"{tar}: the tar has changed since it was indexed; run again to index it anew"
    )
    tar.write_bytes(whole)
    score(folder, chain.manifests[0], chain.teacher)
    assert scored == [[0, 1], [0]]
    assert digest(folder / "images-00000.parquet") == calm


def test_all_that_lay_behind_the_break_of_a_tar_is_counted_as_lost(chain: Chain) -> None:
    """By the index, which was made when the tar was whole."""
    tar = chain_tars(chain)[0]
    offsets = read_samples([chain.manifests[0]]).table["offset"].to_pylist()
    os.truncate(tar, offsets[3] + 5)
    samples._open.cache_clear()
    folder = score(chain.folder / "cut", chain.manifests[0], chain.teacher)
    rows = pd.read_parquet(folder / "images-00000.parquet")
    of_tar = rows[rows.shard_id == 0].status.tolist()
    assert of_tar == ["ok"] * 3 + ["read_error"] * 4
    assert len(rows) == 15


def test_equal_tars_are_scored_once_wherever_they_are(
    tmp_path: Path, make_dataset: Dataset, teacher: Path, scored: list[list[int]]
) -> None:
    manifests = make_dataset([SHARDS[0], SHARDS[0], SHARDS[0]], None, shards_per_part=2)
    run = Chain(tmp_path / "run", manifests, teacher)
    assert scored == [[0]]
    rows = pd.concat(pd.read_parquet(path) for path in sorted(run.folder.glob("images-*")))
    assert rows.shard_id.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert rows.status.tolist() == ["ok"] * 21
    assert (
        rows.logsumexp[rows.shard_id == 0].tolist() == rows.logsumexp[rows.shard_id == 2].tolist()
    )
    assert run.count()["num_score_rows"] == 42
    assert len(list(run.folder.glob("work/??/*"))) == 1


def test_the_logsumexp_is_rounded_to_what_the_store_promises(chain: Chain) -> None:
    logsumexp = pd.read_parquet(chain.folder / "images-00000.parquet").logsumexp.to_numpy()
    assert (logsumexp != 0).any()
    assert (logsumexp * 4096 == np.round(logsumexp * 4096)).all()


def test_a_part_with_a_missing_row_is_refused_naming_the_shard(chain: Chain) -> None:
    path = chain.folder / "images-00000.parquet"
    table = tables.read_table(path, schemas.IMAGES)
    kept = table.filter([i != 3 for i in range(len(table))])
    tables.write_table(path, {n: kept[n] for n in kept.column_names}, schemas.IMAGES)
    with pytest.raises(DataError, match=r"00000\.tar has 7 samples, but 6 rows"):
        chain.count()


def test_a_part_with_too_few_scores_is_refused(chain: Chain) -> None:
    path = chain.folder / "part-00001.parquet"
    table = tables.read_table(path, schemas.SCORES).slice(1)
    tables.write_table(path, {n: table[n] for n in table.column_names}, schemas.SCORES)
    with pytest.raises(
        DataError, match=r"part-00001\.parquet: 15 scores for 8 images of 2 classes"
    ):
        chain.count()


def test_a_score_of_one_shard_instead_of_another_s_is_refused(chain: Chain) -> None:
    """Though there are as many as there should be."""
    path = chain.folder / "part-00000.parquet"
    table = tables.read_table(path, schemas.SCORES)
    shard_ids = table["shard_id"].to_numpy()
    last, first = np.flatnonzero(shard_ids == 1)[:1], np.flatnonzero(shard_ids == 0)[:1]
    assert len(last), "a part of two shards"
    rows = np.arange(len(table))
    rows[last] = first
    table = table.take(rows)
    tables.write_table(path, {n: table[n] for n in table.column_names}, schemas.SCORES)
    with pytest.raises(DataError, match="shard 0 is the first that is wrong"):
        chain.count()


def test_a_cut_tar_has_lost_samples_that_have_no_row() -> None:
    shard_id, status = np.repeat([0, 1], [9, 3]), np.array(["ok"] * 11 + ["truncated_tar"])
    assert count_images._count_lost(shard_id, status, [{"shard_id": 0}, {"shard_id": 1}]) == 7


def test_logits_too_large_for_their_logsumexp_are_not_written(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = score_shards.ScoreMaker.columns
    monkeypatch.setattr(
        score_shards.ScoreMaker,
        "columns",
        lambda maker: columns(maker) | {"logsumexp": maker.logsumexp + np.float32(np.inf)},
    )
    folder = chain.folder / "large"
    with pytest.raises(DataError, match=r"the part of .*\.tar: logsumexp is not finite"):
        score(folder, chain.manifests[0], chain.teacher)
    assert not list(folder.glob("*.parquet"))


def test_scores_that_are_not_finite_are_refused_naming_the_shard(chain: Chain) -> None:
    weights = models.load(chain.teacher)
    weights.state["fc.bias"][0] = float("nan")
    models.save(chain.teacher, weights)
    with pytest.raises(DataError, match=r"00000\.tar: scores or features are not finite"):
        Chain(chain.folder / "again", chain.manifests, chain.teacher)

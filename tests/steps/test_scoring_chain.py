"""score_shards, count_images, select, pack_selection: one after the other, on real tars."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from browser import Browser
from conftest import Dataset, make_jpeg
from semisup import (
    changes,
    images,
    loader,
    models,
    passes,
    samples,
    schemas,
    settings,
    tables,
    transforms,
)
from semisup.config import Remove
from semisup.review.page import render
from semisup.samples import read_samples
from semisup.steps import count_images, pack_selection, score_shards, select
from semisup.tables import DataError

CLASSES = ["ant", "bee", "cow"]
SHARDS = [
    [(f"s{shard}-{i}", {"jpg": make_jpeg(100 * shard + i)}) for i in range(7 + shard)]
    for shard in range(4)
]
SHARDS[1][2] = ("broken", {"jpg": make_jpeg(1)[:-40]})
SHARDS[2][0] = ("empty", {"png": b""})
SHARDS[3] = [("text", {"jpg": b"no image"}), ("none", {"json": b"{}"})]  # nothing usable
SHARDS[0][5] = ("copy", SHARDS[0][4][1])


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = models.build("cifar_resnet8_w4", len(CLASSES))
    path = tmp_path / "weights.pt"
    models.save(path, models.Weights("cifar_resnet8_w4", 12, 12, CLASSES, model.state_dict()))
    models.write_classes(tmp_path / "classes.txt", CLASSES)
    return path


class Chain:
    """The files of one run of the steps, in a folder."""

    def __init__(self, folder: Path, manifests: list[Path], teacher: Path, workers: int = 0):
        self.folder, self.manifests, self.teacher = folder, manifests, teacher
        self.workers = workers
        for i, manifest in enumerate(manifests):
            self.score(i, manifest)

    def score(self, part: int, manifest: Path) -> None:
        score_shards.main(
            settings.ScoreShards(classes_per_image=2, batch_size=3, precision="float32"),
            manifest,
            self.teacher,
            self.folder / f"part-{part:05d}.parquet",
            self.folder / f"images-{part:05d}.parquet",
            self.workers,
        )

    def count(self, max_failure_rate: float = 1.0) -> dict[str, object]:
        count_images.main(
            settings.CountImages(
                num_parts=len(self.manifests),
                num_classes=len(CLASSES),
                classes_per_image=2,
                max_failure_rate=max_failure_rate,
            ),
            self.folder / "part-00000.parquet",
            self.folder / "images-00000.parquet",
            self.manifests[0],
            self.folder / "images.json",
            self.folder / "failures.parquet",
        )
        return json.loads((self.folder / "images.json").read_text())

    def select(
        self,
        k: int = 3,
        p: int = 2,
        remove: Remove | None = None,
        fraction: float = 1.0,
        variant: str = "balanced",
        rank_by: str = "softmax",
        tags: list[int] | None = None,
        min_score: float = 0.0,
        **files: Path,
    ) -> Path:
        self.count()
        select.main(
            settings.Select(
                num_parts=len(self.manifests),
                variant=variant,
                rank_by=rank_by,
                tags=tags,
                images_per_class=k,
                classes_per_image=p,
                stored_classes=2,
                min_score=min_score,
                fraction=fraction,
                seed=5,
                remove=remove,
            ),
            self.folder / "part-00000.parquet",
            self.manifests[0],
            self.folder / "images.json",
            self.folder / "failures.parquet",
            self.teacher.with_name("classes.txt"),
            [],
            [],
            [files["copies"]] if "copies" in files else [],
            [],
            [files["reviewed"]] if "reviewed" in files else [],
            self.folder / "selection.parquet",
            self.folder / "removed.parquet",
            self.folder / "summary.json",
            self.folder / "settings.json",
            self.workers,
        )
        return self.folder / "selection.parquet"

    def pack(self, samples_per_shard: int = 4, shards_per_part: int = 2, seed: int = 1) -> Path:
        """All parts of the packed selection, as if every class might hold all images."""
        num_rows = tables.count_rows(self.folder / "selection.parquet")
        num_parts = -(-(num_rows + 1) // (samples_per_shard * shards_per_part))
        for part in range(num_parts):
            pack_selection.main(
                settings.PackSelection(
                    part=part,
                    num_parts=num_parts,
                    first_shard=part * shards_per_part,
                    num_shards=shards_per_part,
                    samples_per_shard=samples_per_shard,
                    max_pixels=images.MAX_PIXELS,
                    seed=seed,
                ),
                self.folder / "selection.parquet",
                self.folder / "summary.json",
                self.folder / "packed" / "tars" / f"{part:05d}",
                self.folder / "packed" / f"manifest-{part:05d}.json",
                self.folder / "packed" / f"samples-{part:05d}.parquet",
                self.workers,
            )
        return self.folder / "packed"

    def packed_shards(self) -> list[dict[str, Any]]:
        manifests = sorted((self.folder / "packed").glob("manifest-*"))
        return [shard for path in manifests for shard in json.loads(path.read_text())["shards"]]


@pytest.fixture
def chain(tmp_path: Path, make_dataset: Dataset, teacher: Path) -> Chain:
    return Chain(tmp_path / "run", make_dataset(SHARDS, None, shards_per_part=2), teacher)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    sized = transforms.evaluation_transform(12, 12)(transforms.to_tensor(pixels))
    p = models.predictor(weights, "float32", 1)(sized[None]).softmax(1)[0]
    best = p.sort(descending=True)
    assert image.class_id.tolist()[::-1] == best.indices[:2].tolist()
    probabilities = 1 / (1 + np.exp(-image.log_odds.to_numpy()[::-1]))
    assert probabilities == pytest.approx(best.values[:2].numpy(), rel=1e-5)


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


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Which shards each scoring that follows has to score."""
    seen: list[list[int]] = []
    original = passes._make
    monkeypatch.setattr(passes, "_make", lambda *a: seen.append(a[1]) or original(*a))
    return seen


def test_a_killed_job_goes_on_at_the_first_missing_shard_with_the_same_bytes(
    chain: Chain, broken_off: Path, scored: list[list[int]]
) -> None:
    score(broken_off, chain.manifests[0], chain.teacher)
    assert scored == [[1]]
    for name in ("part-00000.parquet", "images-00000.parquet"):
        assert digest(broken_off / name) == digest(chain.folder / name)
    assert not list(broken_off.rglob("*.tmp"))


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
    kept = {path.name.split("-")[0] for path in chain.folder.glob("work/*/*")}
    assert kept == {shard["sha256"][:32] for shard in all_shards(chain.manifests)}
    assert len(list(chain.folder.glob("work/*/*"))) == len(SHARDS)


def all_shards(manifests: list[Path]) -> list[dict[str, Any]]:
    return [shard for path in manifests for shard in json.loads(path.read_text())["shards"]]


def test_other_weights_leave_nothing_of_the_former_ones(chain: Chain) -> None:
    (old,) = chain.folder.glob(f"work/*/{all_shards(chain.manifests)[0]['sha256'][:32]}-*")
    temporary = old.with_name(f".{old.name}.x.tmp")
    temporary.touch()
    weights = models.load(chain.teacher)
    weights.state["fc.bias"][0] += 1
    models.save(chain.teacher, weights)
    chain.score(0, chain.manifests[0])
    assert not old.exists() and not temporary.exists()
    assert len(list(chain.folder.glob("work/*/*"))) == len(SHARDS)


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
    assert len(list(grown.folder.glob("work/*/*"))) == len(SHARDS)


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


def chain_tars(chain: Chain) -> list[Path]:
    shards = json.loads(chain.manifests[0].read_text())["shards"]
    return [Path(shard["path"]) for shard in shards]


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
    assert len(list(run.folder.glob("work/*/*"))) == 1


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


def stored(chain: Chain) -> pd.DataFrame:
    """All scores of the chain with the logsumexp of their image."""
    read = pd.read_parquet
    scores = pd.concat(read(path) for path in sorted(chain.folder.glob("part-*.parquet")))
    images = pd.concat(read(path) for path in sorted(chain.folder.glob("images-*.parquet")))
    return scores.merge(images, on=["shard_id", "sample_index"])


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
    with pytest.raises(DataError, match=r"images-00000\.parquet: logsumexp is not finite"):
        score(folder, chain.manifests[0], chain.teacher)
    assert not list(folder.glob("*.parquet"))


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
    for chain in (whole, gap):
        chain.count()
        for rank_by in ("softmax", "logit"):
            rows = pd.read_parquet(chain.select(k=3, rank_by=rank_by))
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


def test_scores_that_are_not_finite_are_refused_naming_the_shard(chain: Chain) -> None:
    weights = models.load(chain.teacher)
    weights.state["fc.bias"][0] = float("nan")
    models.save(chain.teacher, weights)
    with pytest.raises(DataError, match=r"00000\.tar: scores or features are not finite"):
        Chain(chain.folder / "again", chain.manifests, chain.teacher)


def test_a_source_image_that_changed_since_it_was_indexed_is_not_packed(chain: Chain) -> None:
    selection = pd.read_parquet(chain.select())
    shard = Path(selection.shard[0])
    content = shard.read_bytes()
    shard.write_bytes(
        content.replace(
            make_jpeg(100 * selection.shard_id[0] + selection.sample_index[0])[20:40], b"x" * 20
        )
    )
    with pytest.raises(DataError, match="is not the one that was indexed"):
        chain.pack()
    assert list((chain.folder / "packed" / "tars").iterdir()) == []
    assert list(chain.folder.rglob("*.tmp")) == []


def test_packed_shards_have_the_configured_size_and_deterministic_order(chain: Chain) -> None:
    rows = len(pd.read_parquet(chain.select(k=5)))
    packed = chain.pack(samples_per_shard=4)
    sizes = [shard["num_samples"] for shard in chain.packed_shards()]
    assert sizes == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)
    first = digest(packed / "tars" / "00000" / "000000.tar")
    chain.pack(samples_per_shard=4)
    assert digest(packed / "tars" / "00000" / "000000.tar") == first


def test_packed_samples_are_shuffled_by_the_seed(chain: Chain) -> None:
    selection = pd.read_parquet(chain.select(k=20))
    orders = []
    for seed in (1, 2):
        packed = chain.pack(samples_per_shard=100, seed=seed)
        orders.append(pd.read_parquet(packed / "samples-00000.parquet").label.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == selection.class_id.tolist()
    assert len({tuple(order) for order in [*orders, selection.class_id]}) == 3


def test_the_workers_of_a_killed_packing_end(tmp_path: Path) -> None:
    script = tmp_path / "pack.py"
    script.write_text(
        "import operator, time\n"
        "from semisup.steps.pack_selection import _processes\n"
        "if __name__ == '__main__':\n"
        "    with _processes(2) as each:\n"
        "        list(each(operator.call, [time.sleep] * 2, [600] * 2))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    workers: list[psutil.Process] = []
    while len(workers) < 2:
        time.sleep(0.1)
        workers = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_a_smaller_selection_leaves_nothing_of_the_larger_one(chain: Chain) -> None:
    """Nor a manifest, which would stand for tars that are gone when the selection grows again."""
    chain.count()
    chain.select(k=5)
    packed = chain.pack(samples_per_shard=2, shards_per_part=1)
    (packed / "tars" / ".00007.tmp").mkdir()
    assert len(list(packed.glob("manifest-*"))) > 2
    chain.select(k=1)
    chain.pack(samples_per_shard=2, shards_per_part=1)
    parts = {path.name.split("-")[1].split(".")[0] for path in packed.glob("*-*")}
    assert {path.name for path in (packed / "tars").iterdir()} == parts
    assert len(parts) == len(list(packed.glob("manifest-*"))) == len(list(packed.glob("samples-*")))


def test_what_a_killed_packing_left_is_cleared(chain: Chain) -> None:
    chain.select(k=5)
    left = chain.folder / "packed" / "tars" / ".00000.tmp" / "000000.tar"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a tar")
    packed = chain.pack(samples_per_shard=100)
    assert [path.name for path in (packed / "tars").iterdir()] == ["00000"]
    assert [path.name for path in (packed / "tars" / "00000").iterdir()] == ["000000.tar"]


def test_the_manifest_of_a_part_says_what_its_tars_are(chain: Chain) -> None:
    chain.select(k=5)
    chain.pack()
    for number, shard in enumerate(chain.packed_shards()):
        path = Path(shard["path"])
        assert path.name == f"{number:06d}.tar"
        assert (shard["shard_id"], shard["size_bytes"]) == (number, path.stat().st_size)
        assert shard["sha256"] == digest(path)


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar here")
def test_tar_unpacks_the_packed_shards(chain: Chain, tmp_path: Path) -> None:
    """Names and bytes are those of the selection and of the source tars, with no other tool."""
    selection = pd.read_parquet(chain.select(k=5))
    chain.pack(samples_per_shard=4)
    out = tmp_path / "out"
    out.mkdir()
    for shard in chain.packed_shards():
        command = ["tar", "-xf", shard["path"], "-C", out]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    for row in selection.itertuples():
        key = f"{row.shard_id:06d}_{row.sample_index:06d}_{row.class_id:05d}"
        image = SHARDS[row.shard_id][row.sample_index][1]["jpg"]
        assert (out / f"{key}.{row.extension}").read_bytes() == image
        assert (out / f"{key}.cls").read_text() == str(row.class_id)
        origin = json.loads((out / f"{key}.json").read_text())
        assert (origin["key"], origin["class_rank"]) == (row.key, row.class_rank)
    assert len(list(out.iterdir())) == 3 * len(selection)


def test_tars_of_a_former_larger_selection_do_not_stay(chain: Chain) -> None:
    chain.select(k=20)
    chain.pack()
    chain.select(k=1)
    packed = chain.pack()
    assert [path.name for path in (packed / "tars").iterdir()] == ["00000"]


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

"""The whole pipeline through Snakemake on the tiny configuration, and the data it produces."""

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
import webdataset as wds
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dry_runs import dry_run
from semisup.questions import explain, sizes
from semisup.selection import drawn
from semisup.tables import DataError
from small import ROOT
from snakemakes import readme_blocks, snakemake


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A folder in which the tiny configuration has run to the report."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "config.yaml"
    config.write_text((ROOT / "tests" / "tiny.yaml").read_text())
    snakemake(folder, "--configfile", str(config), "--show-failed-logs")
    return folder


def stale(run: Path, **changes: object) -> set[str]:
    """Rules a dry-run wants to run after the configuration is changed at dotted keys."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for path, value in changes.items():
        *sections, key = path.split("__")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return {job.rule for job in dry_run(run, config)}


def test_a_second_run_has_nothing_to_do(run):
    output = snakemake(run, "--configfile", str(run / "config.yaml"))
    assert "Nothing to be done" in output


def test_every_sample_of_u_has_one_status_and_the_dirt_is_named(run):
    counts = json.loads((run / "results/scores/teacher/unlabeled/images.json").read_text())
    images = pd.concat(
        pd.read_parquet(p) for p in (run / "results/scores/teacher/unlabeled").glob("images-*")
    )
    assert images.status.value_counts().to_dict() == counts["statuses"]
    assert len(images.drop_duplicates(["shard_id", "sample_index"])) == counts["num_samples"]
    assert set(counts["statuses"]) == {
        "ok", "empty", "missing_image", "not_an_image", "too_many_pixels", "truncated_image",
        "truncated_tar",
    }  # fmt: skip


def test_duckdb_and_polars_read_every_table_as_it_is(run):
    paths = sorted((run / "results").rglob("*.parquet"))
    assert {"part-00000.parquet", "images-00000.parquet"} <= {path.name for path in paths}
    for path in paths:
        written = repr(pq.read_table(path).to_pylist())
        assert repr(duckdb.read_parquet(str(path)).to_arrow_table().to_pylist()) == written, path
        assert repr(polars.read_parquet(path).to_dicts()) == written, path


def test_the_selection_is_the_brute_force_top_k_of_the_scores(run):
    scores = pd.concat(
        pd.read_parquet(p)
        for p in sorted((run / "results/scores/teacher/unlabeled").glob("part-*"))
    )
    removed = pd.read_parquet(run / "results/selections/top/removed.parquet")
    identity = ["shard_id", "sample_index"]
    left = scores.merge(removed[identity], on=identity, how="left", indicator=True)
    left = left[(left._merge == "left_only") & (left.prediction_rank <= 2)]
    order = left.sort_values(
        ["class_id", "log_odds", *identity], ascending=[True, False, True, True]
    )
    expected = order.groupby("class_id").head(20)[["class_id", "log_odds", *identity]]
    selection = pd.read_parquet(run / "results/selections/top/selection.parquet")
    pd.testing.assert_frame_equal(
        selection[["class_id", "log_odds", *identity]], expected.reset_index(drop=True)
    )


def test_the_closest_images_and_the_copies_are_removed(run):
    removed = pd.read_parquet(run / "results/selections/top/removed.parquet")
    assert (removed.reason == "duplicate_of_evaluation").sum() == 10
    assert (removed.reason == "copy").sum() >= 30


def test_the_real_webdataset_library_reads_exactly_the_selection(run):
    selection = pd.read_parquet(run / "results/selections/top/selection.parquet")
    shards = [str(p) for p in sorted((run / "results/shards/top/tars").rglob("*.tar"))]
    samples = list(wds.WebDataset(shards, shardshuffle=False).decode())
    found = sorted((s["cls"], s["json"]["shard_id"], s["json"]["sample_index"]) for s in samples)
    rows = selection[["class_id", "shard_id", "sample_index"]].itertuples(index=False, name=None)
    assert found == sorted(rows)


def test_packed_image_bytes_are_those_of_the_source_tar(run):
    index = pd.concat(
        pd.read_parquet(p) for p in (run / "results/datasets/unlabeled").glob("samples-*")
    )
    hashes = index.set_index(["shard_id", "sample_index"]).content_hash
    packed = pd.read_parquet(run / "results/shards/top/samples-00000.parquet")
    origins = packed.key.str.split("_", expand=True).astype(int)
    expected = [
        hashes[(shard, sample)] for shard, sample in zip(origins[0], origins[1], strict=True)
    ]
    assert packed.content_hash.tolist() == expected


def test_parts_are_packed_again_after_there_were_fewer(run, tmp_path):
    """What was deleted in between is made again, byte for byte."""
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    config = yaml.safe_load((run / "config.yaml").read_text())
    digests = []
    for shards_per_part in (1, 2, 1):
        config["pack"] = {"samples_per_shard": 60, "shards_per_part": shards_per_part}
        (run / "changed.yaml").write_text(yaml.safe_dump(config))
        parts = range(-(-4 // shards_per_part))  # 20 images of 10 classes at most
        manifests = [f"results/shards/top/manifest-{part:05d}.json" for part in parts]
        snakemake(run, "--configfile", str(run / "changed.yaml"), "--", *manifests)
        tars = sorted((run / "results/shards/top/tars").rglob("*.tar"))
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in tars])
    assert len(digests[0]) > 2
    assert digests[0] == digests[1] == digests[2]


def test_plain_tar_lists_the_shards(run):
    path = next((run / "results/shards/top/tars").rglob("*.tar"))
    with tarfile.open(path) as tar:
        assert {Path(name).suffix for name in tar.getnames()} >= {".cls", ".json"}


def explained(run, monkeypatch, capsys, key: str) -> str:
    monkeypatch.chdir(run)
    explain.main(run / "config.yaml", "top", key)
    return capsys.readouterr().out


def test_a_selected_image_is_explained_by_its_rank_and_the_cut(run, monkeypatch, capsys):
    selection = pd.read_parquet(run / "results/selections/top/selection.parquet")
    row = selection.sample(1, random_state=1).iloc[0]
    size = (selection.class_id == row.class_id).sum()
    text = explained(run, monkeypatch, capsys, row.key)
    assert f"{row.class_name}: score" in text
    assert f"selected: rank {row.class_rank} of {size}" in text


def test_an_image_behind_the_cut_is_explained_by_its_rank_among_all(run, monkeypatch, capsys):
    folder = run / "results/scores/teacher/unlabeled"
    identity = ["shard_id", "sample_index"]
    scores = pd.concat(pd.read_parquet(path) for path in folder.glob("part-*"))
    removed = pd.read_parquet(run / "results/selections/top/removed.parquet")
    left = scores.merge(removed[identity], on=identity, how="left", indicator=True)
    left = left[(left._merge == "left_only") & (left.prediction_rank <= 2)]
    order = left.sort_values(["log_odds", *identity], ascending=[False, True, True])
    worst = order.iloc[-1]
    index = pd.concat(
        pd.read_parquet(p) for p in (run / "results/datasets/unlabeled").glob("samples-*")
    )
    key = index.set_index(identity).key[(worst.shard_id, worst.sample_index)]
    text = explained(run, monkeypatch, capsys, key)
    assert f"rank {(order.class_id == worst.class_id).sum()}: behind the last selected" in text


def test_removed_and_broken_images_are_explained(run, monkeypatch, capsys):
    identity = ["shard_id", "sample_index"]
    keys, places = {}, {}
    for path in (run / "results/datasets").glob("*/samples-*"):
        dataset = path.parent.name
        manifest = path.with_name(path.name.replace("samples-", "manifest-")).with_suffix(".json")
        tars = {s["shard_id"]: s["path"] for s in json.loads(manifest.read_text())["shards"]}
        for row in pd.read_parquet(path).itertuples():
            image = dataset, row.shard_id, row.sample_index
            keys[image] = row.key
            places[image] = (
                f"{row.key} (sample {row.sample_index} of {tars[row.shard_id]}, {dataset})"
            )
    folder = run / "results/duplicates/unlabeled"
    first = ["first_shard_id", "first_sample_index"]
    matches = [f"evaluation_{name}" for name in ("dataset", *identity)]
    why = {
        "copy": ("copies", ["first_dataset", *first], "the same bytes as {}"),
        "near_copy": ("near_copies", first, "close to {}, at distance {:.4f}"),
        "duplicate_of_evaluation":
            ("nearest-*", matches, "a near-duplicate of {}, at distance {:.4f}"),
    }  # fmt: skip
    removed = pd.read_parquet(run / "results/selections/top/removed.parquet")
    assert set(removed.reason) == set(why)
    for image in removed.groupby("reason").head(3).itertuples():
        table, columns, sentence = why[image.reason]
        rows = pd.concat(pd.read_parquet(path) for path in folder.glob(f"{table}.parquet"))
        row = rows.set_index(identity).loc[(image.shard_id, image.sample_index)]
        other = tuple(row[columns]) if len(columns) == 3 else ("unlabeled", *row[columns])
        expected = sentence.format(places[other], row.get("distance"))
        text = explained(
            run, monkeypatch, capsys, keys["unlabeled", image.shard_id, image.sample_index]
        )
        assert f"  removed: {expected}\n" in text
    failures = pd.read_parquet(run / "results/scores/teacher/unlabeled/failures.parquet")
    bomb = failures[failures.status == "too_many_pixels"].iloc[0]
    assert "not scored: too_many_pixels" in explained(run, monkeypatch, capsys, bomb.key)


def test_sizes_are_those_of_the_selections_there_would_be(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    sizes.main(run / "config.yaml", "top", "20 5", "1 2", "0.5 1")
    printed = capsys.readouterr().out
    found = pd.read_parquet(run / "results/selections/top/sizes.parquet")
    assert len(found) == 8
    folder = run / "results/scores/teacher/unlabeled"
    scores = pd.concat(pd.read_parquet(path) for path in folder.glob("part-*"))
    removed = pd.read_parquet(run / "results/selections/top/removed.parquet")
    scores["identity"] = scores.shard_id.astype(np.int64) * 2**32 + scores.sample_index
    gone = removed.shard_id.astype(np.int64) * 2**32 + removed.sample_index
    scores = scores[~scores.identity.isin(gone)]
    order = scores.sort_values(["log_odds", "identity"], ascending=[False, True])
    for row in found.itertuples():
        rows = order[order.prediction_rank <= row.classes_per_image]
        rows = rows[drawn(rows.identity.to_numpy(), row.fraction, seed=3)]
        rows = rows.groupby("class_id").head(row.images_per_class)
        times = rows.identity.value_counts()
        assert (row.num_rows, row.num_images) == (len(rows), len(times))
        assert row.overlap == pytest.approx((times > 1).mean())
        assert row.fill == pytest.approx(len(rows) / (10 * row.images_per_class))
        cuts = rows.groupby("class_id").log_odds.min()
        assert row.lowest_cut == pytest.approx(1 / (1 + np.exp(-cuts.min())))
        assert (
            row.num_shortest == rows.groupby("class_id").size().reindex(range(10)).fillna(0).min()
        )
        assert f"{row.num_rows:,}" in printed


def test_sizes_that_cannot_be_are_refused(run, monkeypatch):
    monkeypatch.chdir(run)
    with pytest.raises(DataError, match="must be from 1 to"):
        sizes.main(run / "config.yaml", "top", "5", "11", "1")
    with pytest.raises(DataError, match="'many' must be numbers separated by spaces"):
        sizes.main(run / "config.yaml", "top", "many", "1", "1")
    with pytest.raises(DataError, match="P: '' must be numbers separated by spaces"):
        sizes.main(run / "config.yaml", "top", "1", "", "1")


def test_an_unknown_key_is_said(run, monkeypatch):
    monkeypatch.chdir(run)
    with pytest.raises(DataError, match="no sample of U has the key 'nothing'"):
        explain.main(run / "config.yaml", "top", "nothing")


def test_every_stage_is_evaluated_with_an_interval(run):
    evaluations = pd.read_parquet(run / "results/evaluations.parquet")
    stages = set(zip(evaluations.model, evaluations.stage, strict=True))
    assert stages == {
        ("teacher", "train"), ("student", "pretrain"), ("student", "finetune"),
        ("baseline", "train"),
    }  # fmt: skip
    assert (evaluations.num_images == 500).all()
    assert (evaluations.top1_low < evaluations.top1).all()
    assert (evaluations.top1 <= evaluations.top5).all()


def test_accuracies_are_those_of_the_predictions(run):
    for row in pd.read_parquet(run / "results/evaluations.parquet").itertuples():
        path = run / f"results/predictions/{row.model}/{row.stage}.parquet"
        predictions = pd.read_parquet(path)
        own = predictions[predictions.dataset == row.dataset]
        assert np.mean(own.label == own.class_id) == row.top1
        assert np.mean(own.label_rank <= 5) == row.top5


def test_the_student_is_the_best_of_its_sweep(run):
    folder = run / "results/models/student/finetune"
    sweep = pd.read_parquet(folder / "sweep.parquet")
    assert sweep.base_lr.tolist() == [0.1, 0.4]
    assert set(sweep.dataset) == {"validation"}
    best = sweep.sort_values(["top1", "base_lr"], ascending=[False, True]).iloc[0]
    assert sweep[sweep.chosen].base_lr.tolist() == [best.base_lr]
    for name in ("weights.pt", "metrics.parquet", "classes.txt"):
        chosen = folder / f"base_lr-{best.base_lr:g}" / name
        assert (folder / name).read_bytes() == chosen.read_bytes()
    assert "Learning rates tried in finetuning student" in (run / "results/report.html").read_text()


def test_curves_are_written_for_tensorboard(run):
    folder = run / "results/models/student/pretrain"
    (path,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(path)).Reload()
    metrics = pd.read_parquet(folder / "metrics.parquet")
    for name in ("loss", "top1", "lr"):
        points = events.Scalars(name)
        assert [event.step for event in points] == metrics.images.tolist()
        assert [event.value for event in points] == pytest.approx(metrics[name].tolist())
    assert all(event.value > 0 for event in events.Scalars("images_per_second"))


def test_the_baseline_processes_as_many_images_as_the_student(run):
    def images(model: str, stage: str) -> int:
        metrics = pd.read_parquet(run / f"results/models/{model}/{stage}/metrics.parquet")
        return int(metrics.images.iloc[-1])

    student = images("student", "pretrain") + images("student", "finetune")
    assert images("baseline", "train") == student == 1300


def test_no_temporary_file_is_left(run):
    assert list((run / "results").rglob("*.tmp")) == []


def test_only_what_depends_on_a_changed_key_runs_again(run):
    """As in tests/staleness.py, on real results."""
    sweep = {"finetune_candidate", "evaluate_candidate", "choose_candidate", "evaluate", "report"}
    assert stale(run, selections__top__images_per_class=15) == {
        "select", "measure_leaks", "pack_selection", "pretrain", *sweep,
    }  # fmt: skip
    assert stale(run, recipes__shorter__momentum=0.8) == sweep


def test_tars_that_are_gone_are_made_again_for_whoever_reads_them(run, tmp_path):
    """As after a killed job, whose outputs Snakemake deletes."""
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "results/datasets/builtin")
    shutil.rmtree(run / "results/shards/top/tars")
    assert stale(run) == set()
    assert stale(run, recipes__shorter__momentum=0.8) >= {"make_digits", "finetune_candidate"}
    assert stale(run, models__student__arch="cifar_resnet8_w6") >= {"pack_selection", "pretrain"}


@pytest.mark.parametrize("profile", ["slurm", "profiles/local"])
def test_a_dry_run_says_which_key_changed_from_what_to_what(run, tmp_path, profile):
    changed = tmp_path / "changed.yaml"
    text = (run / "config.yaml").read_text()
    changed.write_text(text.replace("images_per_class: 20", "images_per_class: 15"))
    output = snakemake(run, "--profile", profile, "--configfile", str(changed), "--dry-run")
    assert "Changed since the last report:\n  selections.top.images_per_class: 20 → 15" in output


def test_a_selection_that_comes_out_the_same_trains_nothing(run, tmp_path):
    """Early cut-off within one invocation: jobs run again, find what they made, and end."""
    copied = shutil.copytree(run, tmp_path / "run", symlinks=True)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["duplicates"]["remove"]["max_distance"] = 1e-6  # such images are among the closest
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    models = copied / "results/models"
    checkpoints = {path: path.stat().st_mtime_ns for path in models.rglob("checkpoints/*/*.pt")}
    before = {path: path.read_bytes() for path in (copied / "results").rglob("weights.pt")}
    student = "results/models/student/finetune/weights.pt"
    output = snakemake(copied, "--configfile", str(copied / "config.yaml"), "--", student)
    assert re.search(r"^pretrain +1$", output, re.M)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints
    log = (copied / "results/logs/pretrain/student.log").read_text()
    assert re.search(r"1000 to process in 16 steps .*, going on after step 16$", log, re.M)


def test_the_books_of_the_report_hold_the_images_that_choose_and_what_loaders_counted(run):
    page = (run / "results/report.html").read_text()
    for base_lr in (0.1, 0.4):
        assert f"choosing student/finetune base_lr-{base_lr}: 200" in page
    assert "images student/pretrain was trained on" in page
    assert "student/pretrain: the loader counted samples × passes" in page
    metrics = pd.read_parquet(run / "results/models/student/pretrain/metrics.parquet")
    assert (metrics.loaded + metrics.failed == metrics.images).all()


def test_the_report_is_one_page_that_names_every_model(run):
    page = (run / "results/report.html").read_text()
    assert all(name in page for name in ("teacher", "student", "baseline", "truncated image"))
    assert "http://" not in re.sub(
        r"http://www\.w3\.org/\S*|http://purl\.org/\S*|http://creativecommons\.org/\S*", "", page
    )
    assert "https://" not in page


def test_the_pandas_lines_of_the_readme_run_as_written(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    exec("\n".join(readme_blocks("python")), {})
    printed = capsys.readouterr().out
    assert "class_name" in printed
    assert "truncated_image" in printed

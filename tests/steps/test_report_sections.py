from pathlib import Path

import numpy as np
import pytest
from made_report import Outcome, text_of

from semisup import schemas, tables
from semisup.report.training import read_times
from semisup.tables import DataError


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return Outcome(tmp_path)


def test_a_removed_image_in_the_selection_fails_the_report(outcome: Outcome) -> None:
    outcome.prepare()
    folder = outcome.path("selections/top")
    table = tables.read_table(folder / "removed.parquet", schemas.REMOVED).to_pydict()
    selected = tables.read_table(folder / "selection.parquet", schemas.SELECTION)
    table["shard_id"][0] = selected["shard_id"][0]
    table["sample_index"][0] = selected["sample_index"][0]
    tables.write_table(folder / "removed.parquet", table, schemas.REMOVED)
    with pytest.raises(DataError, match="no removed image is selected"):
        outcome.write()


def test_precision_counts_images_of_no_class_as_wrong(outcome: Outcome) -> None:
    outcome.config["selections"]["top"]["images_per_class"] = 100
    text = text_of(outcome.make())
    selected = tables.read_table(
        outcome.path("selections/top/selection.parquet"), schemas.SELECTION
    )
    clutter = 2 * 4
    assert f"{len(selected) - clutter} of {len(selected)} rows" in text
    assert f"{clutter} show none of the classes" in text


def test_what_entered_and_left_is_shown_where_there_was_another_selection(outcome: Outcome) -> None:
    outcome.prepare()
    assert "Since the selection before" not in text_of(outcome.write())
    names, num_rows = ["class 0", "class 1", "class 1", "class 1"], 4
    columns = {"change": ["entered", "entered", "left", "left"], "class_id": [0, 1, 1, 1]}
    columns |= {"class_name": names, "class_rank": [1, 1, 1, 2], "score": [None] * num_rows}
    columns |= {"key": ["k"] * num_rows, "shard": ["a.tar"] * num_rows}
    changes = outcome.path("selections/top/changes.parquet")
    tables.write_table(changes, columns, schemas.CHANGES)
    said = "Since the selection before, 2 rows entered and 2 left, most in "
    assert f"{said}class 1 (+1, −2), class 0 (+1, −0)." in text_of(outcome.write())
    tables.write_table(changes, {name: [] for name in columns}, schemas.CHANGES)
    assert "Since the selection before, 0 rows entered and 0 left." in text_of(outcome.write())


def test_precision_is_only_measured_where_the_unlabelled_set_has_labels(outcome: Outcome) -> None:
    outcome.config["datasets"]["unlabeled"]["labels"] = False
    assert "Precision" not in text_of(outcome.make())


def test_empty_and_short_classes_ask_for_attention(outcome: Outcome) -> None:
    outcome.config["selections"]["top"]["images_per_class"] = 1000
    text = text_of(outcome.make())
    assert "top: 1 class got no image at all (class 2)." in text
    assert "top: 2 classes got fewer images than wanted (class 0, class 1)." in text


def test_a_student_without_baseline_asks_for_attention(outcome: Outcome) -> None:
    del outcome.config["models"]["baseline"]
    text = text_of(outcome.make())
    assert "student has no baseline: add a model with baseline_of: student" in text
    assert "No student has a baseline" in text


def test_missing_duplicate_removal_asks_for_attention(outcome: Outcome) -> None:
    del outcome.config["duplicates"]
    text = text_of(outcome.make())
    assert "No near-duplicates of evaluation images were looked for" in text


def test_duplicates_that_no_rule_removes_ask_for_attention(outcome: Outcome) -> None:
    warning = "no rule in duplicates.remove removes any"
    outcome.config["duplicates"]["remove"] = {}
    assert warning in text_of(outcome.make())
    outcome.config["duplicates"]["remove"] = {"max_distance": 0}
    assert warning not in text_of(outcome.make())


def test_fewer_close_images_than_shall_be_removed_ask_for_attention(outcome: Outcome) -> None:
    outcome.config["duplicates"]["remove"] = {"closest": 4}
    assert "duplicates.remove.closest is" not in text_of(outcome.make())
    outcome.config["duplicates"]["remove"] = {"closest": 5000}
    assert (
        "duplicates.remove.closest is 5,000, but only 4 images of unlabeled are within record_distance "
        "0.6 of an evaluation image: raise duplicates.record_distance, or lower closest."
    ) in text_of(outcome.make())


def test_a_picture_that_cannot_be_read_is_replaced_by_the_reason(outcome: Outcome) -> None:
    outcome.prepare()
    for path in outcome.folder.glob("test-*.tar"):
        path.write_bytes(b"")
    assert "read_error" in outcome.write()


def test_a_configuration_without_selections_makes_a_report(outcome: Outcome) -> None:
    del outcome.config["selections"], outcome.config["duplicates"]
    outcome.config["models"] = {"teacher": outcome.config["models"]["teacher"]}
    assert "No selection is configured" in text_of(outcome.make())


def test_an_evaluation_that_lost_an_image_fails_the_report(outcome: Outcome) -> None:
    outcome.prepare()
    path = outcome.path("predictions/student/finetune.parquet")
    table = tables.read_table(path, schemas.PREDICTIONS)
    rows = table.slice(1).to_pydict()
    tables.write_table(path, {name: np.array(rows[name]) for name in rows}, schemas.PREDICTIONS)
    with pytest.raises(DataError, match="every measured image has a prediction"):
        outcome.write()


def test_a_thousand_classes_make_a_report_of_some(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, num_classes=1000)
    text = text_of(outcome.make())
    assert "Best and last of some classes" in text
    assert "Table of all 1,000 classes" in text


def test_time_is_summed_by_rule(tmp_path: Path) -> None:
    for part, seconds in (("00000", 100.0), ("00001", 25.0)):
        path = tmp_path / f"benchmarks/score_shards/t/u/{part}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t-\t2048\n")
    (time,) = read_times(tmp_path)
    assert time == ("score_shards", 2, 125.0, 100.0, 2048.0)

import re
from pathlib import Path

import numpy as np
import pytest
from made_report import Outcome, text_of

from semisup.checks import load_config
from semisup.report.leaks import kept_up_to, learned_from, name_cuts
from small import read_config


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return Outcome(tmp_path)


def test_the_report_says_how_many_evaluation_images_are_leaked_into_what(outcome) -> None:
    text = text_of(outcome.make())
    assert "test 40 labeled 1 1" in text
    assert "test 40 unlabeled 0 not compared" in text
    assert "test 40 top 1 1" in text
    assert "3 images of test share their hash" in text
    assert "Of unlabeled not all pairs are recorded from 0.0800 on" in text


@pytest.mark.parametrize(("cut", "said"), [(0.07, False), (0.08, True)])
def test_pairs_that_may_be_missing_at_the_cut_itself_are_said(outcome, cut, said) -> None:
    """Others as far apart as the last recorded may have been dropped."""
    outcome.prepare()
    with outcome.edited("duplicates/leaks.json", lambda summary: summary.update(cut=cut)):
        assert ("not all pairs are recorded" in text_of(outcome.write())) == said


def test_accuracy_is_split_into_leaked_and_clean_images(outcome) -> None:
    """The student is right on the first 36 of 40; it learned from D and its selection."""
    text = text_of(outcome.make(student_hits=36, baseline_hits=20))
    split = "student/finetune top, labeled test features"
    assert f"{split} 50.0 % (9.5–90.5), 2 92.1 % (79.2–97.3), 38" in text
    assert "baseline/train labeled test features 100.0 % (20.7–100.0), 1 48.7 %" in text


def test_images_that_were_not_compared_ask_for_attention(outcome) -> None:
    text = text_of(outcome.make())
    assert "2 images of test could not be described (2 truncated_image)" in text
    assert "Of 5 images of unlabeled the descriptor says nothing" in text


def test_recall_is_shown_kind_by_kind_at_equal_false_positives(outcome) -> None:
    text = text_of(outcome.make())
    assert "Of 10 evaluation images, near-duplicates were planted" in text
    assert "planted found at 0.1002 found at 0.1019 found at 0.1095 found at 0.1380" in text
    assert "mirrored 60.0 % 60.0 % 60.0 % 70.0 % 0.0 %" in text
    assert "other evaluation images 5.0 % 5.0 % 5.0 % 20.0 %" in text


def test_a_review_shows_what_a_cut_would_remove_wrongly(outcome, tmp_path) -> None:
    review = tmp_path / "reviewed.csv"
    lines = "0,0,remove\n0,1,remove\n0,2,keep\n0,3,keep\n"
    review.write_text("shard_id,sample_index,decision\n" + lines)
    outcome.config["duplicates"]["remove"]["reviewed"] = str(review)
    text = text_of(outcome.make())
    assert "reviewed, up to kept removed 0.0500 0 1" not in text  # two pairs share the first bin
    assert "0.2000 1 0" in text


def test_a_decision_counts_at_the_distance_of_its_pair(outcome, tmp_path) -> None:
    """Image 0 is 0.05 from the closest evaluation image, and 0.3 from the one it was seen beside."""
    review = tmp_path / "reviewed.csv"
    review.write_text("shard_id,sample_index,distance,decision\n0,0,0.3,keep\n0,1,,remove\n")
    outcome.config["duplicates"]["remove"]["reviewed"] = str(review)
    text = text_of(outcome.make())
    assert "0.3000 1 0" in text
    assert "0.1400 0 1" in text


def test_the_cut_in_force_is_in_the_figure_of_recall(outcome) -> None:
    page = outcome.make()
    assert "max_distance 0.1" in figure(page)
    assert "20 %. A vertical line is where duplicates.remove cuts." in text_of(page)
    outcome.config["duplicates"]["remove"] = {"closest": 2}
    assert "closest 2" in figure(outcome.make())
    outcome.config["duplicates"]["remove"] = {}
    page = outcome.make()
    assert not re.search("closest|max_distance", figure(page))
    assert "A vertical line" not in text_of(page)


def test_what_a_review_kept_is_in_the_figure_of_recall(outcome, tmp_path) -> None:
    assert "kept, of those reviewed" not in outcome.make()
    review = tmp_path / "reviewed.csv"
    review.write_text("shard_id,sample_index,decision\n0,0,remove\n0,1,keep\n")
    outcome.config["duplicates"]["remove"]["reviewed"] = str(review)
    page = outcome.make()
    assert "kept, of those reviewed" in figure(page)
    assert "cuts. Kept are the pairs, of those reviewed up to a distance" in text_of(page)


def figure(page: str) -> str:
    """That of the calibration."""
    return page[page.index('<article id="calibration">') :].split("</svg>")[0]


def test_pairs_as_far_apart_count_together_in_what_is_kept_up_to_a_distance() -> None:
    distance = np.array([0.3, 0.1, 0.2, 0.2], np.float32)
    places, shares = kept_up_to(distance, np.array([False, True, True, False]))
    np.testing.assert_allclose(places, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 2])


def test_a_cut_that_not_all_have_is_named_by_those_that_have_it() -> None:
    everywhere = ("max_distance 0.5", 0.5)
    cuts = {"a": [("closest 2", 0.1), everywhere], "b": [("closest 2", 0.2), everywhere]}
    assert name_cuts(cuts) == [("closest 2 of a", 0.1), everywhere, ("closest 2 of b", 0.2)]
    assert name_cuts({"a": cuts["a"]}) == cuts["a"]


def test_a_model_learned_from_all_its_stages_and_from_where_it_started() -> None:
    raw = read_config()
    raw["models"]["other"] = {
        "arch": "cifar_resnet8_w8", "init": "student",
        "train": {"on": "validation", "recipe": "supervised"},
    }  # fmt: skip
    raw["evaluate"]["on"] = ["test"]
    config = load_config(raw)
    assert learned_from(config, "student", "pretrain") == ["top"]
    assert learned_from(config, "student", "finetune") == ["top", "labeled"]
    assert learned_from(config, "other", "train") == ["top", "labeled", "validation"]

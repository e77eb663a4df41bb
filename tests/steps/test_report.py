from pathlib import Path

import pytest
from made_report import Change, Elements, Outcome, text_of

from semisup import schemas, tables
from semisup.tables import DataError

EVIL = '"><script>alert(1)</script>{{ 7 * 7 }}'


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return Outcome(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A report already made, of a student right on 36 of 40 images and a baseline on 20."""
    outcome = Outcome(tmp_path_factory.mktemp("made"))
    outcome.make(student_hits=36, baseline_hits=20)
    return outcome


@pytest.fixture(scope="module")
def page(made: Outcome) -> str:
    return (made.folder / "report.html").read_text()


@pytest.fixture(scope="module")
def text(page: str) -> str:
    return text_of(page)


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report whose keys, class names and shard paths try to be markup."""
    folder = tmp_path_factory.mktemp("evil") / "<b>tars"
    folder.mkdir()
    return Outcome(folder, prefix=EVIL).make()


def test_the_headline_says_by_how_much_the_student_beat_its_baseline(page: str) -> None:
    assert "<h1>The student beat its budget-matched baseline on test by 40.0 points.</h1>" in page


def test_the_finding_gives_intervals_and_the_paired_comparison(text: str) -> None:
    assert "names 90.0 % correctly (95 % interval 76.9–96.0)" in text
    assert "16 images only the student got right, 0 only the baseline" in text
    assert "p = 3.1 × 10⁻⁵" in text


def test_a_student_that_lost_is_not_celebrated(outcome: Outcome) -> None:
    text = text_of(outcome.make(student_hits=20, baseline_hits=36))
    assert "The student lost to its budget-matched baseline on test by 40.0 points." in text


def test_names_from_data_are_escaped(evil_page: str) -> None:
    elements = Elements(evil_page)
    assert "script" not in elements.names
    assert all(not name.startswith("on") for name, _ in elements.attributes)


def test_names_from_data_are_shown_as_they_are(evil_page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}class 0" in evil_page


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    for name, value in Elements(page).attributes:
        if name in ("src", "href", "xlink:href"):
            assert str(value).startswith(("data:image/", "#", "duplicates/"))  # a link


def test_every_element_of_the_page_is_closed(page: str) -> None:
    assert Elements(page).open == []


def test_the_same_results_make_the_same_bytes(made: Outcome, page: str) -> None:
    assert made.write() == page


def test_all_accuracies_are_in_one_table(made: Outcome) -> None:
    table = tables.read_table(made.folder / "evaluations.parquet", schemas.EVALUATIONS)
    assert table.select(["model", "stage", "top1"]).to_pylist() == [
        {"model": "baseline", "stage": "train", "top1": 0.5},
        {"model": "student", "stage": "pretrain", "top1": 0.9},
        {"model": "student", "stage": "finetune", "top1": 0.9},
        {"model": "teacher", "stage": "train", "top1": 0.9},
    ]


BROKEN_BOOKS: dict[str, tuple[str, Change]] = {
    "scored and failed are all samples": (
        "scores/teacher/unlabeled/images.json",
        lambda counts: counts.update(num_scored=counts["num_scored"] - 1),
    ),
    "every scored image has its classes": (
        "scores/teacher/unlabeled/images.json",
        lambda counts: counts.update(num_score_rows=counts["num_score_rows"] + 1),
    ),
    "candidates are scored minus what is left out": (
        "selections/top/summary.json",
        lambda summary: summary.update(num_candidates=summary["num_candidates"] + 1),
    ),
    "every row is packed": (
        "selections/top/summary.json",
        lambda summary: summary.update(num_rows=summary["num_rows"] + 1),
    ),
    "10 rows for 9 samples; shard 0 is the first that is wrong": (
        "shards/top/manifest-00000.json",
        lambda manifest: manifest["shards"][0].update(num_samples=9),
    ),
    "every sample has one status": (
        "datasets/labeled/manifest-00000.json",
        lambda manifest: manifest["statuses"].update(ok=5),
    ),
}


@pytest.mark.parametrize("claim", BROKEN_BOOKS)
def test_books_that_do_not_balance_fail_the_report(made: Outcome, claim: str) -> None:
    with made.edited(*BROKEN_BOOKS[claim]), pytest.raises(DataError, match=claim):
        made.write()


def test_the_ledger_accounts_for_every_sample(text: str) -> None:
    for line in ("samples in the tars 46", "empty −1", "scored 44", "candidates 41"):
        assert line in text


def test_failed_samples_are_listed_with_their_reason(text: str) -> None:
    assert "not_an_image not an image no known image format" in text


def test_the_closest_pair_stands_with_its_distance_and_fate(text: str) -> None:
    assert "0.050 removed duplicate 0 · test original 0" in text
    assert "0.150 kept duplicate 2 · test original 2" in text


def test_without_benchmarks_no_time_is_shown(text: str) -> None:
    assert "of work in" not in text


def test_the_configuration_is_shown_as_it_was_given(text: str) -> None:
    assert "images_per_class: 5" in text


def test_a_failed_report_is_not_written(outcome: Outcome) -> None:
    outcome.prepare()
    name, change = BROKEN_BOOKS["every row is packed"]
    with outcome.edited(name, change), pytest.raises(DataError):
        outcome.write()
    assert not list(outcome.folder.glob("*.html"))

"""The review page in a real browser: keys pressed, the file downloaded, what becomes of it."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from browser import Browser
from conftest import Dataset, make_jpeg
from semisup import schemas, settings, tables
from semisup.review.page import escape_json, render
from semisup.reviews import read_review
from semisup.steps import make_review_page
from semisup.tars import content_hash

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "a,\"quoted\"\r\nnew line",
    "ünïcödé \u2028 &amp; 🦊",
    "{{ 7 * 7 }} ${1} %s",
]  # fmt: skip


def make_pair(i: int, dataset: str = "test") -> dict[str, Any]:
    return {
        "shard_id": 0, "sample_index": i, "key": f"u{i}", "evaluation_dataset": dataset,
        "evaluation_shard_id": 0, "evaluation_sample_index": i, "evaluation_key": f"t{i}",
        "distance": round(0.01 * i, 6), "class": "", "evaluation_class": "ant",
        "pictures": [2 * i, 2 * i + 1],
    }  # fmt: skip


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser):
    yield one_browser
    one_browser.evaluate("localStorage.clear()")


def opened(browser: Browser, path: Path, pairs: list[dict[str, Any]]) -> Browser:
    (browser.folder / "reviewed.csv").unlink(missing_ok=True)
    dot = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    number = 2 * len(pairs)
    path.write_text(render("Pairs", pairs, [dot] * number, [""] * number), encoding="utf-8")
    browser.open(path)
    return browser


def decided(browser: Browser) -> str:
    """The first letter of each pair's decision, a dot where there is none; the current as a capital."""
    return browser.evaluate(
        "[...document.querySelectorAll('article')].map(card => {"
        " const letter = (card.querySelector('i').textContent || '.')[0];"
        " return card.matches('.here') ? letter.toUpperCase().replace('.', ':') : letter; }).join('')"
    )


def downloaded(browser: Browser) -> pd.DataFrame:
    path = browser.folder / "reviewed.csv"
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, "nothing was downloaded"
        browser.evaluate("0")
        time.sleep(0.02)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_keys_decide_and_what_is_decided_is_downloaded(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(9)])
    # Remove 0, keep 1, leave 2, remove 3 and 4, think better of 4, remove all down to 6.
    browser.press("r", "k", "ArrowDown", "r", "r", "ArrowUp", "u", "ArrowDown", "ArrowDown", "R")
    assert browser.evaluate("document.getElementById('progress').textContent") == (
        "7 of 9 pairs decided: 6 remove, 1 keep"
    )
    browser.press("d")
    found = downloaded(browser)
    assert found.sample_index.tolist() == ["0", "1", "2", "3", "4", "5", "6"]
    assert found.decision.tolist() == ["remove", "keep", *["remove"] * 5]
    assert browser.problems() == []


def test_the_bulk_decision_needs_shift_whatever_caps_lock_does(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(6)])
    browser.press("ArrowDown", "ArrowDown")
    browser.press("R", "K", caps_lock=True)
    assert decided(browser) == "..rk:."
    browser.press("U", caps_lock=True)
    assert decided(browser) == "..r:.."
    browser.press("r", caps_lock=True)  # with Shift: a small letter
    assert decided(browser) == "rrrr:."
    browser.press("u", "R")
    assert decided(browser) == "rrrr:."


def test_shift_and_another_letter_do_nothing(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(3)])
    browser.press("r", "K")
    assert decided(browser) == "r:."
    browser.press("U")
    assert decided(browser) == "r:."


def test_a_key_held_down_decides_once_and_moves_on(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(9)])
    browser.press("r", "k", repeats=3)
    assert decided(browser) == "rk:......"
    browser.press("u", repeats=3)
    assert decided(browser) == "r:......."
    browser.press("ArrowDown", repeats=3)
    assert decided(browser) == "r....:..."
    browser.press("R", repeats=3)
    assert decided(browser) == "rrrrrr:.."


def test_the_last_action_is_undone_as_a_whole_where_it_was_done(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(8)])
    browser.press("r", "k", "ArrowDown", "ArrowDown", "R", "ArrowUp", "k", "ArrowUp", "ArrowUp")
    assert decided(browser) == "rkrRk..."
    seen = []
    for _ in range(5):
        browser.press("u")
        seen.append(decided(browser))
    assert seen == ["rkrrR...", "rk..:...", "r:......", ":.......", ":......."]
    assert browser.evaluate("document.getElementById('progress').textContent").startswith("0 of 8")


def test_what_a_filter_hides_is_undone_too(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(4)])
    browser.press("r", "k")
    browser.evaluate("document.getElementById('from').value = '0.015'; filter()")
    browser.press("ArrowDown", "u")
    assert decided(browser) == "r..:"  # the current pair stays
    browser.evaluate("document.getElementById('from').value = '2'; filter()")
    browser.press("u")
    assert decided(browser).lower() == "...."


@pytest.mark.parametrize("field", ["from", "to", "dataset", "decision"])
def test_enter_in_a_field_gives_the_keys_back(browser, tmp_path, field) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(3)])
    browser.evaluate(f"document.getElementById('{field}').focus()")
    browser.press("Enter", "r")
    assert decided(browser) == "r:."


def test_decisions_survive_closing_the_page(browser, tmp_path) -> None:
    path = tmp_path / "page.html"
    pairs = [make_pair(i) for i in range(5)]
    opened(browser, path, pairs)
    browser.press("r", "ArrowDown", "k")
    browser.open(path.with_name("page.html"))
    assert browser.evaluate("document.querySelectorAll('article.remove').length") == 1
    assert browser.evaluate("document.querySelectorAll('article.keep').length") == 1
    opened(browser, path, pairs[:4])  # other pairs, other decisions
    assert browser.evaluate("document.querySelectorAll('article.keep').length") == 0


def test_the_filters_show_what_fits_and_keys_act_on_that_alone(browser, tmp_path) -> None:
    pairs = [make_pair(i, "test" if i % 2 else "validation") for i in range(10)]
    opened(browser, tmp_path / "page.html", pairs)
    browser.evaluate(
        "for (const [id, value] of [['dataset', 'test'], ['from', '0.03'], ['to', '0.07']]) {"
        " document.getElementById(id).value = value;"
        " document.getElementById(id).dispatchEvent(new Event('input')); }"
    )
    assert browser.evaluate("document.querySelectorAll('article:not([hidden])').length") == 3
    browser.press("r", "k", "r", "d")
    found = downloaded(browser)
    assert found.key.tolist() == ["u3", "u5", "u7"]
    assert found.decision.tolist() == ["remove", "keep", "remove"]


def test_keys_typed_into_a_field_decide_nothing(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(3)])
    browser.evaluate("document.getElementById('from').focus()")
    browser.press("r", "k", "d")
    assert browser.evaluate("document.querySelectorAll('article.remove, article.keep').length") == 0


def test_text_from_data_stays_text_and_comes_back_whole(browser, tmp_path) -> None:
    pairs = [make_pair(i) for i in range(len(HOSTILE))]
    for pair, text in zip(pairs, HOSTILE, strict=True):
        pair |= {"key": text, "evaluation_key": text, "class": text, "evaluation_dataset": text}
    opened(browser, tmp_path / "page.html", pairs)
    time.sleep(0.2)
    assert browser.evaluate("document.title") == "Pairs"
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    shown = browser.evaluate(
        "[...document.querySelectorAll('.words')].map(e => e.children[2].textContent)"
    )
    assert shown == HOSTILE
    browser.press(*"rrrrr", "d")
    downloaded(browser)
    with open(browser.folder / "reviewed.csv", encoding="utf-8", newline="") as file:
        found = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert found.key.tolist() == found["class"].tolist() == HOSTILE
    assert browser.problems() == []


def test_five_thousand_pairs_load_few_pictures_at_a_time(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [make_pair(i) for i in range(5000)])
    browser.wait("document.querySelectorAll('img[src]').length > 0")
    assert browser.evaluate("document.querySelectorAll('img').length") == 10_000
    assert browser.evaluate("document.querySelectorAll('img[src]').length") < 400
    browser.evaluate("document.querySelectorAll('article')[4000].click()")
    browser.wait("document.querySelectorAll('article')[4000].querySelector('img').src")
    browser.wait("!document.querySelectorAll('article')[0].querySelector('img[src]')")
    browser.press("r")
    assert browser.evaluate("document.querySelectorAll('article.here')[0].textContent").startswith(
        "40.01"
    )


def test_a_page_without_pairs_opens(browser, tmp_path) -> None:
    opened(browser, tmp_path / "page.html", [])
    assert browser.evaluate("document.getElementById('nothing').hidden") is False
    assert browser.problems() == []


def test_nothing_in_data_can_end_its_element() -> None:
    assert not set(escape_json({"<&>": ["</script>", "<!--", "\u2028"]})) & set("<>&\u2028")


def test_the_page_of_the_step_decides_what_is_removed(
    browser, tmp_path: Path, make_dataset: Dataset
) -> None:
    """From pairs and tars to the page, by keys to the file, and from there to the removal."""
    samples = [(f"u{i}", {"jpg": make_jpeg(i), "cls": b"1"}) for i in range(5)]
    samples[3] = ("u3", {"jpg": b"no image", "cls": b"1"})
    unlabeled = make_dataset([samples[:2], samples[2:]], 2, "unlabeled", 1)
    test = make_dataset(
        [[(f"t{i}", {"jpg": make_jpeg(i), "cls": b"0"}) for i in range(3)]], 2, "test"
    )
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    columns = {
        "shard_id": [shard for shard, _ in places],
        "sample_index": [sample for _, sample in places],
        "key": [f"u{i}" for i in range(5)],
        "evaluation_dataset": ["test"] * 5,
        "evaluation_shard_id": [0] * 5,
        "evaluation_sample_index": [0, 1, 2, 0, 1],
        "evaluation_key": ["t0", "t1", "t2", "t0", "t1"],
        "distance": [0.0, 0.1, 0.2, 0.3, 0.4],
    }
    tables.write_table(tmp_path / "pairs.parquet", columns, schemas.DUPLICATES)
    made_of = settings.MakeReviewPage(
        num_pairs=4,
        num_parts=2,
        evaluation={"test": 1},
        classes=["ant", "bee"],
        own_classes=["fox", "<b>bee"],
    )
    page = tmp_path / "review.html"
    make_review_page.main(made_of, tmp_path / "pairs.parquet", unlabeled[0], [test[0]], page)
    (browser.folder / "reviewed.csv").unlink(missing_ok=True)
    browser.open(page)
    assert browser.evaluate("document.querySelectorAll('article').length") == 4
    browser.wait("document.querySelectorAll('img[src]').length == 7")
    assert "no known image format" in browser.evaluate("document.body.textContent")
    assert browser.evaluate("document.querySelector('.words').textContent") == (
        "0.0000u0<b>beetest · t0ant"
    )
    browser.press("r", "k", "r", "d")
    downloaded(browser)
    decided = read_review(browser.folder / "reviewed.csv", unlabeled)
    assert decided.identity.tolist() == [0, 1, 1 << 32]
    assert decided.evaluation_dataset.tolist() == ["test"] * 3
    assert decided.evaluation.tolist() == [0, 1, 2]
    assert decided.removes.tolist() == [True, False, True]
    file = pd.read_csv(browser.folder / "reviewed.csv", dtype=str)
    assert set(file.dataset) == {"unlabeled"}
    assert file.content_hash[1] == content_hash(samples[1][1]["jpg"]).hex()
    assert browser.problems() == []

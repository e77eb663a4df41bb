"""How large a selection would be, whatever it ranks by."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_selection
from small_selection import make_selection, prepare

from semisup import scores, selection
from semisup.questions import sizes
from semisup.selection import Last, Ranked


def ask(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fraction: str = "1", **selection: Any
) -> pd.DataFrame:
    monkeypatch.chdir(folder)
    made = make_selection(prepare(**selection))
    sizes.main(Path("config.yaml"), "top", "2 3", "2", fraction)
    return pd.read_parquet(made / "sizes.parquet")


@pytest.mark.parametrize("at_once", [1, 10**8])
@pytest.mark.parametrize(
    "keys",
    [{}, {"variant": "zipf"}, {"min_score": 0.8}, {"rank_by": "logit"}, {"variant": "random"}],
    ids=str,
)
def test_every_combination_is_what_selecting_with_it_gives(
    tmp_path, monkeypatch, keys, at_once
) -> None:
    monkeypatch.chdir(tmp_path)
    of_part = small_selection.log_odds_of  # in halves, so that many are equal
    monkeypatch.setattr(small_selection, "log_odds_of", lambda i: np.round(of_part(i) * 2) / 2)
    monkeypatch.setattr(sizes, "ROWS_AT_ONCE", at_once)
    for module in (selection, scores):
        monkeypatch.setattr(module, "TIERS", (1, 2))
    by_chance = "random" in keys.values()
    made = make_selection(prepare(**keys))
    sizes.main(Path("config.yaml"), "top", "1 2 5", "1 2", "0.5 1")
    found = pd.read_parquet(made / "sizes.parquet").to_dict("records")
    combinations = itertools.product([1, 2], [0.5, 1.0], [1, 2, 5])
    for row, (p, fraction, k) in zip(found, combinations, strict=True):
        own = {"images_per_class": k, "classes_per_image": p, "fraction": fraction}
        assert {name: row[name] for name in own} == own
        if by_chance:
            del own["classes_per_image"]
        chosen = pd.read_parquet(make_selection(prepare(**keys, **own)) / "selection.parquet")
        classes_of = chosen.groupby(["shard_id", "sample_index"]).size()
        assert [row["num_rows"], row["num_images"]] == [len(chosen), len(classes_of)]
        assert row["overlap"] == (classes_of > 1).mean()
        if not by_chance:
            last = chosen.groupby("class_id").score.last()
            assert [row["lowest_cut"], row["median_cut"]] == [last.min(), last.median()]


def test_cuts_are_scores_where_logits_rank(tmp_path, monkeypatch, capsys) -> None:
    found = ask(tmp_path, monkeypatch, rank_by="logit", images_per_class=3)
    selection = pd.read_parquet("results/selections/top/selection.parquet")
    last = selection.groupby("class_id").score.last()
    assert found.lowest_cut[1] == pytest.approx(last.min())
    assert found.median_cut[1] == pytest.approx(last.median())
    two = selection[selection.class_rank <= 2].groupby("class_id").score.last()
    assert found.lowest_cut[0] == pytest.approx(two.min())
    assert f"{last.min():.4g}" in capsys.readouterr().out


def test_chance_has_no_cut(tmp_path, monkeypatch, capsys) -> None:
    found = ask(tmp_path, monkeypatch, variant="random")
    assert found.num_rows.tolist() == [4, 6]
    assert found.lowest_cut.isna().all()
    assert " – " in capsys.readouterr().out


@pytest.mark.parametrize("rank_by", ["softmax", "logit"])
def test_a_fraction_without_an_image_has_no_cut(tmp_path, monkeypatch, capsys, rank_by) -> None:
    found = ask(tmp_path, monkeypatch, "0.000001 1", rank_by=rank_by)
    assert found.num_rows.tolist() == [0, 0, 6, 9]
    assert found.num_images.tolist()[:2] == [0, 0]
    cuts = found[["lowest_cut", "median_cut"]].to_numpy()
    assert np.isnan(cuts[:2]).all() and not np.isnan(cuts[2:]).any()
    assert "–" in capsys.readouterr().out


def test_a_class_that_has_all_its_rows_wants_no_more_that_equal_the_last() -> None:
    found = sizes.Sizes(Last(np.array([2]), np.array([20], np.float32), np.array([2])))
    rows = Ranked(
        np.zeros(2, np.int16), np.full(2, 20, np.float32), np.arange(2), np.ones(2, np.int8)
    )
    assert found.floor()[0] == 20
    found.add([rows])
    assert found.floor()[0] > 20
    found.add([rows._replace(identity=rows.identity + (1 << 32))])
    assert found.num_images == 2

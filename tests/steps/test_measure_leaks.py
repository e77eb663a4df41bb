from pathlib import Path

import pandas as pd
import pytest
from searched_sets import Searched, make_network, search

from semisup import schemas, settings, tables
from semisup.steps import measure_leaks
from semisup.tables import DataError

network = pytest.fixture(make_network, name="network")
searched = pytest.fixture(search, name="searched")


@pytest.fixture
def leaked(searched: Searched, network: Path) -> Path:
    """The folder of results of the searched sets, as measure_leaks finds it."""
    results = searched.folder / "results"
    for name, folder in (("unlabeled", "u"), ("test", "test"), ("other", "other")):
        (results / "features" / "net").mkdir(parents=True, exist_ok=True)
        (results / "features" / "net" / name).symlink_to(searched.folder / folder)
    (results / "duplicates").mkdir()
    (results / "duplicates" / "unlabeled").symlink_to(searched.folder)
    chosen = [(0, 1), (1, 2), (2, 7)]
    columns: dict[str, object] = {name: [""] * 3 for name in ("key", "shard", "extension")}
    columns |= {name: [1] * 3 for name in ("class_rank", "prediction_rank", "offset", "size_bytes")}
    columns |= {"class_id": [0] * 3, "class_name": ["ant"] * 3, "score": [0.5] * 3}
    columns |= {"log_odds": [0.0] * 3, "content_hash": [bytes(16)] * 3}
    columns |= {"shard_id": [s for s, _ in chosen], "sample_index": [i for _, i in chosen]}
    path = results / "selections" / "top" / "selection.parquet"
    tables.write_table(path, columns, schemas.SELECTION)
    return results


def measure(results: Path, **changes: object) -> tuple[pd.DataFrame, dict]:
    made_of = {
        "descriptor": "net",
        "leak_distance": None, "record_distance": 2.0, "max_pairs": 1000,
        "remove": {"max_distance": 0.001}, "evaluation": ["other", "test"], "labelled": [],
        "unlabeled": ["unlabeled"], "selections": {"top": "unlabeled"},
        "num_parts": {"unlabeled": 1, "test": 2, "other": 1}, **changes,
    }  # fmt: skip
    leaks, summary = results / "duplicates/leaks.parquet", results / "duplicates/leaks.json"
    measure_leaks.main(settings.MeasureLeaks.model_validate(made_of), results, leaks, summary)
    return pd.read_parquet(leaks), tables.read_json(summary)


def test_leaks_are_found_in_u_and_in_what_was_selected_by_both_descriptors(leaked: Path) -> None:
    leaks, summary = measure(leaked)
    images = ["evaluation_dataset", "evaluation_shard_id", "evaluation_sample_index"]
    found = {
        where: sorted(map(tuple, rows[images].to_numpy().tolist()))
        for where, rows in leaks.groupby(["source", "by"])
    }
    both = [("other", 0, 3), ("test", 0, 2)]
    assert found[("unlabeled", "features")] == both
    assert found[("top", "features")] == both
    assert set(found[("top", "perceptual hash")]) >= set(both)
    assert ("unlabeled", "perceptual hash") not in found
    assert summary["cut"] == 0.001
    assert summary["not_compared"] == {
        "other": {}, "test": {}, "unlabeled": {"truncated_image": 2},
    }  # fmt: skip


def test_an_image_with_the_same_pixels_is_leaked_where_no_pair_says_so(leaked: Path) -> None:
    """As of images without a feature, or where the pairs were bounded."""
    pairs = {name: [] for name in schemas.DUPLICATES.names}
    tables.write_table(leaked / "duplicates/unlabeled/pairs.parquet", pairs, schemas.DUPLICATES)
    leaks, _ = measure(leaked)
    leaks = leaks[leaks.by == "features"]
    images = ["source", "evaluation_dataset", "evaluation_shard_id", "evaluation_sample_index"]
    assert sorted(map(tuple, leaks[images].to_numpy().tolist())) == [
        (source, *image)
        for source in ("top", "unlabeled")
        for image in (("other", 0, 3), ("test", 0, 2))
    ]
    (leaked / "duplicates/unlabeled/copies.parquet").unlink()  # of D there is none
    of_labelled, _ = measure(leaked, unlabeled=[], labelled=["unlabeled"], selections={})
    of_labelled = of_labelled[of_labelled.by == "features"]
    pd.testing.assert_frame_equal(of_labelled, leaks[leaks.source == "unlabeled"])


def test_the_cut_of_leaks_is_what_removes_the_farthest(leaked: Path) -> None:
    nearest = pd.read_parquet(leaked.parent / "nearest-00000.parquet").distance.sort_values()
    _, summary = measure(leaked, remove={"closest": 5, "max_distance": 0.001})
    assert summary["cut"] == pytest.approx(nearest.iloc[4])
    assert measure(leaked, remove={})[1]["cut"] == 2.0
    assert measure(leaked, leak_distance=0.25)[1]["cut"] == 0.25


PLACES = [
    "shard_id",
    "sample_index",
    "evaluation_dataset",
    "evaluation_shard_id",
    "evaluation_sample_index",
]


def review(folder: Path, pairs: pd.DataFrame, decision: str) -> dict[str, str]:
    path = folder / "reviewed.csv"
    pairs[PLACES].assign(dataset="unlabeled", decision=decision).to_csv(path, index=False)
    return {"reviewed": str(path)}


def test_a_pair_that_a_person_kept_is_no_leak(leaked: Path, tmp_path: Path) -> None:
    pairs = pd.read_parquet(leaked.parent / "pairs.parquet")
    same = pairs.distance <= 0.001
    wide = {"max_distance": float(pairs.distance[~same].iloc[3])}
    before, _ = measure(leaked, remove=wide)
    kept = pairs[~same & (pairs.distance <= wide["max_distance"])]
    after, summary = measure(leaked, remove=wide | review(tmp_path, kept, "keep"))
    assert summary["cut"] == pytest.approx(wide["max_distance"])
    own = [rows[(rows.by == "features") & (rows.source == "unlabeled")] for rows in (before, after)]
    assert len(own[0]) > len(own[1]) == 2  # those of the same pixels


def test_where_a_review_alone_removes_the_cut_is_its_farthest(leaked: Path, tmp_path: Path) -> None:
    pairs = pd.read_parquet(leaked.parent / "pairs.parquet")
    first = pairs.drop_duplicates(["shard_id", "sample_index"])
    reviewed = review(tmp_path, first.iloc[[1, 4]], "remove")
    assert measure(leaked, remove=reviewed)[1]["cut"] == pytest.approx(first.distance.iloc[4])
    reviewed = review(tmp_path, first.iloc[[1, 4]], "keep")
    assert measure(leaked, remove=reviewed)[1]["cut"] == 2.0


def test_an_image_without_feature_and_without_a_reason_fails_the_leaks(leaked: Path) -> None:
    path = leaked / "features/net/test/part-00001.parquet"
    table = tables.read_table(path, schemas.FEATURES).slice(1)
    tables.write_table(path, {n: table[n] for n in table.column_names}, schemas.FEATURES)
    with pytest.raises(DataError, match=r"test/part-00001\.parquet: \d features of \d images"):
        measure(leaked)


def test_pairs_that_may_have_been_dropped_are_said(leaked: Path) -> None:
    assert measure(leaked)[1]["complete_to"] == {}
    _, summary = measure(leaked, max_pairs=220)
    assert 0 < summary["complete_to"]["unlabeled"] <= 2

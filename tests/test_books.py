import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import books
from semisup.books import Processed
from semisup.ledger import ImageCounts, Ledger, Manifest, Row, Summary
from semisup.tables import DataError

number = st.integers(0, 10**9)
statuses = st.dictionaries(
    st.sampled_from(["truncated_image", "empty", "not_an_image", "missing_image", "truncated_tar"]),
    number,
)
reasons = st.fixed_dictionaries({"duplicate_of_evaluation": number, "copy": number})


def manifest(counts: dict[str, int]) -> Manifest:
    total = sum(counts.values())
    shards = [
        {"shard_id": i, "path": "", "size_bytes": 0, "sha256": "", "num_samples": n}
        for i, n in enumerate((total // 3, total - total // 3))
    ]
    return Manifest(dataset="d", part=0, samples_sha256="", shards=shards, statuses=counts)  # type: ignore[typeddict-item]


def scoring(ok: int, failed: dict[str, int], lost: int = 0) -> Ledger:
    total = ok + sum(failed.values())
    index = {k: v for k, v in failed.items() if k in ("missing_image", "truncated_tar")}
    indexed = manifest({"ok": total - sum(index.values()), **index})
    counts = ImageCounts(
        num_samples=total,
        statuses={"ok": ok, **failed},
        num_scored=ok - lost,
        num_score_rows=2 * ok,
        num_best=[],
    )
    return books.scoring_books([indexed], counts, sum(failed.values()), 2)


def summary(removed: dict[str, int], scored: int, distinct: int, rows: int) -> Summary:
    entry = {
        "class_id": 0,
        "class_name": "",
        "num_wanted": 10**10,
        "num_images": rows,
        "cut_log_odds": 0.0,
        "cut_score": 0.5,
        "cut_logit": None,
    }
    return Summary(
        selection_sha256="", num_rows=rows, num_distinct=distinct, num_scored=scored,
        num_not_drawn=0,
        num_candidates=scored - sum(removed.values()), removed=removed, classes=[entry],  # type: ignore[list-item]
    )  # fmt: skip


def selection(
    removed: dict[str, int],
    left: int,
    unscored: int = 0,
    selected_removed: int = 0,
    not_drawn: int = 0,
    forgotten: int = 0,
) -> Ledger:
    distinct = left // 2
    scored = left + sum(removed.values()) + not_drawn + forgotten
    made = summary(removed, scored, distinct, 2 * distinct)
    made["num_not_drawn"], made["num_candidates"] = not_drawn, left
    in_table = {**removed, "copy": removed["copy"] + unscored}
    made["removed"] = in_table
    counts = books.SelectionCounts(
        2 * distinct, distinct, in_table, {"copy": unscored}, selected_removed
    )
    return books.selection_books(made, counts, scored, 10**10, 2)


def balanced(ledger: Ledger) -> bool:
    return all(equation.holds for equation in ledger.equations)


def left_over(rows: list[Row]) -> int:
    """What the first total has left after all losses, checking the totals on the way."""
    left = rows[0].count
    for row in rows[1:]:
        if row.kind == "loss":
            left -= row.count
        elif row.kind == "total":
            assert row.count == left, row
    return left


@given(number, statuses)
def test_scoring_balances_whatever_failed(ok: int, failed: dict[str, int]) -> None:
    assert balanced(scoring(ok, failed))


@given(number, statuses)
def test_the_rows_of_scoring_lead_from_the_tars_to_the_scored(
    ok: int, failed: dict[str, int]
) -> None:
    assert left_over(scoring(ok, failed).rows) == ok


@given(st.integers(1, 10**9), statuses)
def test_one_lost_score_is_found(ok: int, failed: dict[str, int]) -> None:
    assert not balanced(scoring(ok, failed, lost=1))


@given(reasons, number)
def test_a_selection_balances_whatever_was_removed(removed: dict[str, int], left: int) -> None:
    assert balanced(selection(removed, left))


@given(reasons, number, number)
def test_removed_images_without_a_score_are_not_subtracted_again(
    removed: dict[str, int], left: int, unscored: int
) -> None:
    assert balanced(selection(removed, left, unscored))


@given(reasons, number)
def test_the_rows_of_a_selection_lead_from_the_scored_to_the_selected(
    removed: dict[str, int], left: int
) -> None:
    scored = Row("scored", left + sum(removed.values()), "total")
    assert left_over([scored, *selection(removed, left).rows]) == left // 2


@given(reasons, st.integers(2, 10**6), st.integers(1, 10**6))
def test_images_outside_the_fraction_are_subtracted(
    removed: dict[str, int], left: int, not_drawn: int
) -> None:
    assert balanced(selection(removed, left, not_drawn=not_drawn))
    assert not balanced(selection(removed, left, not_drawn=not_drawn, forgotten=1))


def test_a_class_beyond_its_share_is_found() -> None:
    made = summary({}, 20, 10, 10)
    counts = books.SelectionCounts(10, 10, {}, {}, 0)
    made["classes"][0]["num_wanted"] = 9
    assert not balanced(books.selection_books(made, counts, 20, 9, 2))
    made["classes"][0]["num_wanted"] = 10
    assert balanced(books.selection_books(made, counts, 20, 10, 2))
    assert not balanced(books.selection_books(made, counts, 20, 11, 2))


def test_a_removed_image_in_the_selection_is_found() -> None:
    removed = {"duplicate_of_evaluation": 1, "copy": 0}
    assert not balanced(selection(removed, 10, selected_removed=1))


@pytest.mark.parametrize("packed", [9, 11])
def test_a_lost_or_doubled_packed_sample_is_found(packed: int) -> None:
    made = summary({}, 20, 10, 10)
    assert balanced(books.packing_books(made, [manifest({"ok": 4}), manifest({"ok": 6})], 10))
    assert not balanced(books.packing_books(made, [manifest({"ok": packed})], packed))


def test_a_training_that_stopped_early_is_found() -> None:
    assert balanced(books.training_books("student/pretrain", Processed(100, 10, 98, 2), 100, 10))
    assert not balanced(books.training_books("student/pretrain", Processed(90, 10, 90, 0), 100, 10))


@pytest.mark.parametrize("loaded", [99, 101])
def test_an_image_the_loader_lost_or_gave_twice_is_found(loaded: int) -> None:
    done = Processed(100, 30, loaded, 0)
    assert not balanced(books.training_books("student/pretrain", done, 100, 30))


def test_a_sample_that_no_pass_has_is_found() -> None:
    done = Processed(100, 29, 100, 0)
    assert not balanced(books.training_books("student/pretrain", done, 100, 30))


def test_a_training_says_how_often_it_saw_each_sample() -> None:
    (row,) = books.training_books("student/pretrain", Processed(25, 10, 25, 0), 25, 10).rows
    assert row.note == "2.5 passes"


@given(st.lists(statuses, min_size=1, max_size=4))
def test_statuses_of_all_parts_are_added(parts: list[dict[str, int]]) -> None:
    manifests = [manifest({"ok": 1, **part}) for part in parts]
    assert balanced(books.dataset_books(manifests, books.count_samples(manifests)))


def test_a_part_may_fail_up_to_its_rate_and_no_further() -> None:
    of_part = {"ok": 7, "empty": 1, "truncated_image": 2}
    books.check_failures("u", of_part, 0.3)
    with pytest.raises(
        DataError, match=r"^u: 3 of 10 samples failed \(2 truncated_image, 1 empty\), more than "
    ):
        books.check_failures("u", of_part, 0.29)
    books.check_failures("nothing", {}, 0.0)
    with pytest.raises(DataError, match=r"20 of 27 samples failed \(17 lost behind the end"):
        books.check_failures("u", of_part, 0.3, num_lost=17)


def test_a_cut_tar_has_lost_what_the_others_have() -> None:
    assert books.lost_in_cut_tars([10, 12, 3, 0, 20], [False, False, True, True, True]) == 8 + 11
    assert books.lost_in_cut_tars([5, 5], [False, False]) == 0
    assert books.lost_in_cut_tars([5, 5], [True, True]) == 0

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup import reasons

# as Snakemake 9 writes it
REASON = (
    "Params have changed since last execution: Union of exclusive params before and now across all "
    "output: before: {!r} now: {!r} "
)


def explained(before: object, now: object) -> str:
    return reasons.explain(REASON.format(json.dumps(before), json.dumps(now)))


def test_a_changed_key_is_named_with_both_values() -> None:
    assert explained({"images_per_class": 20, "seed": 0}, {"images_per_class": 15, "seed": 0}) == (
        "Params have changed since last execution: images_per_class: 20 → 15"
    )


def test_keys_of_sections_have_dots_and_keys_that_came_or_went_are_said() -> None:
    before = {"recipe": {"base_lr": 0.1}, "remove": None}
    now = {"recipe": {"base_lr": 0.2, "mixup": 0.1}, "remove": {"closest": 3}}
    reason = explained(before, now)
    assert "recipe.base_lr: 0.1 → 0.2, recipe.mixup: absent → 0.1" in reason
    assert 'remove: null → {"closest": 3}' in reason


def test_long_values_are_cut() -> None:
    assert len(explained({"folder": 1000 * "a"}, {"folder": 999 * "b"})) < 250


def test_of_long_lists_the_lengths_and_the_first_that_differs_are_said() -> None:
    shards = [f"{i:05d}.tar" for i in range(200)]
    assert explained({"shards": shards[:-1]}, {"shards": shards}).endswith(
        "execution: len(shards): 199 → 200"
    )
    renamed = [*shards[:-1], "last.tar"]
    assert explained({"shards": shards}, {"shards": renamed}).endswith(
        'execution: shards[199]: "00199.tar" → "last.tar"'
    )


@given(st.text(max_size=30), st.text(max_size=30))
def test_quotes_and_backslashes_in_values_do_no_harm(before: str, now: str) -> None:
    reason = explained({"folder": before, "seed": 1}, {"folder": now, "seed": 2})
    assert reason.endswith("seed: 1 → 2")
    assert ("folder" in reason) == (before != now)


@pytest.mark.parametrize(
    "reason",
    [
        "Missing output files: a, b",
        "",
        REASON.format("no JSON", "neither"),
        "Union of exclusive params before and now across all output: before: <nothing exclusive> now: 'x' ",
    ],
)
def test_other_reasons_stay_as_they_are(reason: str) -> None:
    assert reasons.explain(reason) == reason


def test_what_snakemake_logs_is_rewritten() -> None:
    record = logging.makeLogRecord({"reason": REASON.format('{"a": 1}', '{"a": 2}')})
    assert reasons.ExplainChanges().filter(record)
    assert record.reason.endswith("a: 1 → 2")
    assert reasons.ExplainChanges().filter(logging.makeLogRecord({}))


def test_changes_since_the_last_report_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert reasons.changes_since(path, {"seed": 1}) == []
    path.write_text('{"seed": 1, "pack": {"samples_per_shard": 5}}')
    now = {"seed": 2, "pack": {"samples_per_shard": 5}}
    assert reasons.changes_since(path, now) == ["seed: 1 → 2"]

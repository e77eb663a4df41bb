"""What ranks other than log-odds."""

import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.merging import count_ahead, merge
from semisup.rankings import LogitTable, _match, look_up
from semisup.scores import Rows, write_scores
from semisup.selection import TIERS, Cut, Ranked, concatenate


@pytest.mark.parametrize("num_images", [2, 3 * TIERS[0]])
def test_of_equal_logits_the_first_images_are_chosen_whatever_their_log_odds(
    tmp_path: Path, num_images: int
) -> None:
    """Log-odds from 40 on, a softmax of 1 in float32, the last image in the first tier."""
    path = tmp_path / "part-00000.parquet"
    identity = np.arange(num_images)
    log_odds = (40 + identity).astype(np.float32)
    ranks = np.ones(num_images, np.int8)
    write_scores(path, Ranked(np.zeros(num_images, np.int16), log_odds, identity, ranks))
    columns = {
        "shard_id": np.zeros(num_images, np.int32), "sample_index": identity.astype(np.int32),
        "logsumexp": np.ones(num_images, np.float32), "status": ["ok"] * num_images, "reason": [""] * num_images,
    }  # fmt: skip
    tables.write_table(tmp_path / "images-00000.parquet", columns, schemas.IMAGES)
    by_logit = partial(LogitTable, min_log_odds=-np.inf)
    for k in (1, 2, num_images - 1, num_images):
        chosen = merge([path], Cut(np.array([k])), open_part=by_logit)
        assert chosen.identity.tolist() == list(range(k))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_by_logit_the_best_and_the_ranks_are_those_of_one_sort(seed: int) -> None:
    """Over tiers of few ranks, parts, shards and ties, whatever may not be selected."""
    rng = np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("semisup.selection.TIERS", (1, 2, 4, 7)),
        patch("semisup.scores.TIERS", (1, 2, 4, 7)),
    ):
        _compare_with_one_sort(rng, Path(folder))


def _compare_with_one_sort(rng: np.random.Generator, folder: Path) -> None:
    num_classes = int(rng.integers(1, 6))
    paths = [folder / f"part-{part:05d}.parquet" for part in range(rng.integers(1, 5))]
    parts = [_write_part(rng, path, num_classes) for path in paths]
    rows = concatenate([rows for rows, _ in parts])
    logsumexp = np.concatenate([logsumexp for _, logsumexp in parts])
    log_softmax = -np.logaddexp(0, -rows.log_odds.astype(np.float64))
    logit = (log_softmax + logsumexp).astype(np.float32)
    least, out = float(rng.choice([-np.inf, -1.5, 1])), rng.choice(2**36, 3)
    out = np.union1d(out, rows.identity[: rng.integers(0, 9)])

    def allowed(rows: Rows, at: np.ndarray) -> np.ndarray:
        return at[~np.isin(rows.identity(at), out)]

    may = (rows.log_odds >= least) & ~np.isin(rows.identity, out)
    k = rng.integers(0, 12, num_classes)
    by_logit = partial(LogitTable, min_log_odds=least)
    order = np.lexsort((rows.identity, -logit, rows.class_id))
    best = [order[may[order] & (rows.class_id[order] == c)][: k[c]] for c in range(num_classes)]
    chosen = merge(paths, Cut(k), allowed, open_part=by_logit)
    for found, expected in zip(chosen, rows._replace(log_odds=logit), strict=True):
        np.testing.assert_array_equal(found, expected[np.concatenate(best)])
    for identity in rng.choice(rows.identity, 2) if len(rows.identity) else ():
        own = rows._replace(log_odds=logit).take(np.flatnonzero(rows.identity == identity))
        counts = count_ahead(paths, own, allowed, open_part=by_logit)
        for class_id, score, count in zip(own.class_id, own.log_odds, counts, strict=True):
            ahead = (logit > score) | ((logit == score) & (rows.identity < identity))
            assert np.sum(ahead & may & (rows.class_id == class_id)) == count


def _write_part(
    rng: np.random.Generator, path: Path, num_classes: int
) -> tuple[Ranked, np.ndarray]:
    """A part of up to two shards with two classes an image, some failed; the logsumexp of each row."""
    per_image, part = min(num_classes, 2), int(path.stem.removeprefix("part-"))
    shards = [(np.int64(2 * part + i) << 32) | np.arange(rng.integers(0, 300)) for i in range(2)]
    images = np.concatenate(shards)
    scored = rng.random(len(images)) < rng.choice([0, 0.5, 1])
    logsumexp = np.where(scored, rng.integers(-2, 3, len(images)), 0).astype(np.float32)
    classes = [rng.permutation(num_classes)[:per_image] for _ in images[scored]]
    log_odds = rng.integers(-3, 4, per_image * scored.sum()) * rng.choice([1, 8])
    rows = Ranked(
        np.array(classes, np.int16).reshape(-1), log_odds.astype(np.float32),
        np.repeat(images[scored], per_image),
        np.tile(np.arange(1, per_image + 1, dtype=np.int8), scored.sum()),
    )  # fmt: skip
    write_scores(path, rows)
    shard_id, sample_index = tables.split_identity(images)
    columns = {
        "shard_id": shard_id, "sample_index": sample_index, "logsumexp": logsumexp,
        "status": np.where(scored, "ok", "empty").tolist(), "reason": [""] * len(images),
    }  # fmt: skip
    tables.write_table(path.with_name(f"images-{part:05d}.parquet"), columns, schemas.IMAGES)
    return rows, np.repeat(logsumexp[scored], per_image)


CLASSES = [0, 1, 300, 2**15 - 1]


@settings(max_examples=40)
@given(st.data())
def test_looking_up_finds_the_score_of_each_image_and_class(data: st.DataObject) -> None:
    """Of two parts; wanted are stored rows, images of no part, and classes an image has no score for."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    num_images = data.draw(st.lists(st.integers(0, 30), min_size=2, max_size=2))
    with tempfile.TemporaryDirectory() as folder:
        _look_up(rng, num_images, Path(folder))


def _look_up(rng: np.random.Generator, num_images: list[int], folder: Path) -> None:
    stored: dict[tuple[int, int], tuple[np.float32, int]] = {}
    paths = []
    for part, num in enumerate(num_images):
        identity = np.repeat((np.int64(part) << 32) | np.arange(num), 2)
        class_id = np.array([rng.permutation(CLASSES)[:2] for _ in range(num)], np.int16).reshape(
            -1
        )
        log_odds = rng.normal(size=2 * num).astype(np.float32)
        rows = Ranked(class_id, log_odds, identity, np.tile(np.array([1, 2], np.int8), num))
        paths.append(folder / f"part-{part:05d}.parquet")
        write_scores(paths[-1], rows)
        for class_, score, image, rank in zip(*rows, strict=True):
            stored[int(image), int(class_)] = score, int(rank)
    images = [*range(35), *range(2**32, 2**32 + 35)]
    pairs = [(image, class_) for image in images for class_ in CLASSES]
    wanted = [pairs[i] for i in rng.permutation(len(pairs))[: len(pairs) // 2]]
    identity, class_id = (np.array(column) for column in zip(*wanted, strict=True))
    log_odds, ranks = look_up(paths, identity, class_id.astype(np.int16))
    expected = [stored.get(pair, (np.nan, 0)) for pair in wanted]
    np.testing.assert_array_equal(log_odds, np.array([each for each, _ in expected], np.float32))
    assert ranks.tolist() == [rank for _, rank in expected]


def test_rows_of_other_images_match_nothing() -> None:
    """Wanted are two images, with class 3; rows are of those beside them, too."""
    zeros = np.zeros(6, np.float32)
    rows = Ranked(np.full(6, 3, np.int16), zeros, np.arange(6), np.ones(6, np.int8))
    at, found = _match(np.array([1, 4]), np.array([3, 3], np.int16), rows)
    assert (at.tolist(), found.tolist()) == ([0, 1], [1, 4])

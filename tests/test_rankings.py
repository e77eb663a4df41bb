"""What ranks other than log-odds."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.rankings import LogitTable, _match, look_up
from semisup.scores import merge, write_scores
from semisup.selection import TIERS, Cut, Ranked


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

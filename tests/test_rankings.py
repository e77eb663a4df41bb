"""What ranks other than log-odds."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semisup import schemas, tables
from semisup.rankings import LogitTable, _match, look_up
from semisup.scores import merge, write_scores
from semisup.selection import Cut, Ranked


def test_of_equal_logits_the_first_image_is_chosen_whatever_its_log_odds(tmp_path: Path) -> None:
    log_odds = np.array([20, 21], np.float32)  # softmax 1.0 and 1.0 in float32
    path = tmp_path / "part-00000.parquet"
    rows = Ranked(np.zeros(2, np.int16), log_odds, np.arange(2), np.ones(2, np.int8))
    write_scores(path, rows)
    columns = {
        "shard_id": [0, 0], "sample_index": [0, 1], "logsumexp": np.ones(2, np.float32),
        "status": ["ok"] * 2, "reason": [""] * 2,
    }  # fmt: skip
    tables.write_table(tmp_path / "images-00000.parquet", columns, schemas.IMAGES)
    by_logit = partial(LogitTable, min_log_odds=-np.inf)
    for k, chosen in ((1, [0]), (2, [0, 1])):
        assert merge([path], Cut(np.array([k])), open_part=by_logit).identity.tolist() == chosen


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

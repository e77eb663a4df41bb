"""Parts of scores, few and small, with many ties; the selection from them by brute force."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from semisup import scores, selection
from semisup.scores import write_scores
from semisup.selection import Ranked

NUM_CLASSES = 5
P = 2


def make_part(part: int, images: list[tuple[int, list[float]]]) -> Ranked:
    """The rows of a part: of each image its first class, and as many following ones as scores."""
    rows = [
        ((first + rank) % NUM_CLASSES, score, (part << 32) | index, rank + 1)
        for index, (first, log_odds) in enumerate(images)
        for rank, score in enumerate(log_odds)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    types = (np.int16, np.float32, np.int64, np.int8)
    return Ranked(*(np.array(c, t) for c, t in zip(columns, types, strict=True)))


def brute_force(parts: list[Ranked], per_class: list[int]) -> pd.DataFrame:
    rows = pd.concat([pd.DataFrame(part._asdict()) for part in parts])
    rows = rows.sort_values(["class_id", "log_odds", "identity"], ascending=[True, False, True])
    rows = rows[rows.groupby("class_id").cumcount() < np.array(per_class)[rows.class_id]]
    return rows.reset_index(drop=True)


def write_parts(folder: Path, parts: list[Ranked]) -> list[Path]:
    paths = [folder / f"part-{i:05d}.parquet" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_scores(path, part)
    return paths


# Few distinct scores, so that ties are the rule, also at the cut.
score = st.integers(-3, 3).map(float)
images = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.lists(score, min_size=P, max_size=P)), max_size=30
)
per_class = st.lists(st.integers(0, 12), min_size=NUM_CLASSES, max_size=NUM_CLASSES)


@pytest.fixture(scope="module", autouse=True)
def small_tiers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "TIERS", (1, 3, 6))
        patch.setattr(scores, "TIERS", (1, 3, 6))
        patch.setattr(scores, "ROW_GROUP", 4)
        yield

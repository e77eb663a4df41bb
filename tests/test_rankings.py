"""What ranks other than log-odds."""

from functools import partial
from pathlib import Path

import numpy as np

from semisup import schemas, tables
from semisup.rankings import LogitTable
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

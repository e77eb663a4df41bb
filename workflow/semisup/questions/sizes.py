"""How large a selection would be for every K, P and fraction of U: `make plan K=... P=... FRACTION=...`.

From the scores alone, before anything is trained on it: the |D-hat| column of the paper's Table 9.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from semisup import memory, schemas, tables
from semisup.merging import Wanted, find, gather
from semisup.questions import Selected, open_selection
from semisup.rankings import allowed_rows, look_up
from semisup.scores import ScoreTable
from semisup.selection import Cut, Last, Ranked, class_sizes, concatenate, score_of, take_ties
from semisup.steps import run
from semisup.tables import DataError

ROWS_AT_ONCE, LEAST_ROWS = 120_000_000, 2_000_000
"""For all combinations together, 16 to 30 bytes each; for one, as a cut waits for a million."""


def main(configfile: Path, selection: str, k: str, p: str, fraction: str) -> None:
    """Print and store a row for every combination; numbers are separated by spaces."""
    selected = open_selection(configfile, selection)
    sizes, classes = _numbers("K", k, int), _numbers("P", p, int)
    fractions = _numbers("FRACTION", fraction, float)
    stored = selected.settings.stored_classes
    if not all(1 <= each <= stored for each in classes):
        raise DataError(f"P: {classes} must be from 1 to {stored}, which scoring stored.")
    if not all(0 < each <= 1 for each in fractions) or not all(1 <= each < 2**31 for each in sizes):
        raise DataError(
            f"K: {sizes} must be at least 1, FRACTION: {fractions} above 0 and up to 1."
        )
    memory.keep_freed()
    found = measure_grid(selected, sorted(sizes), classes, fractions)
    columns = {
        name: pa.array(found[name].to_numpy(), from_pandas=True) for name in schemas.SIZES.names
    }
    path = selected.folder / "sizes.parquet"
    tables.write_table(path, columns, schemas.SIZES)
    print(_as_text(found))
    print(f"Stored in {path}.")


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        if numbers := [kind(word) for word in text.split()]:
            return numbers
    except ValueError:
        pass
    raise DataError(f"{name}: {text!r} must be numbers separated by spaces.")


def measure_grid(
    selected: Selected, sizes: list[int], classes: list[int], fractions: list[float]
) -> pd.DataFrame:
    """A row of SIZES for each K of ``sizes`` (ascending), P of ``classes`` and fraction.

    The cuts of as many as memory allows are found in one pass over the scores, their images counted
    in a second, without putting the rows in order.
    """
    counts = tables.read_json(Path(selected.plan.selection_counts(selected.wildcards)))
    variant, num_best = selected.settings.variant, np.array(counts["num_best"])
    wanted = [class_sizes(variant, k, num_best) for k in sizes]
    of_a_part = counts["num_scored"] * selected.settings.stored_classes // len(selected.parts)
    rows = max(int(np.max(wanted, axis=0).sum()), of_a_part, LEAST_ROWS)
    at_once = max(1, ROWS_AT_ONCE // rows)
    combinations = list(itertools.product(classes, fractions))
    found: list[Sizes] = []
    for start in range(0, len(combinations), at_once):
        found += _measure(selected, wanted, combinations[start : start + at_once])
    scores = _last_scores(selected, found)
    summary = tables.read_json(selected.folder / "summary.json")
    names = [entry["class_name"] for entry in summary["classes"]]
    order = itertools.product(combinations, zip(sizes, wanted, strict=True))
    return pd.DataFrame(
        [
            {
                "classes_per_image": p,
                "fraction": fraction,
                "images_per_class": k,
                **_row(each, of_classes, own_scores, names),
            }
            for ((p, fraction), (k, of_classes)), each, own_scores in zip(
                order, found, scores, strict=True
            )
        ]
    )


class Sizes:
    """A selection while it is measured: where it ends, and how many images have how many of its rows."""

    def __init__(self, last: Last) -> None:
        self.last = last
        self.num_images = self.num_shared = 0
        self.last_identity = np.zeros(len(last.lengths), np.int64)
        """Of the last row of each class."""
        self._quota = last.quota.copy()

    def add(self, blocks: list[Ranked]) -> None:
        """Rows of the next part, tier by tier: all that are selected, maybe others behind them."""
        inside = [self._inside(block) for block in blocks]
        images = np.sort(concatenate(inside).identity)
        again = images[1:] == images[:-1]
        self.num_images += len(images) - int(again.sum())
        # Of an image that serves n classes, n - 1 rows come again, the first after a new one.
        self.num_shared += int(np.sum(again & ~np.concatenate([[False], again[:-1]])))

    def floor(self) -> np.ndarray:
        """What a row of the parts to come must reach, for each class."""
        last = self.last.log_odds
        return np.where(self._quota > 0, last, np.nextafter(last, np.float32(np.inf)))

    def _inside(self, rows: Ranked) -> Ranked:
        last = self.last.log_odds
        rows = rows.take(np.flatnonzero(rows.log_odds >= last[rows.class_id]))
        rows = take_ties(rows, last, self._quota)
        tied = np.flatnonzero(rows.log_odds == last[rows.class_id])
        np.maximum.at(self.last_identity, rows.class_id[tied], rows.identity[tied])
        return rows


def _measure(
    selected: Selected, wanted: list[np.ndarray], combinations: list[tuple[int, float]]
) -> list[Sizes]:
    """For each P and fraction, each of ``wanted``."""
    ranking = selected.ranking
    seed = selected.plan.config.seed  # the selection's own fraction may be all of U

    def of(p: int, fraction: float) -> Wanted:
        changes = {"classes_per_image": p, "fraction": fraction, "seed": seed}
        settings = selected.settings.model_copy(update=changes)
        cut = Cut(np.max(wanted, axis=0), ranking.least)  # zipf may give a class less of more
        return Wanted(cut, allowed_rows(selected.left_out, settings))

    largest = [of(*combination) for combination in combinations]
    with ThreadPoolExecutor(2) as pool:
        parts = find(largest, ranking.paths, pool, 2, ranking.open_part)
        found = [[Sizes(each.cut.last(k)) for k in wanted] for each in largest]
        floors = [each.cut.last().log_odds for each in largest]
        for each in largest:
            each.cut.close()

        def add(sizes: list[Sizes], floor: np.ndarray, blocks: list[Ranked]) -> None:
            for each in sizes:
                each.add(blocks)
            floor[:] = np.min([each.floor() for each in sizes], axis=0)

        for blocks in gather(largest, floors, parts, pool, 2):
            list(pool.map(add, found, floors, blocks))
    return list(itertools.chain.from_iterable(found))


def _last_scores(selected: Selected, found: list[Sizes]) -> list[np.ndarray]:
    """The scores of the last row of each class that has one.

    An image that chance has chosen is no cut, whatever its score.
    """
    if selected.settings.tags is not None:
        return [np.empty(0, np.float32)] * len(found)
    classes = [np.flatnonzero(each.last.lengths) for each in found]
    rows = list(zip(found, classes, strict=True))
    log_odds = np.concatenate([each.last.log_odds[own] for each, own in rows])
    if selected.ranking.open_part is not ScoreTable:
        identity = np.concatenate([each.last_identity[own] for each, own in rows])
        last = np.stack([identity, np.concatenate(classes)])
        (identity, class_id), place = np.unique(last, axis=1, return_inverse=True)
        log_odds = look_up(selected.parts, identity, class_id)[0].take(place)
    return np.split(score_of(log_odds), np.cumsum([len(own) for own in classes])[:-1])


def _row(
    found: Sizes, wanted: np.ndarray, last_scores: np.ndarray, names: list[str]
) -> dict[str, Any]:
    lengths = found.last.lengths
    shortest, some = int(np.argmin(lengths - wanted)), found.num_images > 0
    return {
        "num_rows": int(lengths.sum()),
        "num_images": found.num_images,
        "fill": float(lengths.sum() / wanted.sum()),
        "shortest_class": names[shortest],
        "num_shortest": int(lengths[shortest]),
        "overlap": found.num_shared / found.num_images if some else 0.0,
        "lowest_cut": float(last_scores.min()) if len(last_scores) else None,
        "median_cut": float(np.median(last_scores)) if len(last_scores) else None,
    }


def _as_text(found: pd.DataFrame) -> str:
    heads = {
        "classes_per_image": "P",
        "fraction": "fraction",
        "images_per_class": "K",
        "num_rows": "|D-hat|",
        "num_images": "images",
        "fill": "fill",
        "overlap": "in 2+ classes",
        "lowest_cut": "lowest cut",
        "median_cut": "median cut",
        "num_shortest": "shortest",
        "shortest_class": "class",
    }
    formats = {"fraction": "{:g}", "fill": "{:.1%}", "overlap": "{:.1%}"}
    formats |= {"lowest_cut": "{:.4g}", "median_cut": "{:.4g}"}
    shown = found[list(heads)].copy()
    for name, form in formats.items():
        shown[name] = ["–" if pd.isna(value) else form.format(value) for value in shown[name]]
    for name in ("num_rows", "num_images", "images_per_class", "num_shortest"):
        shown[name] = [f"{value:,}" for value in shown[name]]
    return str(shown.rename(columns=heads).to_string(index=False))


if __name__ == "__main__":
    run(main)

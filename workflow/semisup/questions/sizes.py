"""How large a selection would be for every K, P and fraction of U: `make plan K=... P=... FRACTION=...`.

From the scores alone, before anything is trained on it: the |D-hat| column of the paper's Table 9.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from semisup import memory, schemas, tables
from semisup.questions import Selected, open_selection
from semisup.rankings import look_up
from semisup.scores import ScoreTable, merge
from semisup.selection import Cut, Ranked, class_sizes, ranks_in_class, score_of
from semisup.steps import run
from semisup.steps.select import allowed_rows
from semisup.tables import DataError


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
    columns = {name: pa.array(found[name], from_pandas=True) for name in schemas.SIZES.names}
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
    """A row of SIZES for each K of ``sizes`` (ascending), P of ``classes`` and fraction."""
    summary = tables.read_json(selected.folder / "summary.json")
    names = [entry["class_name"] for entry in summary["classes"]]
    counts = tables.read_json(Path(selected.plan.selection_counts(selected.wildcards)))
    wanted = [
        class_sizes(selected.settings.variant, k, np.array(counts["num_best"])) for k in sizes
    ]

    def measure(combination: tuple[int, float]) -> list[dict[str, Any]]:
        p, fraction = combination
        changes = {"classes_per_image": p, "fraction": fraction}
        seed = selected.plan.config.seed  # whose own fraction may be all of U
        settings = selected.settings.model_copy(update={**changes, "seed": seed})
        allowed = allowed_rows(selected.left_out, settings)
        cut = Cut(np.max(wanted, axis=0), selected.ranking.least)
        ranking = selected.ranking
        chosen = merge(ranking.paths, cut, allowed, 1, ranking.open_part)
        by_k = dict(zip(sizes, wanted, strict=True))
        return list(_rows(chosen, _last_scores(selected, chosen, wanted), by_k, names, changes))

    with ThreadPoolExecutor(2) as pool:
        found = pool.map(measure, itertools.product(classes, fractions))
        return pd.DataFrame(list(itertools.chain.from_iterable(found)))


def _last_scores(selected: Selected, chosen: Ranked, wanted: list[np.ndarray]) -> np.ndarray:
    """The scores of the rows that are the last of their class for some K; NaN: none.

    An image that chance has chosen is no cut, whatever its score.
    """
    scores = np.full(len(chosen.identity), np.nan, np.float32)
    if selected.settings.tags is not None:
        return scores
    rank = ranks_in_class(chosen.class_id)
    last = np.zeros(len(rank), bool)
    for sizes in wanted:
        length = np.minimum(sizes, np.bincount(chosen.class_id, minlength=len(sizes)))
        last |= rank == length[chosen.class_id]
    rows = chosen.take(np.flatnonzero(last))
    by_log_odds = selected.ranking.open_part is ScoreTable
    log_odds = rows.log_odds if by_log_odds else look_up(selected.parts, rows)[0]
    scores[last] = score_of(log_odds)
    return scores


def _rows(
    chosen: Ranked,
    scores: np.ndarray,
    wanted: dict[int, np.ndarray],
    names: list[str],
    changes: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """One row for each K; a smaller one is the beginning of every class of a larger one."""
    rank = ranks_in_class(chosen.class_id)
    by_image = np.argsort(chosen.identity)
    identity = chosen.identity[by_image]
    for k, sizes in wanted.items():
        inside = rank <= sizes[chosen.class_id]
        images = identity[inside[by_image]]
        again = images[1:] == images[:-1]
        num_images = len(images) - int(again.sum())
        # Of an image that serves n classes, n - 1 rows come again, the first after a new one.
        num_shared = int(np.sum(again & ~np.concatenate([[False], again[:-1]])))
        per_class = np.bincount(chosen.class_id[inside], minlength=len(names))
        shortest = int(np.argmin(per_class - sizes))
        last = np.flatnonzero(inside & (rank == per_class[chosen.class_id]))
        cuts = scores[last][~np.isnan(scores[last])]
        yield {
            **changes,
            "images_per_class": k,
            "num_rows": len(images),
            "num_images": num_images,
            "fill": len(images) / int(sizes.sum()),
            "shortest_class": names[shortest],
            "num_shortest": int(per_class[shortest]),
            "overlap": num_shared / num_images if num_images else 0.0,
            "lowest_cut": float(cuts.min()) if len(cuts) else None,
            "median_cut": float(np.median(cuts)) if len(cuts) else None,
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

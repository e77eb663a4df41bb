"""Why an image is or is not in a selection: `make explain KEY=... SELECTION=...`, in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semisup import schemas, tables, tars
from semisup.datasets import MAX_CLASSES
from semisup.questions import Selected, open_selection
from semisup.rankings import look_up
from semisup.removal import COPY
from semisup.samples import samples_path
from semisup.scores import Part, rows_not_below
from semisup.selection import Ranked, concatenate, drawn, score_of
from semisup.steps import run
from semisup.steps.select import allowed_rows
from semisup.tables import DataError


def main(configfile: Path, selection: str, key: str) -> None:
    """Print what became of the image with this key: its scores, ranks, cuts, or why it has none."""
    selected = open_selection(configfile, selection)
    if not key:
        raise DataError(
            "whose story? make explain KEY=..., a key of the selection's table, or any."
        )
    found = list(_find(selected, key))
    if not found:
        raise DataError(f"no sample of U has the key {key!r}.")
    for part, sample in found:
        print("\n".join(_explain(selected, part, sample)))


def _find(selected: Selected, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The samples with this key: their part, and their row with the path of their shard."""
    for part, manifest in enumerate(selected.manifests):
        samples = samples_path(manifest)
        keys = pq.read_table(samples, columns=["key"])["key"]
        for row in np.flatnonzero(pc.equal(keys, key)).tolist():
            sample = tables.read_rows(samples, schemas.SAMPLES, np.array([row])).to_pylist()[0]
            shards = tables.read_json(manifest)["shards"]
            paths = {shard["shard_id"]: shard["path"] for shard in shards}
            yield part, sample | {"shard": paths[sample["shard_id"]]}


def _explain(selected: Selected, part: int, sample: dict[str, Any]) -> Iterator[str]:
    settings, ranking = selected.settings, selected.ranking
    identity = (sample["shard_id"] << 32) | sample["sample_index"]
    yield f"{sample['key']}: sample {sample['sample_index']} of {sample['shard']}"
    scores = selected.parts[part]
    images = scores.with_name(scores.name.replace("part-", "images-"))
    image = _row(images, schemas.IMAGES, identity)
    if image["status"] != tars.OK:
        yield f"  not scored: {image['status']}, {image['reason']}"
        return
    removed = selected.removed.filter(pa.array(tables.identity(selected.removed) == identity))
    reasons = removed["reason"].to_pylist()
    for reason in reasons:
        yield f"  removed: {_why(selected, reason, identity)}"
    if not drawn(np.array([identity]), settings.fraction, settings.seed)[0]:
        yield f"  not among the fraction {settings.fraction:g} of U that were drawn"
        return
    own = _rows_of(ranking.open_part(ranking.paths[part]), identity)
    better = _count_better(selected, own, identity)
    log_odds, prediction_rank = look_up([scores], own)
    classes = tables.read_json(selected.folder / "summary.json")["classes"]
    for i in np.argsort(prediction_rank, kind="stable").tolist():
        entry, num_better = classes[own.class_id[i]], better[i]
        score = float(score_of(log_odds[i : i + 1])[0])
        line = f"  {entry['class_name']}: "
        line += (
            "no score" if np.isnan(score) else f"score {_show(score)} (log-odds {log_odds[i]:.4f})"
        )
        if settings.rank_by == "logit":
            line += f", logit {own.log_odds[i]:.4f}"
        if own.prediction_rank[i] > settings.classes_per_image:
            yield f"  and {len(better) - settings.classes_per_image} classes beyond P"
            break
        if score < np.float32(settings.min_score):
            yield f"{line}, below min_score {settings.min_score}"
        elif reasons:
            yield f"{line}, would be rank {num_better + 1}"
        elif num_better < entry["num_images"]:
            yield f"{line}, selected: rank {num_better + 1} of {entry['num_images']}"
        else:
            cut = (
                ""
                if entry["cut_score"] is None
                else f", whose score is {_show(entry['cut_score'])}"
            )
            yield f"{line}, rank {num_better + 1}: behind the last selected{cut}"
    if not len(own.class_id):
        yield "  without a label" if settings.tags else "  no class reaches min_score"


def _show(score: float) -> str:
    return f"{score:.6f}" if score < 0.9999995 else "> 0.999999"


def _row(path: Path, schema: pa.Schema, identity: int) -> dict[str, Any]:
    table = tables.read_table(path, schema)
    return dict(
        table.slice(int(np.searchsorted(tables.identity(table), identity)), 1).to_pylist()[0]
    )


def _why(selected: Selected, reason: str, identity: int) -> str:
    if reason == COPY:
        (path,) = selected.plan.selection_copies(selected.wildcards)
        copies = tables.read_table(Path(path), schemas.COPIES)
        row = copies.filter(pa.array(tables.identity(copies) == identity)).to_pylist()[0]
        first = f"sample {row['first_sample_index']} of shard {row['first_shard_id']}"
        return f"the same bytes as {first}"
    (path,) = selected.plan.selection_pairs(selected.wildcards)
    pairs = tables.read_table(Path(path), schemas.DUPLICATES)
    rows = pairs.filter(pa.array(tables.identity(pairs) == identity)).to_pylist()
    if not rows:
        return "by the review"
    of = f"{rows[0]['evaluation_key']!r} of {rows[0]['evaluation_dataset']}"
    return f"a near-duplicate of {of}, at distance {rows[0]['distance']:.4f}"


def _rows_of(part: Part, identity: int) -> Ranked:
    """What one image is ranked by, for each of its classes."""
    blocks = []
    for tier in range(len(part.tiers)):
        rows = part.read(tier)
        every = rows.take(np.arange(len(rows.class_id)))
        blocks.append(every.take(np.flatnonzero(every.identity == identity)))
    return concatenate(blocks)


def _count_better(selected: Selected, own: Ranked, identity: int) -> list[int]:
    """How many images that may be selected are ahead of this one, for each of its classes."""
    ranking, allowed = selected.ranking, allowed_rows(selected.left_out, selected.settings)
    floor = np.full(MAX_CLASSES, np.inf, np.float32)
    floor[own.class_id] = own.log_odds
    counts = np.zeros(len(floor), np.int64)
    for rows in rows_not_below(ranking.paths, floor, open_part=ranking.open_part):
        ahead = (rows.log_odds > floor[rows.class_id]) | (rows.identity < identity)
        if allowed:
            ahead &= allowed(rows)
        counts += np.bincount(rows.class_id[ahead], minlength=len(counts))
    return counts[own.class_id].tolist()


if __name__ == "__main__":
    run(main)

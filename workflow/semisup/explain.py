"""Why an image is or is not in a selection: `make explain KEY=... SELECTION=...`, in words."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from semisup import schemas, tables, tars
from semisup.checks import ConfigError, load_config
from semisup.plan import Plan, Wildcards
from semisup.rankings import look_up
from semisup.scores import Allowed, Part, rows_not_below
from semisup.selection import Ranked, concatenate, drawn, score_of
from semisup.settings import Select
from semisup.steps import run
from semisup.steps.select import Ranking, allowed_rows, rank_by
from semisup.tables import DataError


def main(configfile: Path, selection: str, key: str) -> None:
    """Print what became of the image with this key: its scores, ranks, cuts, or why it has none."""
    try:
        plan = Plan(load_config(yaml.safe_load(configfile.read_text())))
    except ConfigError as error:
        raise DataError(f"{configfile}: {error}") from None
    if selection not in plan.config.selections:
        known = ", ".join(plan.config.selections)
        raise DataError(f"{configfile}: no selection {selection!r}; there are {known}.")
    found = list(_find(plan, plan.config.selections[selection].unlabeled, key))
    if not found:
        raise DataError(f"no sample of U has the key {key!r}.")
    for part, sample in found:
        print("\n".join(_explain(plan, selection, part, sample)))


def _find(plan: Plan, unlabeled: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The samples with this key: their part, and their row with the path of their shard."""
    for part, (samples, manifest) in enumerate(
        zip(plan.samples(unlabeled), plan.manifests(unlabeled), strict=True)
    ):
        keys = pq.read_table(samples, columns=["key"])["key"]
        for row in np.flatnonzero(pc.equal(keys, key)).tolist():
            table = tables.read_table(Path(samples), schemas.SAMPLES)
            sample = table.slice(row, 1).to_pylist()[0]
            shards = tables.read_json(Path(manifest))["shards"]
            paths = {shard["shard_id"]: shard["path"] for shard in shards}
            yield part, sample | {"shard": paths[sample["shard_id"]]}


def _explain(plan: Plan, selection: str, part: int, sample: dict[str, Any]) -> Iterator[str]:
    chosen = plan.config.selections[selection]
    folder = Path(plan.results) / "scores" / chosen.teacher / chosen.unlabeled
    identity = (sample["shard_id"] << 32) | sample["sample_index"]
    yield f"{sample['key']}: sample {sample['sample_index']} of {sample['shard']}"
    image = _row(folder / f"images-{part:05d}.parquet", schemas.IMAGES, identity)
    if image["status"] != tars.OK:
        yield f"  not scored: {image['status']}, {image['reason']}"
        return
    selected = Path(plan.results) / "selections" / selection
    removed = tables.read_table(selected / "removed.parquet", schemas.REMOVED)
    removed_ids = tables.identity(removed)
    reasons = removed.filter(pa.array(removed_ids == identity)).to_pylist()
    for row in reasons:
        yield f"  removed: {_why(plan, chosen.unlabeled, row, identity)}"
    wildcards = cast(Wildcards, SimpleNamespace(selection=selection))
    settings = Select.model_validate_json(plan.select(wildcards))
    if not drawn(np.array([identity]), settings.fraction, settings.seed)[0]:
        yield f"  not among the {settings.fraction:.0%} of U that were drawn"
        return
    parts = tables.part_paths(folder / "part-00000.parquet", settings.num_parts)
    manifests = [Path(path) for path in plan.manifests(chosen.unlabeled)]
    ranking = rank_by(settings, parts, manifests)
    own = _rows_of(ranking.open_part(ranking.paths[part]), identity)
    better = _count_better(ranking, own, identity, allowed_rows(removed_ids, settings))
    log_odds, prediction_rank = look_up(parts[part : part + 1], own)
    classes = tables.read_json(selected / "summary.json")["classes"]
    for i in np.argsort(prediction_rank, kind="stable").tolist():
        entry, num_better = classes[own.class_id[i]], better[i]
        score = float(score_of(log_odds[i : i + 1])[0])
        line = f"  {entry['class_name']}: "
        line += "no score" if np.isnan(score) else f"score {score:.6g} (log-odds {log_odds[i]:.4f})"
        if settings.rank_by == "logit":
            line += f", logit {own.log_odds[i]:.4f}"
        if own.prediction_rank[i] > settings.classes_per_image:
            yield f"{line}, only its class number {prediction_rank[i]}, more than P"
        elif score < np.float32(settings.min_score):
            yield f"{line}, below min_score {settings.min_score}"
        elif reasons:
            yield f"{line}, would be rank {num_better + 1}"
        elif num_better < entry["num_images"]:
            yield f"{line}, selected: rank {num_better + 1} of {entry['num_images']}"
        else:
            cut = "" if entry["cut_score"] is None else f", whose score is {entry['cut_score']:.6g}"
            yield f"{line}, rank {num_better + 1}: behind the last selected{cut}"
    if not len(own.class_id):
        yield "  without a label" if settings.tags else "  no class reaches min_score"


def _row(path: Path, schema: pa.Schema, identity: int) -> dict[str, Any]:
    table = tables.read_table(path, schema)
    return dict(
        table.slice(int(np.searchsorted(tables.identity(table), identity)), 1).to_pylist()[0]
    )


def _why(plan: Plan, unlabeled: str, removed: dict[str, Any], identity: int) -> str:
    folder = Path(plan.results) / "duplicates" / unlabeled
    if removed["reason"] == "copy":
        copies = tables.read_table(folder / "copies.parquet", schemas.COPIES)
        row = copies.filter(pa.array(tables.identity(copies) == identity)).to_pylist()[0]
        first = f"sample {row['first_sample_index']} of shard {row['first_shard_id']}"
        return f"the same bytes as {first}"
    pairs = tables.read_table(folder / "pairs.parquet", schemas.DUPLICATES)
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


def _count_better(
    ranking: Ranking, own: Ranked, identity: int, allowed: Allowed | None
) -> list[int]:
    """How many images that may be selected are ahead of this one, for each of its classes."""
    floor = np.full(np.iinfo(np.int16).max, np.inf, np.float32)
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

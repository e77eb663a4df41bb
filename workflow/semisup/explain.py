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
from semisup.scores import Allowed, rows_not_below
from semisup.selection import drawn, score_of
from semisup.settings import Select
from semisup.steps import run
from semisup.steps.select import allowed_rows
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
    summary = tables.read_json(Path(plan.results) / "selections" / selection / "summary.json")
    removed = tables.read_table(
        Path(plan.results) / "selections" / selection / "removed.parquet", schemas.REMOVED
    )
    removed_ids = tables.identity(removed)
    reasons = removed.filter(pa.array(removed_ids == identity)).to_pylist()
    for row in reasons:
        yield f"  removed: {_why(plan, chosen.unlabeled, row, identity)}"
    wildcards = cast(Wildcards, SimpleNamespace(selection=selection))
    settings = Select.model_validate_json(plan.select(wildcards))
    if not drawn(np.array([identity]), settings.fraction, settings.seed)[0]:
        yield f"  not among the {settings.fraction:.0%} of U that were drawn"
        return
    own = tables.read_table(folder / f"part-{part:05d}.parquet", schemas.SCORES)
    own = own.filter(pa.array(tables.identity(own) == identity)).sort_by("prediction_rank")
    parts = tables.part_paths(folder / "part-00000.parquet", settings.num_parts)
    allowed = allowed_rows(removed_ids, settings)
    better = _count_better(parts, own, identity, allowed)
    for row, num_better in zip(own.to_pylist(), better, strict=True):
        entry = summary["classes"][row["class_id"]]
        score = float(score_of(np.array([row["log_odds"]], np.float32))[0])
        line = f"  {entry['class_name']}: score {score:.6g} (log-odds {row['log_odds']:.4f})"
        if row["prediction_rank"] > settings.classes_per_image:
            yield f"{line}, only its class number {row['prediction_rank']}, more than P"
        elif score < np.float32(settings.min_score):
            yield f"{line}, below min_score {settings.min_score}"
        elif reasons:
            yield f"{line}, would be rank {num_better + 1}"
        elif num_better < entry["num_images"]:
            yield f"{line}, selected: rank {num_better + 1} of {entry['num_images']}"
        else:
            cut = entry["cut_score"]
            yield f"{line}, rank {num_better + 1}: behind the last selected, whose score is {cut:.6g}"


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


def _count_better(
    parts: list[Path],
    own: pa.Table,
    identity: int,
    allowed: Allowed | None,
) -> list[int]:
    """How many images that may be selected are ahead of this one, for each of its classes."""
    class_ids, log_odds = own["class_id"].to_numpy(), own["log_odds"].to_numpy()
    floor = np.full(np.iinfo(np.int16).max, np.inf, np.float32)
    floor[class_ids] = log_odds
    counts = np.zeros(len(floor), np.int64)
    for rows in rows_not_below(parts, floor):
        ahead = (rows.log_odds > floor[rows.class_id]) | (rows.identity < identity)
        if allowed:
            ahead &= allowed(rows)
        counts += np.bincount(rows.class_id[ahead], minlength=len(counts))
    return counts[class_ids].tolist()


if __name__ == "__main__":
    run(main)

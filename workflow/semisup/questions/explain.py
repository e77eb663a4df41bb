"""Why an image is or is not in a selection: `make explain KEY=... SELECTION=...`, in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semisup import memory, schemas, tables, tars
from semisup.ledger import ClassSummary
from semisup.lookup import rows_with
from semisup.merging import count_ahead
from semisup.questions import Selected, open_selection
from semisup.rankings import allowed_rows
from semisup.samples import samples_path
from semisup.scores import ScoreTable
from semisup.selection import Ranked, drawn, lowest_log_odds, score_of
from semisup.steps import run
from semisup.tables import DataError


def main(configfile: Path, selection: str, key: str) -> None:
    """Print what became of the image with this key: its scores, ranks, cuts, or why it has none."""
    selected = open_selection(configfile, selection)
    if not key:
        raise DataError(
            "whose story? make explain KEY=..., a key of the selection's table, or any."
        )
    memory.keep_freed()
    found = list(_find(selected, key))
    if not found:
        raise DataError(f"no sample of U has the key {key!r}.")
    for each in found:
        print("\n".join(_explain(selected, each)))


class Found(NamedTuple):
    """A sample: its part, its row there (in the index as in the table of images), and what it is."""

    part: int
    row: int
    sample: dict[str, Any]
    shard: str


def _find(selected: Selected, key: str) -> Iterator[Found]:
    """The samples with this key."""
    samples_paths = [samples_path(manifest) for manifest in selected.manifests]
    found = rows_with(samples_paths, schemas.SAMPLES, "key", key)
    parts = zip(selected.manifests, samples_paths, found, strict=True)
    for part, (manifest, samples, rows) in enumerate(parts):
        for row in rows:
            sample = tables.read_rows(samples, schemas.SAMPLES, np.array([row])).to_pylist()[0]
            shards = tables.read_json(manifest)["shards"]
            paths = {shard["shard_id"]: shard["path"] for shard in shards}
            yield Found(part, row, sample, paths[sample["shard_id"]])


def _explain(selected: Selected, found: Found) -> Iterator[str]:
    settings, ranking = selected.settings, selected.ranking
    part, sample = found.part, found.sample
    identity = (sample["shard_id"] << 32) | sample["sample_index"]
    yield f"{sample['key']}: sample {sample['sample_index']} of {found.shard}"
    scores = selected.parts[part]
    images = scores.with_name(scores.name.replace("part-", "images-"))
    image = tables.read_rows(images, schemas.IMAGES, np.array([found.row])).to_pylist()[0]
    if image["status"] != tars.OK:
        yield f"  not scored: {image['status']}, {image['reason']}"
        return
    removed = selected.removed.filter(pa.array(tables.identity(selected.removed) == identity))
    reasons = removed["reason"].to_pylist()
    if reasons:
        from semisup.questions.removed import why_removed  # pandas: a third of a second

        for reason in reasons:
            yield f"  removed: {why_removed(selected, reason, identity)}"
    if not drawn(np.array([identity]), settings.fraction, settings.seed)[0]:
        yield f"  not among the fraction {settings.fraction:g} of U that were drawn"
        return
    stored = ScoreTable(scores).rows_of(identity)
    own = ranking.open_part(ranking.paths[part]).ranked(identity, stored)
    allowed = allowed_rows(selected.left_out, settings)
    better = count_ahead(ranking.paths, own, allowed, open_part=ranking.open_part).tolist()
    log_odds, prediction_rank = _of_classes(stored, own.class_id)
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
        if log_odds[i] < lowest_log_odds(settings.min_score):
            yield f"{line}, below min_score {settings.min_score}"
        elif entry["num_wanted"] == 0:
            yield f"{line}, but no image of this class is wanted: its K is 0"
        elif reasons:
            yield f"{line}, would be rank {num_better + 1}"
        elif num_better < entry["num_images"]:
            yield f"{line}, selected: rank {num_better + 1} of {entry['num_images']}"
        else:
            yield f"{line}, rank {num_better + 1}: behind the last selected{_cut(entry)}"
    if settings.tags is not None and not len(own.class_id):
        yield "  without a label"


def _of_classes(stored: Ranked, class_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log_odds and prediction_rank of an image for classes; NaN and 0 where no score is stored."""
    place = {each: i for i, each in enumerate(stored.class_id.tolist())}
    at = [place.get(each, len(place)) for each in class_id.tolist()]
    log_odds = np.append(stored.log_odds, np.float32(np.nan))
    return log_odds.take(at), np.append(stored.prediction_rank, np.int8(0)).take(at)


def _cut(of_class: ClassSummary) -> str:
    """What the last selected image of a class is ranked by."""
    if of_class["cut_score"] is None:  # chance has no cut, nor a class without an image
        return ""
    score = _show(of_class["cut_score"])
    if of_class["cut_logit"] is None:
        return f", whose score is {score}"
    return f", whose logit is {of_class['cut_logit']:.4f} (score {score})"


def _show(score: float) -> str:
    return f"{score:.6f}" if score < 0.9999995 else "> 0.999999"


if __name__ == "__main__":
    run(main)

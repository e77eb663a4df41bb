"""What a selection ranks by, and what it leaves out.

By log-odds, as they are stored; else by raw logits, or by chance. What is best by these may be far
behind by log-odds, so a merge reads every part whole, twice, and takes as long as that.
"""

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semisup import schemas, tables
from semisup.merging import Allowed, OpenPart
from semisup.samples import samples_path
from semisup.scores import DAMAGED, EVERY, NO_END, Rows, ScoreTable, Tier
from semisup.selection import Ranked, concatenate, contains, drawn, lowest_log_odds, random_bits
from semisup.settings import Select
from semisup.tables import DataError


class Ranking(NamedTuple):
    """What ranks the images: a file of each part, how to read it, the least that may be chosen."""

    paths: list[Path]
    open_part: OpenPart
    least: float = -np.inf


def rank_by(settings: Select, scores: list[Path], manifests: list[Path]) -> Ranking:
    least = lowest_log_odds(settings.min_score)
    if settings.tags is not None:
        samples = [samples_path(manifest) for manifest in manifests]
        return Ranking(samples, partial(TagTable, tags=settings.tags, seed=settings.seed))
    if settings.rank_by == "logit":
        # Some tiers of a part are read one after the other.
        read_column = functools.lru_cache(maxsize=8)(read_logsumexp)
        open_part = partial(LogitTable, min_log_odds=least, read_column=read_column)
        return Ranking(scores, open_part)
    return Ranking(scores, ScoreTable, least)


def left_out(settings: Select, removed: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """What is ranked but may not be selected, by identity: chance draws failed images too."""
    return np.union1d(failed, removed) if settings.variant == "random" else removed


def allowed_rows(left_out: np.ndarray, settings: Select) -> Allowed | None:
    """Which rows may be selected; None: all. ``left_out``: identities, ascending."""
    all_classes = settings.classes_per_image == settings.stored_classes
    if not len(left_out) and all_classes and settings.fraction == 1:
        return None

    def allowed(rows: Rows, at: np.ndarray) -> np.ndarray:
        if not all_classes:
            at = at.compress(rows.prediction_rank(at) <= settings.classes_per_image)
        if settings.fraction < 1:
            at = at.compress(drawn(rows.identity(at), settings.fraction, settings.seed))
        if len(left_out):
            at = at.compress(~contains(left_out, rows.identity(at)))
        return at

    return allowed


class LogitTable:
    """The scores of one part, by raw logits in the place of log-odds, in the tiers of the log-odds."""

    ordered = False

    def __init__(
        self, path: Path, min_log_odds: float, read_column: "ReadColumn | None" = None
    ) -> None:
        self.path, self.min_log_odds = path, min_log_odds
        self._read_column = read_column or read_logsumexp
        self._images = path.with_name(path.name.replace("part-", "images-"))
        self._table = ScoreTable(path)
        self.tiers = self._table.tiers

    def read(self, tier: int, classes: np.ndarray | None = None) -> Rows:
        """A tier, or its rows of ``classes``. Raises DataError when a score or a logsumexp is not finite."""
        rows = read_tier(self._table, tier, classes)
        if self.min_log_odds > -np.inf:
            rows = rows.take(np.flatnonzero(rows.log_odds >= self.min_log_odds))
        return _in_memory(self._by_logit(rows))

    def ranked(self, identity: int, stored: Ranked) -> Ranked:
        """The rows of one image, by the logits of its scores."""
        return self._by_logit(stored)

    def _by_logit(self, rows: Ranked) -> Ranked:
        log_softmax = -np.logaddexp(0, -rows.log_odds.astype(np.float64))
        first_row, logsumexp = self._read_column(self._images)
        at = first_row.take(rows.identity >> 32) + (rows.identity & 0xFFFFFFFF)
        logit = log_softmax + logsumexp.take(at)
        return rows._replace(log_odds=logit.astype(np.float32) + np.float32(0))


ReadColumn = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def read_logsumexp(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each shard id, as samples of a shard are numbered without a gap; and the column."""
    images = tables.read_table(path, schemas.IMAGES, ["shard_id", "logsumexp"])
    logsumexp = images["logsumexp"].to_numpy()
    if not np.isfinite(logsumexp).all():
        raise DataError(f"{path}: logsumexp is not finite. {DAMAGED}")
    shard_id = images["shard_id"].to_numpy()
    return np.searchsorted(shard_id, np.arange(shard_id[-1:].sum() + 1)), logsumexp


class TagTable:
    """The images of one part by their labels, in a random order in the place of log-odds."""

    ordered = True

    def __init__(self, samples: Path, tags: list[int], seed: int) -> None:
        """``tags``: the class each label of the samples means, or -1."""
        self.tiers = [Tier([], NO_END)]
        self.path, self.tags, self.seed = samples, np.array([*tags, -1], np.int16), seed

    def read(self, tier: int, classes: np.ndarray | None = None) -> Rows:
        columns = ["shard_id", "sample_index", "label"]
        table = tables.read_table(self.path, schemas.SAMPLES, columns)
        identity = tables.identity(table)
        class_id = self.tags[table["label"].fill_null(-1).to_numpy()]
        draw = (random_bits(identity, self.seed, 1) >> np.uint64(40)).astype(np.float32)
        rows = Ranked(class_id, draw, identity, np.ones(len(identity), np.int8))
        tagged = np.flatnonzero(class_id >= 0)
        return _in_memory(rows.take(tagged[np.argsort(class_id[tagged], kind="stable")]))

    def ranked(self, identity: int, stored: Ranked) -> Ranked:
        """The row of one image, if it has a label; its scores do not matter."""
        rows = self.read(0)
        everything = rows.take(EVERY)
        return everything.take(np.flatnonzero(everything.identity == identity))


def _in_memory(rows: Ranked) -> Rows:
    identity, ranks = rows.identity.__getitem__, rows.prediction_rank.__getitem__
    return Rows(rows.class_id, rows.log_odds, identity, ranks)


def read_scores(path: Path, classes: np.ndarray | None = None) -> Ranked:
    """All scores of a part in the order of the file; or those of ``classes``, class by class in each
    tier."""
    table = ScoreTable(path)
    return concatenate([read_tier(table, tier, classes) for tier in range(len(table.tiers))])


def read_tier(table: ScoreTable, tier: int, classes: np.ndarray | None) -> Ranked:
    """All rows of a tier, or those of ``classes``."""
    rows = table.read(tier, classes)
    if classes is None:
        return rows.take(EVERY)
    ends = (np.searchsorted(rows.class_id, np.unique(classes), side) for side in ("left", "right"))
    runs = [np.arange(*run) for run in zip(*ends, strict=True)]
    return rows.take(np.concatenate([np.empty(0, np.int64), *runs]))


def look_up(
    paths: list[Path], identity: np.ndarray, class_id: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log_odds and prediction_rank of rows, no two the same; NaN and 0 where no score is stored."""
    log_odds = np.full(len(identity), np.nan, np.float32)
    prediction_rank = np.zeros(len(identity), np.int8)
    order, classes = np.argsort(identity), np.unique(class_id)
    for path in paths:
        rows = read_scores(path, classes)
        if not len(rows.identity):
            continue
        ends = [rows.identity.min(), rows.identity.max() + 1]
        here = order[slice(*np.searchsorted(identity, ends, sorter=order))]
        rows = rows.take(_likely_among(rows.identity, identity[here]))
        at, found = _match(identity[here], class_id[here], rows)
        log_odds[here[at]] = rows.log_odds[found]
        prediction_rank[here[at]] = rows.prediction_rank[found]
    return log_odds, prediction_rank


def _match(
    identity: np.ndarray, class_id: np.ndarray, rows: Ranked
) -> tuple[np.ndarray, np.ndarray]:
    """Which of these, ascending by identity, equals which row, by image and class."""
    images = np.unique(identity)
    number = np.searchsorted(images, rows.identity)
    known = np.flatnonzero(images.take(number, mode="clip") == rows.identity)
    wanted = (np.searchsorted(images, identity) << 16) | class_id
    order = np.argsort(wanted)
    have = (number[known] << 16) | rows.class_id[known]
    place = np.searchsorted(wanted, have, sorter=order).clip(max=len(wanted) - 1)
    same = wanted[order[place]] == have
    return order[place[same]], known[same]


def _likely_among(identity: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of all that are ``wanted`` and of one in 16 others, many times faster than a search."""
    num_bits = max(10, (16 * len(wanted)).bit_length())

    def slots(identity: np.ndarray) -> np.ndarray:
        mixed = identity.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(64 - num_bits)).astype(np.int64)

    marked = np.zeros(1 << num_bits, bool)
    marked[slots(wanted)] = True
    return np.flatnonzero(marked.take(slots(identity)))

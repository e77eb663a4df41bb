"""Figures as inline SVG that takes the colours and the typeface of the page around it."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

# Drawn in colours that mean nothing, replaced in the SVG by the page's, which differ at night.
INK, MUTED, RULE, ACCENT, SECOND, PAPER = (f"#fe01a{i}" for i in range(6))
VARIABLES = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule",
    ACCENT: "--accent", SECOND: "--second", PAPER: "--paper",
}  # fmt: skip

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "semisup", "text.parse_math": False,
    "font.family": "DejaVu Sans", "font.size": 11, "axes.labelsize": 11,
    "axes.titlesize": 11.5, "axes.titlelocation": "left", "axes.titlecolor": INK,
    "axes.edgecolor": RULE, "axes.labelcolor": MUTED, "axes.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.linewidth": 0.8,
    "grid.color": RULE, "grid.linewidth": 0.6, "figure.facecolor": "none", "text.color": INK,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "ytick.major.size": 0, "xtick.major.size": 3, "axes.xmargin": 0.01,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip

SCORE_TICKS = (0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999)


@contextmanager
def _figure(width: int, height: int) -> Iterator[Figure]:
    """A figure of this many CSS pixels."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "svg", **STYLE}):
        yield Figure(figsize=(width / 72, height / 72), layout="constrained")


def _svg(figure: Figure, description: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids are counted per figure and would repeat on the page; only the referenced ones must stay.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    width = round(figure.get_figwidth() * 72)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    opening = (
        f'<svg {view_box[0]} role="img" aria-label="{escape(description)}"'
        f' style="max-width: {width}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(opening + text[text.index(">") + 1 :].strip())


def _count_axis(axis: matplotlib.axis.Axis) -> None:
    axis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(EngFormatter(sep=""))


def class_sizes(num_images: Sequence[int], num_wanted: Sequence[int]) -> Markup:
    """Selected images of each class, fullest first, against the number asked for."""
    order = sorted(range(len(num_images)), key=lambda i: (-num_images[i], -num_wanted[i]))
    with _figure(420, 190) as figure:
        axes = figure.add_subplot()
        _bars(axes, [num_images[i] for i in order])
        axes.stairs([num_wanted[i] for i in order], np.arange(len(order) + 1) - 0.5, color=INK,
                    linewidth=0.9, linestyle=(0, (4, 3)))  # fmt: skip
        axes.set_ylim(0, max(num_wanted, default=1) * 1.12)
        axes.set_title("images selected, by class")
        axes.set_xlabel(f"{len(order):,} classes, fullest first; dashed: wanted")
        axes.set_xticks([])
        _count_axis(axes.yaxis)
        return _svg(figure, "Images selected of each class, fullest first")


def class_cuts(cut_log_odds: Sequence[float | None]) -> Markup:
    """Score of the worst selected image of each class, surest first, evenly spaced in log-odds."""
    known = [value for value in cut_log_odds if value is not None]
    edge = _log_odds(SCORE_TICKS[-1])
    ordered = np.clip(sorted(known, reverse=True), -edge, edge)
    with _figure(420, 190) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(ordered))
        axes.axhline(_log_odds(1 / max(len(cut_log_odds), 2)), color=INK, linewidth=0.9,
                     linestyle=(0, (4, 3)))  # fmt: skip
        if len(ordered) <= 60:
            axes.plot(places, ordered, "o", color=ACCENT, markersize=5, clip_on=False)
            axes.set_xlim(-0.5, max(len(ordered), 1) - 0.5)
        else:
            axes.plot(places, ordered, color=ACCENT)
        axes.set_ylim(-edge, edge)
        axes.set_yticks([_log_odds(tick) for tick in SCORE_TICKS], [f"{t:g}" for t in SCORE_TICKS])
        axes.set_title("score at the cut, by class")
        axes.set_xlabel(f"{len(ordered):,} classes, surest first; dashed: chance")
        axes.set_xticks([])
        return _svg(figure, "Score of the last selected image of each class, highest first")


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _bars(axes: Axes, heights: Sequence[float]) -> None:
    places = np.arange(len(heights))
    if len(heights) <= 60:
        axes.bar(places, heights, color=ACCENT, alpha=0.75, width=0.72, linewidth=0)
    else:
        axes.fill_between(places, heights, step="mid", color=ACCENT, alpha=0.75, linewidth=0)


def precision_curve(
    last_ranks: Sequence[int],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    so_far: Sequence[float],
) -> Markup:
    """Precision around each class rank, with its interval, and of all ranks up to it."""
    ranks = np.array(last_ranks)
    middles = (ranks + np.concatenate([[0], ranks[:-1]]) + 1) / 2
    with _figure(460, 250) as figure:
        axes = figure.add_subplot()
        low, high = np.array(intervals).T if len(intervals) else (np.empty(0), np.empty(0))
        axes.fill_between(middles, low, high, color=ACCENT, alpha=0.18, linewidth=0)
        axes.plot(middles, values, color=ACCENT, label="around this rank, with 95 % interval")
        axes.plot(ranks, so_far, color=INK, linestyle=(0, (4, 3)), linewidth=1.1,
                  label="of all ranks up to this one")  # fmt: skip
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlim(left=0)
        _count_axis(axes.xaxis)
        axes.set_xlabel("rank within the class, best first")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=11,
                    borderaxespad=0.2, handlelength=1.6, columnspacing=1.2)  # fmt: skip
        return _svg(figure, "Precision of the selection by class rank")


def distance_histogram(
    counts: np.ndarray, farthest: float, cuts: Sequence[tuple[str, float]]
) -> Markup:
    """Images of U by their distance to the closest evaluation image, in equal steps from 0 to the
    ``farthest``; ``cuts``: name and place."""
    top = max([farthest, *(place for _, place in cuts)])
    with _figure(460, 220) as figure:
        axes = figure.add_subplot()
        edges = np.linspace(0, farthest, len(counts) + 1)
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=ACCENT,
                 alpha=0.75, linewidth=0)  # fmt: skip
        axes.set_yscale("symlog", linthresh=10)
        highest = max(int(counts.max(initial=0)), 10)
        axes.set_ylim(0, highest * 3)
        axes.set_yticks([0, 10, *(10**e for e in range(2, 12) if 10**e <= highest * 3)])
        axes.yaxis.set_minor_locator(MaxNLocator(1))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        _mark_cuts(axes, cuts, top)
        axes.set_xlim(0, top * 1.01)
        axes.set_xlabel("distance to the closest evaluation image")
        axes.set_title("unlabelled images")
        return _svg(figure, "Unlabelled images by distance to the closest evaluation image")


def _mark_cuts(axes: Axes, cuts: Sequence[tuple[str, float]], top: float) -> None:
    """Name and place of each; ``top``: of the axis of distances."""
    for i, (name, place) in enumerate(cuts):
        axes.axvline(place, color=SECOND, linewidth=1.3)
        right = place < top * 0.6
        axes.annotate(
            name, (place, 1), xycoords=axes.get_xaxis_transform(), color=SECOND, fontsize=11,
            xytext=(5 if right else -5, -4 - 14 * i), textcoords="offset points", va="top",
            ha="left" if right else "right",
        )  # fmt: skip


def recall_curves(
    by_kind: dict[str, np.ndarray],
    others: np.ndarray,
    cuts: Sequence[tuple[str, float]],
    kept: tuple[np.ndarray, np.ndarray],
) -> Markup:
    """Share of planted near-duplicates within each distance, by kind, and of other images.

    ``cuts``: name and place; ``kept``: distances, and the share up to each that a person kept.
    """
    tops = [float(d[min(int(0.99 * len(d)), len(d) - 1)]) for d in by_kind.values() if len(d)]
    top = max([*tops, *(place for _, place in cuts)], default=1.0)
    styles = [(c, s) for s in ("-", (0, (5, 1.5)), (0, (1, 1.5))) for c in (ACCENT, SECOND)]
    with _figure(620, 300) as figure:
        axes = figure.add_subplot()
        for (name, distances), (colour, style) in zip(by_kind.items(), styles, strict=False):
            shares = np.arange(1, len(distances) + 1) / max(len(distances), 1)
            axes.plot(distances, shares, color=colour, linestyle=style, label=name)
        shares = np.arange(1, len(others) + 1) / max(len(others), 1)
        axes.plot(others, shares, color=INK, linestyle=(0, (4, 3)), linewidth=1.1,
                  label="other evaluation images")  # fmt: skip
        if len(kept[0]):
            axes.plot(*kept, color=INK, linewidth=1.1, drawstyle="steps-post",
                      label="kept, of those reviewed")  # fmt: skip
        _mark_cuts(axes, cuts, top)
        axes.set_xlim(0, top * 1.05)
        axes.set_ylim(0, 1.03 + 0.08 * len(cuts))  # names of cuts stand above the curves
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel("distance")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=11)
        return _svg(figure, "Share of planted near-duplicates found, by distance and kind")


def training_curves(
    images: Sequence[float], losses: Sequence[float], lrs: Sequence[float]
) -> Markup:
    """Loss above, learning rate below, against images processed."""
    with _figure(320, 230) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot(images, losses, color=ACCENT)
        above.set_title("training loss")
        above.set_ylim(bottom=0)
        above.yaxis.set_major_locator(MaxNLocator(4))
        below.plot(images, lrs, color=MUTED, linewidth=1.3)
        below.set_title("learning rate")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_locator(MaxNLocator(2))
        below.set_xlim(left=0)
        _count_axis(below.xaxis)
        below.set_xlabel("images processed")
        return _svg(figure, "Training loss and learning rate against images processed")

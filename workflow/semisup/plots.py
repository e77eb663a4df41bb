"""Figures as inline SVG that takes the colours and the typeface of the page around it."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "semisup", "text.parse_math": False,
    "font.family": "DejaVu Sans", "font.size": 10.5, "axes.labelsize": 10.5,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlecolor": INK,
    "axes.edgecolor": RULE, "axes.labelcolor": MUTED, "axes.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.linewidth": 0.8,
    "grid.color": RULE, "grid.linewidth": 0.6, "figure.facecolor": "none", "text.color": INK,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "ytick.major.size": 0, "xtick.major.size": 3, "axes.xmargin": 0.01,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip


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


def class_sizes(num_images: Sequence[int], images_per_class: int) -> Markup:
    """Selected images of each class, fullest first, against the number asked for."""
    ordered = sorted(num_images, reverse=True)
    with _figure(420, 190) as figure:
        axes = figure.add_subplot()
        _bars(axes, ordered)
        axes.axhline(images_per_class, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_ylim(0, max(images_per_class, 1) * 1.12)
        axes.set_title("images selected, by class")
        axes.set_xlabel(f"{len(ordered):,} classes, fullest first; dashed: images_per_class")
        axes.set_xticks([])
        _count_axis(axes.yaxis)
        return _svg(figure, "Images selected of each class, fullest first")


def class_cuts(cut_scores: Sequence[float | None]) -> Markup:
    """Score of the worst selected image of each class, highest first."""
    ordered = sorted((score for score in cut_scores if score is not None), reverse=True)
    with _figure(420, 190) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(ordered))
        if len(ordered) <= 60:
            axes.vlines(places, 0, ordered, color=RULE, linewidth=1.2)
            axes.plot(places, ordered, "o", color=ACCENT, markersize=4.5)
        else:
            axes.fill_between(places, ordered, color=ACCENT, alpha=0.25, linewidth=0)
            axes.plot(places, ordered, color=ACCENT)
        axes.set_ylim(0, 1.04)
        axes.set_title("score at the cut, by class")
        axes.set_xlabel(f"{len(ordered):,} classes, surest first")
        axes.set_xticks([])
        return _svg(figure, "Score of the last selected image of each class, highest first")


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
    with _figure(560, 260) as figure:
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
        axes.set_title("selected images whose true class is the one they were selected for")
        axes.legend(loc="lower left", frameon=False, fontsize=10)
        return _svg(figure, "Precision of the selection by class rank")


def distance_histogram(distances: np.ndarray, cuts: Sequence[tuple[str, float]]) -> Markup:
    """Images of U by their distance to the closest evaluation image; ``cuts``: name and place."""
    top = float(max([*distances[-1:], *(place for _, place in cuts), 1e-3]))
    with _figure(560, 230) as figure:
        axes = figure.add_subplot()
        counts, edges = np.histogram(distances, bins=48, range=(0, top))
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=ACCENT,
                 alpha=0.75, linewidth=0)  # fmt: skip
        axes.set_yscale("symlog", linthresh=10)
        highest = max(int(counts.max(initial=0)), 10)
        axes.set_ylim(0, highest * 3)
        axes.set_yticks([0, 10, *(10**e for e in range(2, 12) if 10**e <= highest * 3)])
        axes.yaxis.set_minor_locator(MaxNLocator(1))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        for i, (name, place) in enumerate(cuts):
            axes.axvline(place, color=SECOND, linewidth=1.3)
            right = place < top * 0.6
            axes.annotate(
                name, (place, 1), xycoords=axes.get_xaxis_transform(), color=SECOND, fontsize=10,
                xytext=(5 if right else -5, -4 - 14 * i), textcoords="offset points", va="top",
                ha="left" if right else "right",
            )  # fmt: skip
        axes.set_xlim(0, top * 1.01)
        axes.set_xlabel("distance to the closest evaluation image")
        axes.set_title("unlabelled images")
        return _svg(figure, "Unlabelled images by distance to the closest evaluation image")


def training_curves(images: Sequence[float], losses: Sequence[float], lrs: Sequence[float]) -> Markup:
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

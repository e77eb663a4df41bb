import re
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from semisup import plots


def recall_curves(cuts: list[tuple[str, float]]) -> Markup:
    kept = np.array([0.1, 0.4]), np.array([0, 0.5])
    return plots.recall_curves({"mirrored": np.array([0.1, 0.2])}, np.array([0.5, 0.6]), cuts, kept)


FIGURES = {
    "class_sizes": lambda: plots.class_sizes([5, 3, 0], [5, 5, 5]),
    "class_sizes of no class": lambda: plots.class_sizes([], []),
    "class_sizes of many": lambda: plots.class_sizes(list(range(1000)), [1000] * 1000),
    "class_cuts": lambda: plots.class_cuts([3.0, -2.0, None]),
    "class_cuts of empty classes": lambda: plots.class_cuts([None, None]),
    "class_cuts of many": lambda: plots.class_cuts(np.linspace(-20, 30, 1000).tolist()),
    "precision_curve": lambda: plots.precision_curve([5, 10], [1, 0.5], [(0.8, 1), (0.2, 0.8)], [1, 0.75]),
    "distance_histogram": lambda: plots.distance_histogram(np.array([3, 0, 1]), 0.6, [("closest 1", 0.1)]),
    "distance_histogram of nothing": lambda: plots.distance_histogram(np.zeros(3), 0.001, []),
    "recall_curves": lambda: recall_curves([("closest 1", 0.1)]),
    "recall_curves of nothing": lambda: plots.recall_curves({}, np.empty(0), [], (np.empty(0), np.empty(0))),
    "training_curves": lambda: plots.training_curves([10, 20], [2.0, 1.0], [0.1, 0.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_every_time(name: str) -> None:
    assert FIGURES[name]() == FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_its_colours_and_typeface_from_the_page(name: str) -> None:
    svg = FIGURES[name]()
    assert isinstance(svg, Markup)
    assert "var(--ink)" in svg or "var(--muted)" in svg
    assert not re.search("#fe01a|font-family|<style|<metadata|<image", svg)


def test_text_in_a_figure_is_escaped() -> None:
    svg = plots.distance_histogram(np.array([1]), 0.6, [("<script>$x^2$", 0.1)])
    assert "<script>" not in svg
    assert "&lt;script&gt;$x^2$" in svg


def test_bars_of_distances_and_cuts_stand_at_their_places(monkeypatch) -> None:
    monkeypatch.setattr(plots, "_svg", lambda figure, _: figure.axes[0])
    cuts = [("closest 1", 0.1), ("max_distance 0.8", 0.8)]
    axes: Any = plots.distance_histogram(np.array([3, 0, 1]), 0.6, cuts)
    bars = [(bar.get_x(), bar.get_height()) for bar in axes.patches]
    np.testing.assert_allclose(bars, [(0, 3), (0.2, 0), (0.4, 1)])
    np.testing.assert_allclose([line.get_xdata() for line in axes.lines], [[0.1] * 2, [0.8] * 2])
    assert axes.get_xlim()[1] > 0.8


def test_cuts_and_what_was_kept_stand_beside_the_curves_of_recall(monkeypatch) -> None:
    monkeypatch.setattr(plots, "_svg", lambda figure, _: figure.axes[0])
    axes: Any = recall_curves([("closest 1", 0.1), ("max_distance 0.8", 0.8)])
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["mirrored"].get_xydata(), [[0.1, 0.5], [0.2, 1]])
    kept = lines["kept, of those reviewed"]
    np.testing.assert_allclose(kept.get_xydata(), [[0.1, 0], [0.4, 0.5]])
    assert kept.get_drawstyle() == "steps-post"  # up to the next pair nothing changes
    cuts = [line.get_xdata() for line in axes.lines if len(set(line.get_xdata())) == 1]
    np.testing.assert_allclose(cuts, [[0.1] * 2, [0.8] * 2])
    assert [text.get_text() for text in axes.texts] == ["closest 1", "max_distance 0.8"]
    assert axes.get_xlim()[1] > 0.8


def test_names_of_cuts_stand_above_the_curves(monkeypatch) -> None:
    monkeypatch.setattr(plots, "_svg", lambda figure, _: figure)
    figure: Any = recall_curves([("one", 0.1), ("another", 0.8)])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    top = axes.transData.transform((0, 1))[1]
    assert all(text.get_window_extent().y0 > top for text in axes.texts)

import io
import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.plots import (
    DARK,
    LIGHT,
    bars_with_intervals,
    latency_ecdf,
    latency_histogram,
    learning_curves,
    palette,
    png,
    scatter_cost_success,
    svg,
)
from policysmith.evaluation.statistics import Interval

RUNS = [([0, 10, 20], [0.0, 1.0, 2.0]), ([0, 20, 40], [2.0, 4.0, 6.0])]
BARS = {"slow": Interval(0.8, 0.7, 0.9), "fast": Interval(0.5, 0.4, 0.6)}


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_colour_can_be_seen_on_its_background_and_text_be_read(theme):
    assert all(contrast(colour, theme.paper) >= 3 for colour in theme.colours)
    assert min(contrast(theme.ink, theme.paper), contrast(theme.muted, theme.paper)) >= 4.5


def test_the_mean_runs_over_the_steps_that_all_runs_cover():
    figure = learning_curves({"a": RUNS}, "value")
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [0, 10, 20]
    assert line.get_ydata().tolist() == [1.0, 2.0, 3.0]  # means of 0, 1, 2 and 2, 3, 4


def test_the_band_spans_the_lowest_to_the_highest_run():
    (band,) = learning_curves({"a": RUNS}, "value").axes[0].collections
    edge = band.get_paths()[0].vertices
    assert sorted(set(edge[edge[:, 0] == 10][:, 1])) == [1.0, 3.0]


def test_values_that_are_not_finite_are_left_out():
    (line,) = learning_curves({"a": [([0, 1, 2], [1.0, math.nan, 3.0])]}, "v").axes[0].lines
    assert line.get_xdata().tolist() == [0, 2]


def test_a_label_keeps_its_colour_from_plot_to_plot():
    styles = palette(["slow", "fast"])
    curve = learning_curves({"fast": RUNS}, "v", palette=styles).axes[0].lines[0].get_color()
    bar = bars_with_intervals(BARS, "v", palette=styles).axes[0].patches[1].get_facecolor()
    assert curve == LIGHT.colours[1]
    assert matplotlib.colors.to_hex(bar) == LIGHT.colours[1]


def test_more_labels_than_colours_are_told_apart_by_their_dashes():
    styles = palette([str(number) for number in range(20)])
    drawn = {(style.colour(LIGHT), style.dash(LIGHT)) for style in styles.values()}
    assert len(drawn) == 20


def test_bars_show_the_whisker_and_the_numbers():
    axes = bars_with_intervals(BARS, "success").axes[0]
    assert [patch.get_width() for patch in axes.patches] == [0.8, 0.5]
    assert axes.lines[0].get_xdata().tolist() == [0.7, 0.9]
    assert [text.get_text() for text in axes.texts] == ["0.80 [0.70, 0.90]", "0.50 [0.40, 0.60]"]


def test_a_single_run_has_no_whisker():
    alone = {"a": Interval(0.5, -math.inf, math.inf)}
    axes = bars_with_intervals(alone, "return").axes[0]
    assert len(axes.lines) == 1  # the line at zero
    assert axes.texts[0].get_text() == "0.5 (no interval)"


def test_latencies_mark_their_median_and_99th_percentile():
    figure = latency_ecdf({"a": np.arange(1.0, 102.0)})
    marks = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "D")]
    assert [float(mark.get_xdata()[0]) for mark in marks] == [51.0, 100.0]
    assert figure.legends[0].get_texts()[0].get_text() == "a: median 51 ms, p99 100 ms"
    assert figure.axes[0].get_xscale() == "log"


def test_histograms_share_their_bins_and_count_every_call():
    figure = latency_histogram({"a": [1.0, 1.0, 10.0], "b": [100.0] * 5}, bins=10)
    counts = [sum(patch.get_height() for patch in axes.patches) for axes in figure.axes]
    assert counts == [3, 5]
    edges = [[patch.get_x() for patch in axes.patches] for axes in figure.axes]
    assert edges[0] == edges[1]


def test_one_repeated_latency_can_be_drawn():
    (axes,) = latency_histogram({"a": [5.0] * 4}).axes
    assert sum(patch.get_height() for patch in axes.patches) == 4


def test_labels_of_points_do_not_cover_each_other():
    points = {f"policy number {i}": (10.0 + 0.1 * i, 0.5) for i in range(4)}
    figure = scatter_cost_success(points)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_svg_is_the_same_every_time_and_well_formed_whatever_the_label():
    labels = {"<script>&\"' $x_1$": RUNS, "_hidden": RUNS}
    first = svg(learning_curves(labels, "loss & more"))
    assert first == svg(learning_curves(labels, "loss & more"))
    words = " ".join(ElementTree.fromstring(first).itertext())
    assert "<script>&\"' $x_1$" in words
    assert "_hidden" in words
    assert "loss & more" in words


def test_svg_carries_the_dark_theme_and_a_background_of_its_own():
    text = svg(bars_with_intervals(BARS, "success"))
    assert "prefers-color-scheme: dark" in text
    assert re.search(rf'style="fill: {LIGHT.paper}', text)
    for light, dark in zip(LIGHT.colours, DARK.colours, strict=True):
        assert f'[style*="fill: {light}"]{{fill:{dark} !important}}' in text


def test_svg_loads_nothing_from_outside():
    text = svg(latency_ecdf({"a": [1.0, 2.0]}))
    loaded = re.findall(r'(?:href|src)="(?!#)|url\((?!#)|@import|<script', text)
    assert loaded == []


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_png_is_opaque_in_its_theme_and_sized_by_its_scale(theme):
    figure = learning_curves({"a": RUNS}, "v", theme=theme)
    picture = Image.open(io.BytesIO(png(figure, scale=1)))
    twice = Image.open(io.BytesIO(png(figure, scale=2)))
    paper = tuple(int(theme.paper[i : i + 2], 16) for i in (1, 3, 5))
    assert picture.convert("RGBA").getpixel((1, 1)) == (*paper, 255)
    assert abs(twice.width - 2 * picture.width) <= 1


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    svg(bars_with_intervals(BARS, "success"))
    png(latency_histogram({"a": [1.0, 2.0]}))
    assert dict(matplotlib.rcParams) == before


def test_what_cannot_be_drawn_is_told_in_words():
    with pytest.raises(DataError, match="nothing to plot"):
        learning_curves({}, "v")
    with pytest.raises(DataError, match="'a', run 0"):
        learning_curves({"a": [([0, 1], [1.0])]}, "v")
    with pytest.raises(DataError, match="go back"):
        learning_curves({"a": [([1, 0], [1.0, 2.0])]}, "v")
    with pytest.raises(DataError, match="no steps in common"):
        learning_curves({"a": [([0, 1], [1.0, 2.0]), ([2, 3], [1.0, 2.0])]}, "v")
    with pytest.raises(DataError, match="milliseconds above 0"):
        latency_ecdf({"a": [0.0]})
    with pytest.raises(DataError, match="no colour for 'b'"):
        latency_ecdf({"b": [1.0]}, palette=palette(["a"]))
    with pytest.raises(DataError, match="log=False"):
        scatter_cost_success({"a": (0.0, 0.5)})
    with pytest.raises(SettingError, match="scale"):
        png(learning_curves({"a": RUNS}, "v"), scale=0)

"""Plots of results in one look: learning curves, intervals, latencies, cost against success.

Each function builds a matplotlib `Figure` (no pyplot, nothing global); `svg` or `png` renders it. Themes,
palette and rendering live in `drawing` and can be imported from here as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import EngFormatter, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from policysmith.common.errors import DataError
from policysmith.evaluation.drawing import (
    DARK,
    FONT_SIZE,
    LIGHT,
    Palette,
    Style,
    Theme,
    blank_axes,
    blank_figure,
    draw_grid,
    draw_legend,
    dress,
    palette,
    plain_log_ticks,
    png,
    short_label,
    styles_of,
    svg,
)
from policysmith.evaluation.learning_curves import Run, on_common_steps
from policysmith.evaluation.statistics import Interval

__all__ = [
    "DARK",
    "LIGHT",
    "Palette",
    "Run",
    "Style",
    "Theme",
    "bars_with_intervals",
    "latency_ecdf",
    "latency_histogram",
    "learning_curves",
    "palette",
    "png",
    "scatter_cost_success",
    "svg",
]


def learning_curves(
    curves: Mapping[str, Sequence[Run]],
    ylabel: str,
    *,
    log: bool = False,
    xlabel: str = "steps",
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Mean over runs against the step; the band spans the lowest to the highest run.

    The runs of a label need not share their steps: they are interpolated, over the steps that all of them
    cover. Values that are not finite are left out. `log` makes the value axis logarithmic.
    """
    styles = styles_of(curves, palette)
    figure, axes = blank_axes(theme, height=3.4)
    entries = []
    for label, runs in curves.items():
        steps, values = on_common_steps(runs, label=label)
        colour, dash = styles[label].colour(theme), styles[label].dash(theme)
        if len(values) > 1:
            axes.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0
            )
        marker = "o" if len(steps) == 1 else None
        (line,) = axes.plot(steps, values.mean(axis=0), color=colour, linestyle=dash, marker=marker)
        entries.append((line, short_label(label)))
    if log:
        axes.set_yscale("log")
    axes.margins(x=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    draw_grid(axes, theme, "y")
    draw_legend(figure, theme, entries)
    return figure


def bars_with_intervals(
    intervals: Mapping[str, Interval],
    xlabel: str,
    *,
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """One bar per label with its interval as a whisker, and the numbers beside it.

    An infinite interval (a single run) has no whisker.
    """
    styles = styles_of(intervals, palette)
    figure, axes = blank_axes(theme, height=0.75 + 0.36 * len(intervals))
    ends = [number for i in intervals.values() for number in (i.value, i.low, i.high) if np.isfinite(number)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0
    for row, (label, interval) in enumerate(intervals.items()):
        axes.barh(row, interval.value, height=0.6, color=styles[label].colour(theme), alpha=0.6, linewidth=0)
        whisker = np.clip([interval.low, interval.high], low, high)
        if np.isfinite([interval.low, interval.high]).all():
            axes.plot(whisker, [row, row], color=theme.ink, linewidth=1.6)
        axes.text(
            1.02, row, str(interval), transform=axes.get_yaxis_transform(),
            va="center", ha="left", color=theme.ink, fontsize=FONT_SIZE,
        )  # fmt: skip
    axes.set_yticks(range(len(intervals)), labels=[short_label(label) for label in intervals])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=FONT_SIZE)
    axes.set_ylim(len(intervals) - 0.5, -0.5)
    axes.set_xlim(low - 0.02 * span * (low < 0), high + 0.02 * span)
    axes.spines["left"].set_visible(low < 0)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.set_xlabel(xlabel)
    draw_grid(axes, theme, "x")
    return figure


def latency_ecdf(
    latencies: Mapping[str, ArrayLike],
    *,
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Share of calls that took at most so many milliseconds, on a logarithmic axis.

    A dot marks each label's median and a diamond its 99th percentile; the legend gives both in numbers.
    """
    styles = styles_of(latencies, palette)
    figure, axes = blank_axes(theme, height=3.4)
    entries = []
    for label, given in latencies.items():
        times = np.sort(_latencies(label, given))
        share = np.arange(1, len(times) + 1) / len(times)
        colour, dash = styles[label].colour(theme), styles[label].dash(theme)
        # Many thousand steps make a heavy drawing and no finer line.
        keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), 800)).astype(int))
        (line,) = axes.plot(
            np.r_[times[0], times[keep]],
            np.r_[0.0, share[keep]],
            drawstyle="steps-post",
            color=colour,
            linestyle=dash,
        )
        entries.append((line, _with_quantiles(label, times)))
        for quantile, marker in ((0.5, "o"), (0.99, "D")):
            at = np.quantile(times, quantile)
            axes.plot(at, quantile, marker, color=colour, markersize=6, markeredgecolor=theme.paper)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_ylabel("share of calls")
    _millisecond_axis(axes)
    draw_grid(axes, theme, "both")
    draw_legend(figure, theme, entries, columns=1)
    return figure


def latency_histogram(
    latencies: Mapping[str, ArrayLike],
    *,
    bins: int = 48,
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Histogram of latencies in milliseconds, a row per label, on one shared logarithmic axis.

    In each row a line marks the median and a dashed one the 99th percentile.
    """
    styles = styles_of(latencies, palette)
    times = {label: _latencies(label, given) for label, given in latencies.items()}
    low, high = min(t.min() for t in times.values()), max(t.max() for t in times.values())
    # A margin keeps a single repeated latency from making bins of width zero.
    edges = np.geomspace(low * 0.98, high * 1.02, bins + 1)
    figure = blank_figure(theme, height=0.6 + 0.85 * len(times))
    rows = figure.subplots(len(times), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, values) in zip(rows, times.items(), strict=True):
        dress(axes, theme)
        colour = styles[label].colour(theme)
        axes.hist(values, bins=edges, color=colour, alpha=0.55, linewidth=0)
        axes.axvline(np.quantile(values, 0.5), color=colour, linewidth=1.6)
        axes.axvline(np.quantile(values, 0.99), color=colour, linewidth=1.6, linestyle=(0, (3, 2)))
        axes.set_title(_with_quantiles(label, values), loc="left", color=theme.ink, fontsize=FONT_SIZE, pad=3)
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", which="both", length=0)
    _millisecond_axis(rows[-1])
    return figure


def scatter_cost_success(
    points: Mapping[str, tuple[float | Interval, float | Interval]],
    *,
    xlabel: str = "milliseconds per decision",
    ylabel: str = "success rate",
    log: bool = True,
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Success against cost, one labelled point each, with whiskers where an `Interval` is given.

    The upper left corner is where one wants to be. `log` makes the cost axis logarithmic.
    """
    styles = styles_of(points, palette)
    figure, axes = blank_axes(theme, height=3.4)
    placed, whiskers = [], []
    for label, (cost, success) in points.items():
        x, x_low, x_high = _ends(cost)
        y, y_low, y_high = _ends(success)
        if log and x_low <= 0:
            raise DataError("a cost is not above zero", where=f"'{label}'", cure="pass log=False")
        colour = styles[label].colour(theme)
        axes.plot([x_low, x_high], [y, y], color=colour, linewidth=1.4)
        axes.plot([x, x], [y_low, y_high], color=colour, linewidth=1.4)
        axes.plot(x, y, "o", color=colour, markersize=8, markeredgecolor=theme.paper)
        placed.append((label, x, y, colour))
        whiskers += [((x_low, y), (x_high, y)), ((x, y_low), (x, y_high))]
    if log:
        axes.set_xscale("log")
        plain_log_ticks(axes)
    axes.margins(x=0.15, y=0.12)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    draw_grid(axes, theme, "both")
    _place_labels(figure, axes, placed, whiskers, theme)
    return figure


# ---- parts -------------------------------------------------------------------------------------------


def _millisecond_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    plain_log_ticks(axes)
    axes.set_xlabel("milliseconds")


def _place_labels(
    figure: Figure,
    axes: Axes,
    placed: Sequence[tuple[str, float, float, str]],
    whiskers: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    theme: Theme,
) -> None:
    """Write each label beside its point, where it covers no other label or point and few whiskers."""
    figure.draw_without_rendering()  # fixes the layout, so that pixels can be compared
    centres = [axes.transData.transform((x, y)) for _, x, y, _ in placed]
    taken = [Bbox([centre - 5, centre + 5]) for centre in centres]
    lines = [Bbox(axes.transData.transform(ends)).padded(1) for ends in whiskers]
    for label, x, y, colour in placed:
        text = axes.annotate(
            short_label(label),
            (x, y),
            xytext=(8, 5),
            textcoords="offset points",
            color=colour,
            fontsize=FONT_SIZE,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground=theme.paper)],
        )

        def covered(offset: _Offset, text: Annotation = text) -> tuple[bool, int, int]:
            """How bad a place is: outside the axes, labels and points covered, whiskers crossed."""
            text.set_position(offset[:2])
            text.set_horizontalalignment(offset[2])
            box = text.get_window_extent()
            outside = box.x0 < axes.bbox.x0 or axes.bbox.x1 < box.x1
            return (
                outside,
                sum(bool(box.overlaps(other)) for other in taken),
                sum(bool(box.overlaps(line)) for line in lines),
            )

        covered(min(_OFFSETS, key=covered))  # the nearest of the best, where the text then stays
        taken.append(text.get_window_extent())


_Offset: TypeAlias = tuple[int, int, Literal["left", "right"]]

_OFFSETS: tuple[_Offset, ...] = (
    (8, 5, "left"), (-8, 5, "right"), (8, -14, "left"), (-8, -14, "right"), (8, 19, "left"),
    (-8, 19, "right"), (8, -28, "left"), (-8, -28, "right"), (8, 33, "left"), (-8, 33, "right"),
)  # fmt: skip
"""Places to try for a label, nearest first: points to the right and up, and the text's alignment."""


def _with_quantiles(label: str, times: Float[np.ndarray, "call"]) -> str:
    median, tail = np.quantile(times, [0.5, 0.99])
    return f"{short_label(label)}: median {median:.3g} ms, p99 {tail:.3g} ms"


def _latencies(label: str, given: ArrayLike) -> Float[np.ndarray, "call"]:
    times = np.asarray(given, dtype=float).ravel()
    if len(times) == 0 or not (np.isfinite(times) & (times > 0)).all():
        raise DataError(
            "a latency is missing, zero or not finite", where=f"'{label}'", expected="milliseconds above 0"
        )
    return times


def _ends(number: float | Interval) -> tuple[float, float, float]:
    if not isinstance(number, Interval):
        return float(number), float(number), float(number)
    finite = np.isfinite([number.low, number.high]).all()
    return (number.value, number.low, number.high) if finite else _ends(number.value)

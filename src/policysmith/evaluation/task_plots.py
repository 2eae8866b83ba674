"""Success at many tasks in one look: a row per task, a dot with its interval per policy."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from policysmith.common.errors import DataError
from policysmith.evaluation.drawing import (
    FONT_SIZE,
    LIGHT,
    Palette,
    Theme,
    blank_axes,
    draw_grid,
    draw_legend,
    short_label,
    styles_of,
)
from policysmith.evaluation.statistics import Interval


def success_by_task(
    rates: Mapping[str, Mapping[str, Interval]],
    *,
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Success rates by policy and task: bars for a single policy, dots beside each other for several.

    The rows are the tasks of the first policy, in its order; `DataError` where another has other tasks.
    """
    styles = styles_of(rates, palette)
    tasks = list(next(iter(rates.values())))
    for label, found in rates.items():
        if set(found) != set(tasks):
            raise DataError(f"'{label}' was measured on other tasks", expected=", ".join(tasks))
    figure, axes = blank_axes(theme, height=0.8 + 0.17 * len(tasks) + 0.2 * (len(rates) > 1))
    entries = []
    for number, (label, found) in enumerate(rates.items()):
        colour = styles[label].colour(theme)
        # Side by side within a row, so that equal rates do not hide each other.
        lift = 0.3 * (number - (len(rates) - 1) / 2)
        rows = [row + lift for row in range(len(tasks))]
        values = [found[task].value for task in tasks]
        if len(rates) == 1:
            axes.barh(rows, values, height=0.7, color=colour, alpha=0.45, linewidth=0)
        for row, task in zip(rows, tasks, strict=True):
            axes.plot([found[task].low, found[task].high], [row, row], color=colour, linewidth=1.2)
        (dots,) = axes.plot(values, rows, "o", color=colour, markersize=4, clip_on=False)
        entries.append((dots, short_label(label)))
    axes.set_yticks(range(len(tasks)), labels=[short_label(task) for task in tasks])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=FONT_SIZE - 2)
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_xlim(0, 1.01)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_xlabel("success rate")
    draw_grid(axes, theme, "x")
    if len(rates) > 1:
        draw_legend(figure, theme, entries)
    return figure

"""Plots of curves with intervals: learning curves over tasks, performance profiles.

The curves come from `learning_curves`; the manner, the themes and the rendering are those of `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter

from policysmith.evaluation.drawing import (
    LIGHT,
    Palette,
    Theme,
    blank_axes,
    draw_grid,
    draw_legend,
    short_label,
    styles_of,
)
from policysmith.evaluation.learning_curves import Band


def curve_bands(
    bands: Mapping[str, Band],
    ylabel: str,
    *,
    xlabel: str = "steps",
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Each label's curve over the steps, with its interval as a band."""
    figure = _drawn(bands, xlabel, ylabel, palette, theme, stairs=False)
    figure.axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def profiles(
    bands: Mapping[str, Band],
    *,
    xlabel: str = "score",
    palette: Palette | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Share of the runs that score more than each threshold; a method above another everywhere is better."""
    figure = _drawn(bands, xlabel, "share of runs above", palette, theme, stairs=True)
    figure.axes[0].set_ylim(0, 1.03)
    figure.axes[0].yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return figure


def _drawn(
    bands: Mapping[str, Band], xlabel: str, ylabel: str, given: Palette | None, theme: Theme, *, stairs: bool
) -> Figure:
    styles = styles_of(bands, given)
    figure, axes = blank_axes(theme, height=3.4)
    entries = []
    for label, band in bands.items():
        colour, dash = styles[label].colour(theme), styles[label].dash(theme)
        # A share stays what it is until the next threshold.
        step = "post" if stairs else None
        axes.fill_between(
            band.at, band.low, band.high, color=colour, alpha=0.18, linewidth=0, step=step
        )  # fmt: skip
        marker = "o" if len(band.at) == 1 else None
        (line,) = axes.plot(
            band.at, band.value, color=colour, linestyle=dash, marker=marker,
            drawstyle="steps-post" if stairs else "default",
        )  # fmt: skip
        entries.append((line, short_label(label)))
    axes.margins(x=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    draw_grid(axes, theme, "y")
    draw_legend(figure, theme, entries)
    return figure

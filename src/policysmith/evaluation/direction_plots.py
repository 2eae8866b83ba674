"""How a principal direction is shown: as heat maps over the observation, in frequencies, and over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.evaluation.drawing import (
    FONT_SIZE,
    LIGHT,
    Palette,
    Theme,
    blank_axes,
    blank_figure,
    draw_grid,
    draw_legend,
    short_label,
    styles_of,
)

COLUMNS = 4
"""Maps beside each other in a figure."""
NUMBERS = 12
"""So many entries of a vector are drawn, the largest ones."""


def heat_maps(maps: Mapping[str, Float[Tensor, "height width"]], *, theme: Theme = LIGHT) -> Figure:
    """Magnitudes over a grid, one map per name, all on one scale from nothing to the largest."""
    if not maps:
        raise DataError("there are no maps to draw")
    rows = -(-len(maps) // COLUMNS)
    columns = min(len(maps), COLUMNS)
    figure = blank_figure(theme, height=0.4 + rows * 5.8 / COLUMNS)
    top = max(float(one.abs().max()) for one in maps.values()) or 1.0
    shades = LinearSegmentedColormap.from_list("magnitude", [theme.paper, theme.colours[0]])
    for number, (name, one) in enumerate(maps.items()):
        axes = figure.add_subplot(rows, COLUMNS if rows > 1 else columns, number + 1)
        axes.imshow(one.abs().numpy(), cmap=shades, vmin=0.0, vmax=top, interpolation="nearest")
        axes.set_title(short_label(name, 20), color=theme.ink, fontsize=FONT_SIZE)
        _frame(axes, theme)
    return figure


def largest_entries(direction: Float[Tensor, "state"], *, theme: Theme = LIGHT) -> Figure:
    """The largest entries of a direction of a vector, by the numbers of their places."""
    order = direction.abs().argsort(descending=True)[:NUMBERS]
    figure, axes = blank_axes(theme, height=0.8 + 0.2 * len(order))
    axes.barh(range(len(order)), direction[order].numpy(), color=theme.colours[0], height=0.7)
    axes.set_yticks(range(len(order)), labels=[str(int(place)) for place in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_ylabel("number of the observation")
    axes.set_xlabel("entry of the direction")
    draw_grid(axes, theme, "x")
    return figure


def traces(
    lengths: Mapping[str, Sequence[float]], *, palette: Palette | None = None, theme: Theme = LIGHT
) -> Figure:
    """Instability at every step of an episode, a line per name."""
    styles = styles_of(lengths, palette)
    figure, axes = blank_axes(theme, height=2.6)
    entries = []
    for name, values in lengths.items():
        style = styles[name]
        (line,) = axes.plot(
            np.arange(len(values)),
            values,
            color=style.colour(theme),
            linestyle=style.dash(theme),
            linewidth=1,
        )
        entries.append((line, short_label(name)))
    axes.set_xlabel("step")
    axes.set_ylabel("length of the direction")
    axes.set_ylim(bottom=0)
    draw_grid(axes, theme, "y")
    if len(lengths) > 1:
        draw_legend(figure, theme, entries)
    return figure


def _frame(axes: Axes, theme: Theme) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(theme.grid)

"""How the plots look, and how they are rendered: two themes, one palette, SVG and PNG.

A drawing carries its own background, so that it can be read on any page; as SVG it also carries the dark
theme, which browsers choose by the reader's preference. A PNG has one theme: build its figure with
`theme=DARK` for a dark page.

Colours are told apart with the common colour-vision deficiencies and keep a contrast of 3:1 or more with the
background. They go to labels in order; pass one `palette(labels)` to several plots and every label keeps
its colour in all of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from policysmith.common.errors import DataError, SettingError


@dataclass(frozen=True)
class Theme:
    """Colours of a plot: text, secondary text, grid lines, background, and one colour per label."""

    ink: str
    muted: str
    grid: str
    paper: str
    colours: tuple[str, ...]


LIGHT = Theme(
    ink="#1c2128",
    muted="#59636e",
    grid="#e3e6ea",
    paper="#ffffff",
    colours=("#2a52d4", "#e0500f", "#2b9a92", "#8c1a8c", "#665000", "#334450", "#2898f0"),
)
"""Dark ink on white, and the theme that `svg` can turn into `DARK`."""

DARK = Theme(
    ink="#e6e9ed",
    muted="#9aa4af",
    grid="#30363d",
    paper="#16181d",
    colours=("#6f9dff", "#e0943a", "#3fe6c2", "#c2578a", "#d6dc40", "#6372dc", "#9accfa"),
)
"""Light ink on near-black; its colours are those of `LIGHT` in the same order."""

FONT_SIZE = 10.0
"""Points."""

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class Style:
    """How one label is drawn: the number of its colour and, past the last colour, another dash."""

    number: int

    def colour(self, theme: Theme) -> str:
        """The label's colour in `theme`."""
        return theme.colours[self.number % len(theme.colours)]

    def dash(self, theme: Theme) -> str | tuple[float, tuple[float, float]]:
        """The label's line style: solid for the first labels, then dashed, then dotted."""
        return _DASHES[self.number // len(theme.colours) % len(_DASHES)]


Palette: TypeAlias = Mapping[str, Style]
"""Which style each label has."""


def palette(labels: Sequence[str]) -> dict[str, Style]:
    """Styles for `labels` in their order; to be passed to every plot that shows some of them."""
    return {label: Style(number) for number, label in enumerate(dict.fromkeys(labels))}


# ---- rendering ---------------------------------------------------------------------------------------


def svg(figure: Figure) -> str:
    """The figure as SVG text for a page or a file; of the `LIGHT` theme it also holds the dark one.

    Text stays text, set in the reader's own sans-serif. The same figure gives the same bytes.
    """
    buffer = io.StringIO()
    # Both are read from matplotlib's global settings only; the context puts them back.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "policysmith"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    return re.sub(r"(<svg[^>]*>)", lambda tag: tag[1] + _DARK_STYLE, text, count=1)


def png(figure: Figure, *, scale: float = 2.0) -> bytes:
    """The figure as PNG bytes, at `scale` pixels per CSS pixel (2 is sharp on dense screens)."""
    if not scale > 0:
        raise SettingError(f"scale is {scale}", expected="above 0, such as 2")
    buffer = io.BytesIO()
    before = figure.dpi
    figure.set_dpi(96 * scale)
    try:
        FigureCanvasAgg(figure).print_png(buffer)
    finally:
        figure.set_dpi(before)
    return buffer.getvalue()


def _dark_style() -> str:
    """Rules that exchange each colour of the light theme for that of the dark one."""
    light = (LIGHT.ink, LIGHT.muted, LIGHT.grid, LIGHT.paper, *LIGHT.colours)
    dark = (DARK.ink, DARK.muted, DARK.grid, DARK.paper, *DARK.colours)
    rules = "".join(
        f'[style*="{what}: {old}"]{{{what}:{new} !important}}'
        for old, new in zip(light, dark, strict=True)
        for what in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"


_DARK_STYLE = _dark_style()


# ---- parts that the plots share ------------------------------------------------------------------------


def blank_figure(theme: Theme, *, height: float) -> Figure:
    """Figure of the common width, `height` inches tall."""
    return Figure(figsize=(5.8, height), dpi=96, facecolor=theme.paper, layout="constrained")


def blank_axes(theme: Theme, *, height: float) -> tuple[Figure, Axes]:
    """Figure with one set of axes in the common look."""
    figure = blank_figure(theme, height=height)
    axes = figure.add_subplot()
    dress(axes, theme)
    return figure, axes


def dress(axes: Axes, theme: Theme) -> None:
    """Give axes the common look: two thin spines, secondary text in a softer colour."""
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    axes.tick_params(
        which="both", color=theme.muted, labelcolor=theme.muted, labelsize=FONT_SIZE - 1, width=0.8
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.muted)
        axis.label.set_fontsize(FONT_SIZE)
        axis.get_offset_text().set_color(theme.muted)


def draw_grid(axes: Axes, theme: Theme, axis: Literal["x", "y", "both"]) -> None:
    """Thin grid lines behind the data; `axis` is "x", "y" or "both"."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=theme.grid, linewidth=0.8)


def draw_legend(
    figure: Figure, theme: Theme, entries: Sequence[tuple[Artist, str]], *, columns: int | None = None
) -> None:
    """Legend above the plot, in as many columns as its width allows."""
    texts = [text for _, text in entries]
    if columns is None:
        columns = max(1, min(len(texts), 68 // (max(map(len, texts)) + 5)))
    # The handles are passed because matplotlib leaves out labels that begin with an underscore.
    figure.legend(
        [handle for handle, _ in entries], texts, loc="outside upper left", ncols=columns, frameon=False,
        labelcolor=theme.ink, fontsize=FONT_SIZE, handlelength=1.6, columnspacing=1.6, borderpad=0.2,
    )  # fmt: skip


def plain_log_ticks(axes: Axes) -> None:
    """Ticks at 1, 2, 5 of each decade where there are few decades, in plain numbers."""
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    marks = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=marks, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def short_label(label: str, length: int = 32) -> str:
    """The label as matplotlib text: cut to `length` characters, its dollar signs escaped."""
    # A dollar sign would start mathematics; a long label would squeeze the plot.
    label = label if len(label) <= length else label[: length - 1] + "…"
    return label.replace("$", r"\$")


def styles_of(named: Mapping[str, object], given: Palette | None) -> Palette:
    """The style of each label in `named`: from the palette given, else in their order."""
    if not named:
        raise DataError("there is nothing to plot", expected="at least one label with values")
    styles = palette(list(named)) if given is None else given
    for label in named:
        if label not in styles:
            raise DataError(f"the palette has no colour for '{label}'", cure="palette(all labels)")
    return styles

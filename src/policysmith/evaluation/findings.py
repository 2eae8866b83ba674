"""What a measurement came to, in a form that every surface can show: a terminal, a page, a script.

The public entry of a system that does not train (a measure, a benchmark, a world, a generator, a study) is a
generator of `Stage`s that returns `Findings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from policysmith.common.errors import DataError, ShapeError
from policysmith.experience.episodes import Episodes
from policysmith.experience.preferences import Preferences


@dataclass(frozen=True)
class Table:
    """Rows under named columns; cells are shown by `str`, floats with four significant digits.

    Raises `ShapeError` where a row has not as many cells as there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ShapeError(
                    f"row {number} has {len(row)} cells",
                    where=f"table '{self.caption}'",
                    expected=f"{len(self.columns)}, one per column",
                )


@dataclass(frozen=True)
class Findings:
    """A measurement for people and for programs.

    - `title`: what was measured, of what; `summary`: the few numbers that matter, by name.
    - `tables`, `figures` (caption and figure): what a reader looks at next.
    - `notices`: what a reader should know or do, a sentence each.
    - `data`: everything as plain data (what JSON can hold, finite numbers or None), for programs.
    - `transitions`: what a generator made, where it makes those, as episodes of one step each; the command
      line writes them beside the findings.
    - `pairs`: preferences that a generator made, which are written beside the findings too.
    """

    title: str
    summary: Mapping[str, float | int | str]
    tables: Sequence[Table] = ()
    figures: Sequence[tuple[str, Figure]] = ()
    notices: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    transitions: Episodes | None = None
    pairs: Preferences | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data: title, summary, notices and `data`; `DataError` for a number that is not finite."""
        plain = {
            "title": self.title,
            "summary": dict(self.summary),
            "notices": list(self.notices),
            **self.data,
        }
        if (place := _not_finite(plain, "")) is not None:
            raise DataError("a number of the findings is not finite", where=place)
        return plain


def shown(value: object) -> str:
    """A cell as a person reads it: floats with four significant digits, the rest by `str`."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}"


def _not_finite(value: Any, place: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return place
    inside = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for key, item in inside:
        if (found := _not_finite(item, f"{place}.{key}" if place else str(key))) is not None:
            return found
    return None

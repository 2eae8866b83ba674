"""One page on a data set: what is wrong with it first, then what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.evaluation.drawing import LIGHT, blank_axes, blank_figure, draw_grid
from policysmith.evaluation.findings import Findings, Table
from policysmith.experience.checking import Checked
from policysmith.experience.picture_checks import Seen
from policysmith.experience.sources import Feature, Problem

MOST_COLUMNS = 200
"""Wider data are shown up to this many columns; the JSON has them all."""


def data_findings(checked: Checked) -> Findings:
    """The findings of a check: problems, summary, keys, columns, cameras, lengths."""
    source = checked.source
    figures = (
        [("How many steps the episodes have", _length_figure(checked.lengths))] if checked.lengths else []
    )
    figures += [
        (f"Camera '{key}': the middle of some episodes", _sample_figure(seen))
        for key, seen in checked.seen.items()
        if seen.samples
    ]
    tables = [problem_table(checked.problems), _key_table(checked), _column_table(checked)]
    tables += [_camera_table(checked)] if checked.seen else []
    return Findings(
        f"{source.path.name}: {source.format} {source.version}".strip(),
        _summary(checked),
        tables,
        figures,
        data=_plain(checked),
    )


def unreadable_findings(path: str, problem: Problem) -> Findings:
    """The findings for what could not even be opened."""
    return Findings(
        path,
        {"usable": "no"},
        [problem_table([problem])],
        data={"usable": False, "problems": [vars(problem)]},
    )


def problem_table(problems: list[Problem]) -> Table:
    """What is wrong, what stops loading first."""
    rows = [
        ["stops" if problem.stops else "warning", problem.what, problem.where, problem.cure]
        for problem in problems
    ]
    return Table("Problems" if rows else "No problems were found", ["", "what", "where", "what to do"], rows)


def _summary(checked: Checked) -> dict[str, float | int | str]:
    source = checked.source
    lengths = list(source.lengths)
    stopping = sum(problem.stops for problem in checked.problems)
    facts: dict[str, Any] = {
        "usable": "yes" if checked.usable else "no",
        "problems": f"{stopping} stop loading, {len(checked.problems) - stopping} warnings",
        "episodes": len(lengths),
        "steps": sum(lengths),
        "steps per episode": f"{min(lengths)} to {max(lengths)}, median {np.median(lengths):.0f}",
    }
    if source.rate is not None:
        facts["steps a second"] = source.rate
        facts["minutes"] = sum(lengths) / source.rate / 60
    if checked.succeeded is not None:
        facts["successful"] = f"{np.mean(checked.succeeded):.1%} of the episodes that could be read"
    if checked.returns and np.isfinite(checked.returns).all():
        facts["return, mean"] = float(np.mean(checked.returns))
    facts |= {name: str(source.provenance[name]) for name in ("robot",) if name in source.provenance}
    tasks = source.provenance.get("tasks")
    if isinstance(tasks, Mapping):
        facts["tasks"] = f"{len(tasks)}: " + "; ".join(list(tasks)[:3]) + ("; ..." if len(tasks) > 3 else "")
    return facts


def _key_table(checked: Checked) -> Table:
    used = _uses(checked)
    rows = [
        [key, feature.kind, _shape(feature), feature.dtype, used.get(key, "not used")]
        for key, feature in checked.source.features.items()
    ]
    return Table("What is recorded at each step", ["key", "kind", "shape", "type", "read as"], rows)


def _uses(checked: Checked) -> dict[str, str]:
    """What each key is read as where nobody says otherwise."""
    own = checked.chosen or checked.source.defaults
    uses = {key: mark for mark, key in checked.source.defaults.marks.items()}
    uses |= {key: part for part in ("state", "action", "goal") for key in getattr(own, part)}
    uses |= {key: f"picture '{name}', if asked for" for name, key in own.pictures.items()}
    unusable = {key: one.unusable for key, one in checked.source.features.items() if one.unusable}
    return uses | {key: f"not used: {reason}" for key, reason in unusable.items()}


def _shape(feature: Feature) -> str:
    return " x ".join(map(str, feature.shape)) or "1"


def _column_table(checked: Checked) -> Table:
    rows: list[list[object]] = []
    for key, column in checked.columns.items():
        names = checked.source.features[key].names
        for i in range(len(column.low)):
            name = names[i] if i < len(names) else str(i)
            numbers = (column.low[i], column.high[i], column.mean[i], column.deviation[i])
            rows.append([key, name, *(float(x) if np.isfinite(x) else "none" for x in numbers)])
    shown = rows[:MOST_COLUMNS]
    more = f" (the first {MOST_COLUMNS} of {len(rows)})" if len(rows) > len(shown) else ""
    return Table(f"Numbers{more}", ["key", "column", "lowest", "highest", "mean", "deviation"], shown)


def _camera_table(checked: Checked) -> Table:
    rows = []
    short = {key: name for name, key in checked.source.defaults.pictures.items()}
    for key, seen in checked.seen.items():
        feature, film = checked.source.features[key], seen.film
        size = (film.height, film.width) if film else seen.size or (0, 0)
        steps = sum(checked.source.lengths)
        codec = film.codec if film else feature.codec
        rate = film.rate if film and film.rate else ""
        whole, small = (f"{steps * 3 * h * w / 2**30:.3g} GiB" for h, w in (size, (96, 96)))
        known = [f"{size[0]} x {size[1]}", codec, rate, seen.looked_at, len(seen.dark), len(seen.frozen)]
        rows.append([short.get(key, key), *known, whole, small])
    columns = ["camera", "size", "codec", "rate", "looked at", "dark", "frozen", "in memory", "at 96 x 96"]
    return Table("Pictures (dark and frozen: episodes of those looked at)", columns, rows)


def _plain(checked: Checked) -> dict[str, Any]:
    source = checked.source
    columns = {
        key: {
            "steps": column.steps,
            "not_finite": column.not_finite,
            "low": _finite(column.low),
            "high": _finite(column.high),
            "mean": _finite(column.mean),
            "deviation": _finite(column.deviation),
        }
        for key, column in checked.columns.items()
    }
    cameras = {
        key: {
            "size": seen.size,
            "film": vars(seen.film) if seen.film else None,
            "looked_at": seen.looked_at,
            "dark": {str(episode): list(run) for episode, run in seen.dark.items()},
            "frozen": {str(episode): list(run) for episode, run in seen.frozen.items()},
        }
        for key, seen in checked.seen.items()
    }
    return {
        "usable": checked.usable,
        "problems": [vars(problem) for problem in checked.problems],
        "format": source.format,
        "version": source.version,
        "rate": source.rate,
        "provenance": dict(source.provenance),
        "features": {key: vars(feature) for key, feature in source.features.items()},
        "lengths": list(source.lengths),
        "read": checked.read,
        "rates": checked.rates,
        "returns": _finite(np.array(checked.returns)),
        "succeeded": checked.succeeded,
        "columns": columns,
        "cameras": cameras,
    }


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _length_figure(lengths: list[int]) -> Figure:
    figure, axes = blank_axes(LIGHT, height=2.4)
    bins = min(30, max(1, len(set(lengths))))
    axes.hist(lengths, bins=bins, color=LIGHT.colours[0], alpha=0.6)
    axes.set_xlabel("steps of an episode")
    axes.set_ylabel("episodes")
    draw_grid(axes, LIGHT, "y")
    return figure


def _sample_figure(seen: Seen) -> Figure:
    figure = blank_figure(LIGHT, height=1.6)
    for place, (episode, picture) in enumerate(seen.samples.items()):
        axes = figure.add_subplot(1, len(seen.samples), place + 1)
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(f"episode {episode}", fontsize=7, color=LIGHT.ink)
    return figure

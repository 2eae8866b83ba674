"""How made transitions compare with the real ones they were learnt from, for a person to read.

Likeness alone says little: copies are perfectly alike. So the distance from each made transition to the
nearest real one is set beside that of real ones to the nearest other real one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.evaluation.drawing import LIGHT, blank_axes, draw_grid, draw_legend, palette
from policysmith.evaluation.findings import Findings, Table
from policysmith.objectives.fidelity import (
    correlation_similarity,
    kolmogorov_smirnov,
    nearest_distance,
    nearest_other_distance,
)
from policysmith.synthesis.upsampling import Made

COMPARED = 2000
"""Made transitions whose nearest real one is looked for."""

FAR = 3.0
"""Times the usual distance between real transitions beyond which made ones are told to be far from all."""


def likeness_findings(made: Made) -> Findings:
    """What was made of what, column by column and together, and how far from the nearest real transition."""
    layout, normalizer = made.model.layout, made.model.normalizer
    real, new = (normalizer(layout.pack(one)) for one in (made.transitions, made.made))
    some = new[:COMPARED]
    away, apart = nearest_distance(some, real), nearest_other_distance(real, rows=min(len(real), COMPARED))
    statistic = kolmogorov_smirnov(real, new)
    summary: dict[str, float | int | str] = {
        "transitions": len(real),
        "made": len(new),
        "marginal similarity": float(1 - statistic.mean()),
        "correlation similarity": float(correlation_similarity(real, new)),
        "distance to the nearest real one, median": float(away.median()),
        "the same among real ones, median": float(apart.median()),
    }
    columns = _columns(made, statistic)
    return Findings(
        f"{len(new)} transitions made of {len(real)}",
        summary,
        tables=[
            Table(
                "Columns, as recorded and as made",
                ["column", "mean", "made", "deviation", "made ", "Kolmogorov-Smirnov"],
                columns,
            )
        ],
        figures=[("Distance to the nearest real transition, in deviations", _figure(away, apart))],
        notices=_notices(made, away, apart),
        data={"columns": [list(row) for row in columns], "constant": made.constant},
        transitions=made.episodes,
    )


def _columns(made: Made, statistic: Float[Tensor, "column"]) -> list[list[object]]:
    layout = made.model.layout
    real, new = (layout.pack(one).double() for one in (made.transitions, made.made))
    moments = [value.tolist() for one in (real, new) for value in (one.mean(0), one.std(0, correction=0))]
    return [
        [name, moments[0][i], moments[2][i], moments[1][i], moments[3][i], float(statistic[i])]
        for i, name in enumerate(layout.names)
    ]


def _notices(made: Made, away: Tensor, apart: Tensor) -> list[str]:
    found = []
    if made.constant:
        found.append(
            f"These columns never vary, and have the same value in what was made: {', '.join(made.constant)}."
        )
    if float(apart.median()) > 0 and float(away.median()) > FAR * float(apart.median()):
        found.append(
            "What was made lies far from what was recorded, compared with how far that lies apart: train the "
            "generator longer, or give it more to learn from."
        )
    if float((away == 0).float().mean()) > 0.5:
        found.append("More than half of what was made is a copy of what was recorded.")
    return found


def _figure(away: Tensor, apart: Tensor) -> Figure:
    """The share of transitions that are nearer than a distance, for made and for real ones."""
    labels = {"made": away, "real, to another": apart}
    styles = palette(list(labels))
    figure, axes = blank_axes(LIGHT, height=3.0)
    entries = []
    for label, distance in labels.items():
        ordered = distance.sort().values
        share = torch.arange(1, len(ordered) + 1) / len(ordered)
        (line,) = axes.plot(ordered.numpy(), share.numpy(), color=styles[label].colour(LIGHT))
        entries.append((line, label))
    axes.set_xlabel("distance to the nearest real transition, in deviations")
    axes.set_ylabel("share of transitions")
    axes.set_xlim(0, float(torch.cat([away, apart]).quantile(0.99)) or 1.0)
    axes.set_ylim(0, 1.02)
    draw_grid(axes, LIGHT, "both")
    draw_legend(figure, LIGHT, entries)
    return figure

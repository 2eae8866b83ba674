"""How the grade of a data set is shown: the metrics in numbers, tables and a picture, and what to keep.

`systems.data_quality` compares the samples; here its comparisons become `Findings`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.evaluation.drawing import LIGHT, blank_axes, draw_grid, draw_legend, palette
from policysmith.evaluation.findings import Findings, Table
from policysmith.experience.episodes import Episodes
from policysmith.objectives.data_quality import (
    Neighbourhood,
    curation_score,
    squared_deviation,
    state_similarity,
)

SHOWN = 10
"""Episodes in the table of the worst."""


@dataclass(frozen=True)
class Grade:
    """Samples of `episodes`, compared: `around` among all samples, `others` among those of other episodes.

    `action` and `owner` are the compared samples' actions and episode numbers, `weight` what each dimension
    of the action counts, `radius` or `neighbours` what a neighbourhood is, `drop` the share of episodes that
    curation drops, `spread` the variance of transitions where it was measured.
    """

    episodes: Episodes
    action: Float[Tensor, "row action"]
    owner: Int[Tensor, "row"]
    weight: Float[Tensor, "action"]
    around: Neighbourhood
    others: Neighbourhood
    radius: float | None
    neighbours: int | None
    drop: float
    spread: Float[Tensor, "sample state"] | None = None


def grade_findings(grade: Grade) -> Findings:
    """The metrics, per action dimension and per episode, and what curation would keep."""
    episodes, around, others, weight = grade.episodes, grade.around, grade.others, grade.weight
    action, owner = grade.action, grade.owner
    per_dimension = squared_deviation(action, around).mean(0)
    within = around.variance.mean(0)
    against = squared_deviation(action, others) @ weight
    variance = _mean_per_episode(against, owner, len(episodes))
    own = _mean_per_episode(squared_deviation(action, around) @ weight, owner, len(episodes))
    alone = _mean_per_episode((others.size == 0).double(), owner, len(episodes))
    score = curation_score(variance, episodes.lengths)
    order = score.argsort(descending=True, stable=True).tolist()
    dropped = order[: math.floor(grade.drop * len(episodes) + 1e-9)]
    lengths = episodes.lengths.double()
    deviation = float(lengths.std(correction=0))
    summary: dict[str, float | int | str] = {
        "action variance": float(per_dimension @ weight),
        "variance within neighbourhoods": float(within @ weight),
        "state similarity": float(state_similarity(around, len(episodes.steps)).mean()),
        "mean length": float(lengths.mean()),
        "length, standard deviation": deviation,
        "episodes": len(episodes),
        "samples": len(episodes.steps),
        "neighbourhood": f"{grade.neighbours} nearest"
        if grade.radius is None
        else f"radius {grade.radius:.4g}",
    }
    if grade.spread is not None:
        summary["transition spread"] = float(grade.spread.mean(0).sum())
    rows = [
        {
            "episode": number,
            "score": float(score[number]),
            "variance against the others": _number(variance[number]),
            "variance": _number(own[number]),
            "steps with no other episode near": _number(alone[number]),
            "length": int(episodes.lengths[number]),
            "kept": number not in dropped,
        }
        for number in range(len(episodes))
    ]
    worst = [["" if value is None else value for value in rows[i].values()] for i in order[:SHOWN]]
    return Findings(
        f"Quality of {len(episodes)} demonstrations",
        summary,
        tables=[
            Table(
                "Per dimension of the action",
                ["dimension", "weight", "action variance", "variance within neighbourhoods"],
                [
                    [i, float(weight[i]), float(per_dimension[i]), float(within[i])]
                    for i in range(len(within))
                ],
            ),
            Table("The episodes that most deserve to be dropped", list(rows[0]), worst),
        ],
        figures=[("Length and inconsistency of each episode", _figure(rows))],
        notices=_notices(grade),
        data={
            "summary": summary,
            "radius": grade.radius,
            "per_dimension": per_dimension.tolist(),
            "within_per_dimension": within.tolist(),
            "weights": weight.tolist(),
            "per_episode": rows,
            "kept": sorted(set(range(len(episodes))) - set(dropped)),
        },
    )


def unsuccessful(episodes: Episodes) -> list[int]:
    """The numbers of the episodes that the environment never flagged as successful."""
    return (~episodes.succeeded).nonzero()[:, 0].tolist()


def listed(numbers: list[int], most: int = 20) -> str:
    """The first `most` numbers as text, and how many more there are."""
    text = ", ".join(map(str, numbers[:most]))
    return text + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _notices(grade: Grade) -> list[str]:
    episodes, radius = grade.episodes, grade.radius
    found = []
    if radius is not None and bool((grade.around.size == 1).all()):
        found.append(
            f"With radius {radius:g} every neighbourhood is a single sample, so that the action variance is "
            "0 by construction: choose a larger radius, or none."
        )
    elif (share := float((grade.others.size == 0).double().mean())) > 0.5:
        found.append(
            f"{share:.0%} of the steps have no step of another episode near them and say nothing of "
            "consistency: a larger radius, or fewer dimensions of the state, would compare more of them."
        )
    failed = unsuccessful(episodes)
    if failed and len(failed) < len(episodes):
        found.append(f"{len(failed)} episodes did not succeed: {listed(failed)}.")
    if len(grade.action) < len(episodes.steps):
        found.append(f"{len(grade.action)} of {len(episodes.steps)} samples were compared with all others.")
    return found


def _figure(rows: list[dict[str, Any]]) -> Figure:
    styles = palette(["kept", "dropped"])
    figure, axes = blank_axes(LIGHT, height=3.4)
    entries = []
    for label in ("kept", "dropped"):
        chosen = [
            row
            for row in rows
            if row["kept"] == (label == "kept") and row["variance against the others"] is not None
        ]
        (points,) = axes.plot(
            [row["length"] for row in chosen],
            [row["variance against the others"] for row in chosen],
            "o",
            color=styles[label].colour(LIGHT),
            markersize=4,
        )
        entries.append((points, label))
    axes.set_xlabel("length in steps")
    axes.set_ylabel("action variance against the others")
    draw_grid(axes, LIGHT, "both")
    draw_legend(figure, LIGHT, entries)
    return figure


def _mean_per_episode(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """The mean of each episode's values, NaN ones left out; NaN where none is left."""
    known = ~values.isnan()
    total = torch.zeros(count, dtype=torch.double).index_add_(0, owner[known], values[known])
    number = torch.zeros(count, dtype=torch.double).index_add_(0, owner[known], known[known].double())
    return total / number


def _number(value: Tensor) -> float | None:
    return None if math.isnan(float(value)) else float(value)

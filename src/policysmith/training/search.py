"""Search without gradients for the point of a box where a score is lowest.

The score is asked for many points at once, so that whoever computes it can play their episodes side by side.
`grid_search` tries the points of a grid; `cmaes_search` draws generations from a Gaussian whose mean and
covariance follow the better half of each (CMA-ES, Hansen 2016), in the box scaled to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from policysmith.common.errors import NotFiniteError, SettingError, ShapeError
from policysmith.common.extras import require
from policysmith.worlds.uncertainty import UncertaintyBox, told

Score = Callable[[Float[np.ndarray, "point parameter"]], Float[np.ndarray, "point"]]
"""Points of the box -> the score of each; lower is what is searched for."""


@dataclass(frozen=True)
class Found:
    """What a search came to: the lowest `value` and where, and all points tried with their values."""

    point: Float[np.ndarray, "parameter"]
    value: float
    points: Float[np.ndarray, "tried parameter"]
    values: Float[np.ndarray, "tried"]


def grid_search(score: Score, box: UncertaintyBox, *, points: int) -> Found:
    """The lowest score on a grid of `points` values per parameter; errors as in `scored`."""
    grid = box.grid(points)
    return _lowest(grid, scored(score, grid, box))


def cmaes_search(
    score: Score,
    box: UncertaintyBox,
    *,
    population: int,
    generations: int,
    seed: int,
    mean: float = 0.5,
    deviation: float = 0.5,
) -> Found:
    """The lowest score that CMA-ES finds with `population` points in each of `generations`.

    `mean` and `deviation` are those of the first generation, in shares of the box. The answer is the best
    point tried. Needs the package `cmaes` (extra `robust`); a box of one parameter is searched on a grid of
    as many points in all, because covariances need two. Raises `SettingError` for settings out of range, and
    what `scored` raises.
    """
    if population < 2 or generations < 1 or not deviation > 0:
        raise SettingError(
            f"{generations} generations of {population} points with deviation {deviation}",
            expected="a generation of 2 points or more, and a deviation above 0",
        )
    if len(box) == 1:
        return grid_search(score, box, points=population * generations)
    optimizer = require("cmaes", extra="robust").CMA(
        mean=np.full(len(box), float(mean)),
        sigma=float(deviation),
        bounds=np.tile([0.0, 1.0], (len(box), 1)),
        population_size=population,
        seed=seed,
    )
    tried: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for _ in range(generations):
        asked = np.stack([optimizer.ask() for _ in range(population)])
        tried.append(box.point(asked))
        values.append(scored(score, tried[-1], box))
        optimizer.tell([(unit, float(value)) for unit, value in zip(asked, values[-1], strict=True)])
    return _lowest(np.concatenate(tried), np.concatenate(values))


def scored(
    score: Score, points: Float[np.ndarray, "point parameter"], box: UncertaintyBox
) -> Float[np.ndarray, "point"]:
    """The score of each point, checked.

    Raises `NotFiniteError` naming the parameters of a point whose score is not finite, and `ShapeError` where
    there is not one score per point.
    """
    values = np.asarray(score(points), dtype=float)
    if values.shape != (len(points),):
        raise ShapeError(f"scores of shape {list(values.shape)}", expected=f"one for each of {len(points)}")
    wrong = ~np.isfinite(values)
    if wrong.any():
        first = int(wrong.argmax())
        raise NotFiniteError(
            f"the score of a world is {values[first]}",
            where=told(box.named(points[first])),
            cure="see what an episode in that world returns, or leave it out of the box",
        )
    return values


def _lowest(points: np.ndarray, values: np.ndarray) -> Found:
    best = int(values.argmin())
    return Found(points[best], float(values[best]), points, values)

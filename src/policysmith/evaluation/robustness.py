"""How a policy bears up where the world differs: returns over a grid of environments, and the worst of them.

    worst = min over parameters of the mean return there

Every point is played from the same seeds, so that what differs between points is the environment.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float

from policysmith.common.errors import SettingError
from policysmith.evaluation.playing import Start, Trial, play
from policysmith.policies.protocol import Policy

Parameters = Mapping[str, Any]
"""What an environment of the grid is made with: names and values."""


@dataclass(frozen=True)
class GridResult:
    """The returns of one policy over a grid: `points` in the grid's order, `returns` [point, episode]."""

    points: tuple[dict[str, Any], ...]
    returns: Float[np.ndarray, "point episode"]

    @property
    def mean(self) -> Float[np.ndarray, "point"]:
        """Mean return at each point."""
        return self.returns.mean(axis=1)

    @property
    def worst(self) -> float:
        """The lowest mean return over the grid."""
        return float(self.mean.min())

    @property
    def worst_point(self) -> dict[str, Any]:
        """The parameters at which the mean return is lowest; the first of them where several are."""
        return self.points[int(self.mean.argmin())]

    @property
    def average(self) -> float:
        """The mean return over the whole grid, every point counting the same."""
        return float(self.mean.mean())


def over_grid(
    policy: Policy,
    make: Callable[[Parameters], gymnasium.Env],
    grid: Mapping[str, Sequence[Any]] | Sequence[Parameters],
    *,
    episodes: int = 10,
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    limit: int | None = None,
    parallel: int = 100,
) -> GridResult:
    """Play `policy` in `make(parameters)` for every point of the grid, from the same seeds at each.

    `grid` is the values of each parameter (all combinations are played, the last name varying fastest), or a
    list of points. `seeds` are what the episodes are reset with, 0 to `episodes` - 1 by default; `seed`
    starts the policy's own random stream. Episodes are played to their end, or for `limit` steps, `parallel`
    at a time whatever their points, each row in an environment that is kept for its point.
    """
    points = grid_points(grid)
    starts = list(range(episodes)) if seeds is None else list(seeds)
    if not starts:
        raise SettingError("no episodes were asked for", expected="at least one per point")
    makers = [partial(make, point) for point in points]
    trials = [Trial(maker, (Start(start),)) for maker in makers for start in starts]
    played = play(policy, trials, seed=seed, parallel=parallel, limit=limit, stop_on_success=False)
    return GridResult(points, played.returns.reshape(len(points), len(starts)))


def grid_points(grid: Mapping[str, Sequence[Any]] | Sequence[Parameters]) -> tuple[dict[str, Any], ...]:
    """Every point of a grid; `SettingError` where there is none."""
    if isinstance(grid, Mapping):
        combinations = itertools.product(*grid.values())
        points = tuple(dict(zip(grid, values, strict=True)) for values in combinations) if grid else ()
    else:
        points = tuple(dict(point) for point in grid)
    if not points:
        raise SettingError("the grid has no points", expected="at least one value of each parameter")
    return points

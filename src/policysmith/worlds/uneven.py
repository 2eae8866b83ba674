"""A point maze whose driver is good in some cells and bad in others: data of a quality that varies by state.

The driver knows the way everywhere. In one half of the maze's cells it keeps to it; in the other half most
of its actions are uniformly random. What is recorded from it is worth copying in the first half, and leaves
much to be gained in the second, so that no single degree of trust in the data is right for all of it.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.worlds.pillar import GoalRadius, point_maze
from policysmith.worlds.pointmaze import Cell, PointMazeExpert

U_TURN = (
    (1, 1, 1, 1, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 0, 1),
    (1, 0, 0, 0, 1),
    (1, 1, 1, 1, 1),
)
"""Two corridors and the turn between them, seven cells; from end to end takes about 120 steps."""


def uneven_maze(*, radius: float = 0.5, horizon: int = 200, **options: Any) -> gymnasium.Env:
    """A point in a corridor with a turn (see `U_TURN`); start and goal are random cells.

    The episode ends, successfully and with a reward of 1, within `radius` of the goal, and is cut after
    `horizon` steps. `options` go to `PointMaze_Medium-v3`. `MissingExtraError` without the extra `robotics`.
    """
    return GoalRadius(point_maze(U_TURN, horizon=horizon, **options), radius)


class UnevenDriver(PointMazeExpert):
    """Drives to the goal; in the cells `careless`, a `share` of its actions is uniformly random.

    By default these are the second half of the maze's free cells, row by row. Raises `SettingError` for a
    share outside [0, 1] and for cells that are not free.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        careless: Set[Cell] | None = None,
        share: float = 0.7,
        gain: float = 10.0,
        damping: float = 1.0,
    ) -> None:
        super().__init__(env, gain=gain, damping=damping)
        if not 0 <= share <= 1:
            raise SettingError(f"a share of {share} random actions", expected="0 to 1")
        if careless is None:
            careless = set(sorted(self._free)[len(self._free) // 2 :])
        if outside := sorted(careless - self._free):
            raise SettingError(f"the cells {outside} are not free", expected=f"cells of {sorted(self._free)}")
        self.careless, self._share = frozenset(careless), share
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; the seed determines the random actions."""
        super().reset(seed)
        self._rng = np.random.default_rng() if seed is None else numpy_generator(seed, "careless")

    def is_careless(self, observation: np.ndarray | dict[str, np.ndarray]) -> bool:
        """Whether the point is where the driver is careless."""
        return self._cell(self._state(observation)[:2]) in self.careless

    def act(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """The force towards the goal, or any force: float32 [2] in [-1, 1]."""
        force = super().act(observation)
        if self.is_careless(observation) and self._rng.random() < self._share:
            return self._rng.uniform(-1, 1, force.shape).astype(np.float32)
        return force

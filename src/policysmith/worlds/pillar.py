"""A point maze in which every goal can be reached by two ways: a square corridor around a pillar.

The physics is that of Gymnasium-Robotics' point mazes (a force on a ball, hundredths of a second a step). As
a task it asks for a goal; in its form for play nothing is asked for, and whoever drives goes where he likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict

from policysmith.common.extras import require

PILLAR = (
    (1, 1, 1, 1, 1, 1, 1),
    (1, 0, 0, 0, 0, 0, 1),
    (1, 0, 1, 1, 1, 0, 1),
    (1, 0, 1, 1, 1, 0, 1),
    (1, 0, 1, 1, 1, 0, 1),
    (1, 0, 0, 0, 0, 0, 1),
    (1, 1, 1, 1, 1, 1, 1),
)
"""A ring of 16 cells around a pillar of 9; a way around half of it takes about 160 steps."""


def pillar_maze(*, radius: float = 0.5, horizon: int = 200, **options: Any) -> gymnasium.Env:
    """A point in a square corridor around a pillar (see `PILLAR`); start and goal are random cells.

    The episode ends, successfully, within `radius` of the goal, and is cut after `horizon` steps. `options`
    go to `PointMaze_Medium-v3`. `MissingExtraError` without the extra `robotics`.
    """
    return GoalRadius(point_maze(PILLAR, horizon=horizon, **options), radius)


def play_maze(*, horizon: int = 200, **options: Any) -> gymnasium.Env:
    """The same maze without a goal, for play: the observation is the state (position and velocity) alone.

    Only the horizon ends an episode. `options` and errors as for `pillar_maze`.
    """
    return WithoutGoal(point_maze(PILLAR, horizon=horizon, **options))


def point_maze(cells: Sequence[Sequence[int]], *, horizon: int, **options: Any) -> gymnasium.Env:
    """The point in a maze of `cells` (1 a wall, 0 free) whose goal neither moves nor ends the episode."""
    require("gymnasium_robotics", extra="robotics")
    # Goal and end are the wrappers': the package's radius is 0.45, and its continuing task moves the goal.
    return gymnasium.make(
        "PointMaze_Medium-v3",
        maze_map=[list(row) for row in cells],
        continuing_task=True,
        reset_target=False,
        max_episode_steps=horizon,
        disable_env_checker=True,
        **options,
    )


class GoalRadius(gymnasium.Wrapper):
    """A point maze whose episodes end, with `info["success"]`, within `radius` of the goal."""

    def __init__(self, env: gymnasium.Env, radius: float) -> None:
        super().__init__(env)
        self._radius = radius

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the reward is 1 at the goal and 0 elsewhere."""
        observation, _, _, truncated, info = self.env.step(action)
        distance = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"])
        there = bool(distance <= self._radius)
        return observation, float(there), there, truncated, {**info, "success": there}


class WithoutGoal(gymnasium.ObservationWrapper):
    """A point maze in which nothing is asked for: the state alone is seen, and no success is flagged."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        self.observation_space = env.observation_space["observation"]

    def observation(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Position and velocity [4]."""
        return observation["observation"]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, without reward."""
        observation, _, _, truncated, info = super().step(action)
        return observation, 0.0, False, truncated, {**info, "success": False}

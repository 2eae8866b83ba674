"""A point goes around an obstacle: the smallest world in which the quality of demonstrations matters.

There are two ways around a circle in the unit square, noise in the world pushes the point off its path, and
only an action can drive it into the circle. An expert that picks a side at random gives demonstrations with
two answers near the start. Pure NumPy, with a scripted expert and pictures.
Source: Belkhale et al. 2023 (2306.02437), the PMObstacle environment.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.worlds.point import PICTURE_SIZE, check_action

STEP_LENGTH = 0.04
"""How far an action of 1 moves the point along an axis."""
START, GOAL = np.array([0.1, 0.1]), np.array([0.9, 0.9])
CENTRE, RADIUS = np.array([0.5, 0.5]), 0.1
"""The obstacle."""
SUCCESS_RADIUS = 0.01
"""The distance from the goal (and, for the expert, from its way-point) that counts as there."""
STOPPED_AT = 0.9
"""The share of the way to the obstacle that noise can push the point towards it."""


class PointObstacle(gymnasium.Env):
    """Walk from (0.1, 0.1) to (0.9, 0.9) around a circle of radius 0.1 at (0.5, 0.5).

    Observation: position, goal, circle's centre and radius, float32 [7] in [0, 1] ([4] without `obstacle`).
    Action: float32 [2] in [-1, 1], times 0.04 per step. Each step first adds noise of deviation
    `sigma_system` (in units of the square) to the position, which alone never enters the circle, then moves.
    The episode is terminated as a failure when the point lies in the circle after a step, at success
    (`info["success"]`, within 0.01 of the goal) unless `terminate_on_success` is False, and truncated after
    `horizon` steps (200; 50 without the obstacle). Reward: minus the distance to the goal after the step.

    The authors' goal drifts by 0.00025 a step, which is left out here.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        *,
        sigma_system: float = 0.0,
        obstacle: bool = True,
        horizon: int | None = None,
        terminate_on_success: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if not 0 <= sigma_system < np.inf:
            raise SettingError(f"sigma_system is {sigma_system}", expected="0 or more, and finite")
        self.sigma_system = sigma_system
        self.obstacle = obstacle
        self.horizon = horizon if horizon is not None else 200 if obstacle else 50
        self.terminate_on_success = terminate_on_success
        self.render_mode = render_mode
        self.observation_space = Box(0.0, 1.0, (7 if obstacle else 4,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._position = START.copy()
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Start at (0.1, 0.1); the seed determines the noise to come."""
        super().reset(seed=seed)
        self._position = START.copy()
        self._steps = 0
        return self._observation(), {"success": 0.0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """Be pushed, then move by `action` (clipped to [-1, 1]) times 0.04, staying in the square."""
        action = np.clip(check_action(action, size=2), -1.0, 1.0)
        pushed = self._pushed(self.sigma_system * self.np_random.standard_normal(2))
        self._position = np.clip(pushed + STEP_LENGTH * action, 0.0, 1.0)
        self._steps += 1
        distance = float(np.linalg.norm(GOAL - self._position))
        failed = self.obstacle and bool(np.linalg.norm(self._position - CENTRE) < RADIUS)
        success = distance <= SUCCESS_RADIUS
        terminated = failed or (success and self.terminate_on_success)
        truncated = self._steps >= self.horizon and not terminated
        return self._observation(), -distance, terminated, truncated, {"success": float(success)}

    def render(self) -> np.ndarray | None:
        """The square from above, y upwards: obstacle grey, goal green, point blue; uint8 [96, 96, 3]."""
        if self.render_mode != "rgb_array":
            return None
        frame = np.full((PICTURE_SIZE, PICTURE_SIZE, 3), 255, dtype=np.uint8)
        centres = (np.arange(PICTURE_SIZE) + 0.5) / PICTURE_SIZE
        x, y = np.meshgrid(centres, centres[::-1])
        if self.obstacle:
            frame[np.hypot(x - CENTRE[0], y - CENTRE[1]) <= RADIUS] = (150, 150, 150)
        frame[np.hypot(x - GOAL[0], y - GOAL[1]) <= 0.03] = (60, 170, 90)
        frame[np.hypot(x - self._position[0], y - self._position[1]) <= 0.02] = (40, 90, 200)
        return frame

    def _pushed(self, push: np.ndarray) -> np.ndarray:
        """The position after the noise, short of the circle where the way there meets it."""
        if self.obstacle and (share := first_meeting(self._position, push)) is not None:
            push = STOPPED_AT * share * push
        return self._position + push

    def _observation(self) -> np.ndarray:
        parts = (self._position, GOAL, CENTRE, [RADIUS]) if self.obstacle else (self._position, GOAL)
        return np.concatenate(parts).astype(np.float32)


def first_meeting(position: np.ndarray, way: np.ndarray) -> float | None:
    """The share in [0, 1] of `way` after which it meets the circle from outside; None where it does not."""
    # |position + share * way - centre|^2 = radius^2, the smaller solution.
    offset = position - CENTRE
    a, b, c = way @ way, offset @ way, offset @ offset - RADIUS**2
    square = b * b - a * c
    if a == 0 or square < 0:
        return None
    share = (-b - np.sqrt(square)) / a
    return float(share) if 0 <= share <= 1 else None


class ObstacleExpert:
    """Goes to a way-point beside the obstacle, then to the goal, at full speed and with an exact last step.

    The way-point lies half-way between the circle's centre and the wall, perpendicular to the line from the
    start to the centre. The side is drawn for each episode from the seed of its reset, or is always the
    left one where `random_side` is False. In the world without obstacle it goes straight to the goal.
    """

    def __init__(self, *, random_side: bool = True) -> None:
        self._random_side = random_side
        self._side = 1.0
        self._way_point: np.ndarray | None = None
        self._passed = False

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode and choose its side."""
        self._way_point, self._passed = None, False
        if self._random_side:
            rng = np.random.default_rng() if seed is None else numpy_generator(seed, "side")
            self._side = float(rng.choice([-1.0, 1.0]))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action for the observation [7] or [4]: float32 [2], at most 1 long."""
        seen = np.asarray(observation, dtype=np.float64)
        position, goal = seen[:2], seen[2:4]
        if len(seen) == 4:
            return _towards(position, goal)
        if self._way_point is None:
            self._way_point = way_point(position, seen[4:6], self._side)
        self._passed = self._passed or bool(np.linalg.norm(position - self._way_point) <= SUCCESS_RADIUS)
        return _towards(position, goal if self._passed else self._way_point)


class OneSidedObstacleExpert(ObstacleExpert):
    """The consistent expert: always around the same side."""

    def __init__(self) -> None:
        super().__init__(random_side=False)


def way_point(start: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """Half-way from `centre` to the wall, at a right angle to the way there: `side` 1 is left, -1 right."""
    ahead = (centre - start) / np.linalg.norm(centre - start)
    direction = side * np.array([-ahead[1], ahead[0]])
    with np.errstate(divide="ignore"):
        to_walls = np.where(direction > 0, (1 - centre) / direction, -centre / direction)
    to_wall = to_walls[direction != 0].min()
    return centre + direction * to_wall / 2


def _towards(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    way = (target - position) / STEP_LENGTH
    return (way / max(1.0, float(np.linalg.norm(way)))).astype(np.float32)

"""The smallest world that is worth learning: a point in the unit square walks to a goal.

Pure NumPy, microseconds a step, fully determined by the reset's seed, with a scripted expert and pictures;
made for tests and for the examples of the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from policysmith.common.errors import NotFiniteError, SettingError, ShapeError, UnknownNameError
from policysmith.common.observations import GOAL, STATE, Seen
from policysmith.worlds.cameras import CAMERA

STEP_LENGTH = 0.1
"""How far an action of 1 moves the point along an axis, where nothing else is set."""
SUCCESS_RADIUS = 0.05
"""The distance from the goal, in the square's units, that counts as there."""
START_DISTANCE = 0.3
"""The least distance between start and goal."""
PICTURE_SIZE = 96
"""Side of the picture in pixels."""


class PointReach(gymnasium.Env):
    """Walk from a random start to a random goal.

    Observation: position and goal, float32 [4] in [0, 1]; with `goal_apart` the parts `state` and `goal`,
    float32 [2] each. Action: float32 [2] in [-1, 1], times 0.1 per step.
    Reward: minus the distance to the goal after the step. `info["success"]` is 1.0 within 0.05 of the goal,
    else 0.0. The episode is terminated at success (unless `terminate_on_success` is False) and truncated
    after `horizon` steps. The position is what the walker knows of itself (`proprioception`).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own declaration
    proprioception = (0, 1)

    def __init__(
        self,
        *,
        horizon: int = 30,
        terminate_on_success: bool = True,
        goal_apart: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.horizon = horizon
        self.terminate_on_success = terminate_on_success
        self.render_mode = render_mode
        self.goal_apart = goal_apart
        self.step_length = STEP_LENGTH
        place = Box(0.0, 1.0, (2,), np.float32)
        self.observation_space = (
            Dict({STATE: place, GOAL: place}) if goal_apart else Box(0.0, 1.0, (4,), np.float32)
        )
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._position = np.full(2, 0.5)
        self._goal = np.full(2, 0.5)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, float]]:
        """Draw a start and a goal at least 0.3 apart; the same seed draws the same two."""
        super().reset(seed=seed)
        self._steps = 0
        self._position = self.np_random.random(2)
        self._goal = self.np_random.random(2)
        while np.linalg.norm(self._goal - self._position) < START_DISTANCE:
            self._goal = self.np_random.random(2)
        return self._observation(), {"success": 0.0}

    def step(self, action: np.ndarray) -> tuple[Seen, float, bool, bool, dict[str, float]]:
        """Move by `action` (clipped to [-1, 1]) times 0.1, staying in the square."""
        action = check_action(action, size=2)
        self._position = np.clip(self._position + self.step_length * np.clip(action, -1.0, 1.0), 0.0, 1.0)
        self._steps += 1
        distance = float(np.linalg.norm(self._goal - self._position))
        success = distance <= SUCCESS_RADIUS
        terminated = success and self.terminate_on_success
        truncated = self._steps >= self.horizon and not terminated
        return self._observation(), -distance, terminated, truncated, {"success": float(success)}

    def set_physics(self, parameters: Mapping[str, float]) -> None:
        """Another world, from the next step on: `step length` is how far an action of 1 moves the point."""
        if unknown := sorted(set(parameters) - {"step length"}):
            raise UnknownNameError(f"no physical parameter is called '{unknown[0]}'", expected="step length")
        length = parameters.get("step length", self.step_length)
        if not 0 < length <= 1:
            raise SettingError(f"the value of 'step length' is {length}", expected="above 0, at most 1")
        self.step_length = length

    def render(self) -> np.ndarray | None:
        """The square from above; uint8 [96, 96, 3]. None without `render_mode="rgb_array"`."""
        return self.picture(CAMERA, PICTURE_SIZE, PICTURE_SIZE) if self.render_mode == "rgb_array" else None

    def picture(self, camera: str, height: int, width: int) -> np.ndarray:
        """The square from above, y upwards: the goal a green ring, the point blue; uint8 [height, width, 3].

        The only camera is "camera".
        """
        if camera != CAMERA:
            raise UnknownNameError(f"the world has no camera '{camera}'", expected=f"'{CAMERA}'")
        frame = np.full((height, width, 3), 255, dtype=np.uint8)
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, 1 - (np.arange(height) + 0.5) / height)
        to_goal = np.hypot(x - self._goal[0], y - self._goal[1])
        to_point = np.hypot(x - self._position[0], y - self._position[1])
        frame[(to_goal <= SUCCESS_RADIUS) & (to_goal >= SUCCESS_RADIUS / 2)] = (60, 170, 90)
        frame[to_point <= 0.6 * SUCCESS_RADIUS] = (40, 90, 200)
        return frame

    def _observation(self) -> Seen:
        if self.goal_apart:
            return {STATE: self._position.astype(np.float32), GOAL: self._goal.astype(np.float32)}
        return np.concatenate([self._position, self._goal]).astype(np.float32)


class PointExpert:
    """Walks straight to the goal that the observation shows."""

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget."""

    def act(self, observation: Seen) -> np.ndarray:
        """The step that ends nearest to the goal: float32 [2] in [-1, 1]."""
        if isinstance(observation, Mapping):
            position, goal = observation[STATE], observation[GOAL]
        else:
            position, goal = observation[:2], observation[2:4]
        return np.clip((goal - position) / STEP_LENGTH, -1.0, 1.0).astype(np.float32)


def check_action(action: np.ndarray, *, size: int) -> np.ndarray:
    """`action` as float32 [size]; raises `ShapeError` or `NotFiniteError` where it is not such a vector."""
    vector = np.asarray(action, dtype=np.float32)
    if vector.shape != (size,):
        raise ShapeError(f"an action of shape {list(vector.shape)}", expected=f"[{size}]")
    if not np.isfinite(vector).all():
        raise NotFiniteError(f"an action that is not finite: {vector.tolist()}")
    return vector

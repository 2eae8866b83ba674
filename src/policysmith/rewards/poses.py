"""Reward from a pose: one where the tool is at the target within a box of tolerances, zero elsewhere.

    r = 1[ |pose - target| < threshold in every one of x, y, z and three angles ]

Source: Luo et al. 2024 (SERL), section IV-B; the penalty on the gripper is of its later code, which advises
it for grasping: without it a policy may open and close at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from policysmith.common.errors import SettingError, ShapeError
from policysmith.worlds.poses import pose_error

AXES = ("x", "y", "z", "roll", "pitch", "yaw")


def at_pose(
    pose: Float[ArrayLike, "6"], target: Float[ArrayLike, "6"], threshold: Float[ArrayLike, "6"]
) -> bool:
    """Whether every axis of `pose` (metres and radians) is less than its threshold away from `target`."""
    return bool((np.abs(pose_error(pose, target)) < np.asarray(threshold)).all())


class PoseReward(gymnasium.Wrapper):
    """Pays 1.0 at the target pose, and ends the episode there; 0.0 elsewhere.

    - `pose`: from an observation to the tool's pose, [6]: position and Euler angles.
    - `target`, `threshold`: [6] each, in metres and radians.
    - `limit`: the episode is truncated after so many steps.
    - `gripper_penalty`: subtracted wherever the last dimension of the action changes its sign: the gripper is
      told to open after it was told to close, or the other way round.

    `info["success"]` is 1.0 at the target. Raises `ShapeError` or `SettingError` for targets and thresholds
    that make no sense.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        pose: Callable[[Any], np.ndarray],
        target: ArrayLike,
        threshold: ArrayLike,
        limit: int = 100,
        gripper_penalty: float = 0.0,
    ) -> None:
        super().__init__(env)
        self.target, self.threshold = np.asarray(target, float), np.asarray(threshold, float)
        for name, vector in (("target", self.target), ("threshold", self.threshold)):
            if vector.shape != (len(AXES),):
                raise ShapeError(
                    f"a {name} of shape {list(vector.shape)}", expected=f"one number each for {AXES}"
                )
        if not (self.threshold > 0).all() or not np.isfinite(self.target).all():
            raise SettingError(
                f"the target {self.target.tolist()} within {self.threshold.tolist()}",
                expected="finite numbers, and thresholds above 0",
            )
        if limit < 1 or gripper_penalty < 0:
            raise SettingError(
                f"a limit of {limit} steps and a gripper penalty of {gripper_penalty}",
                expected="at least 1 step, and a penalty of 0 or more",
            )
        self._pose, self.limit, self.gripper_penalty = pose, limit, gripper_penalty
        self._steps, self._gripper = 0, 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; the first command to the gripper changes nothing."""
        self._steps, self._gripper = 0, 0.0
        return self.env.reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, paid for where it leads."""
        observation, _, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        success = at_pose(self._pose(observation), self.target, self.threshold)
        told = float(np.sign(np.ravel(action)[-1]))
        regripped = told * self._gripper < 0
        self._gripper = told or self._gripper
        reward = float(success) - self.gripper_penalty * regripped
        terminated = bool(terminated or success)
        truncated = bool((truncated or self._steps >= self.limit) and not terminated)
        return observation, reward, terminated, truncated, info | {"success": float(success)}

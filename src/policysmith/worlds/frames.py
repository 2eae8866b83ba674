"""Relative frames: a tool's pose told from where the episode began, and actions told in the tool's own frame.

    pose seen    = inv(T_reset) T_tool            velocity seen = inv(Ad(T_tool)) velocity
    action sent  = Ad(T_tool) action chosen

What a policy learns at one place is then right at every other: move the robot and the target together, and
observations and actions stay what they were.

Source: Luo et al. 2024 (SERL), section IV-E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.worlds.poses import POSE, TWIST, Convention, adjoint, euler_pose, relative_pose


class RelativeFrame(gymnasium.Wrapper):
    """Shows the tool's pose relative to that at the episode's reset, and takes twists in the tool's frame.

    - `pose`: the seven entries of the observation that are the tool's position and quaternion (x, y, z, w).
    - `velocity`: the six that are its twist (v; w) in the base's frame; None where it is not observed.
    - `convention`: see `worlds.poses.Convention`.

    The first six dimensions of an action are the twist; what follows them (a gripper) is passed on as it is.
    The observation has its other entries first, in their order, then position and Euler angles (6) and the
    velocity (6). The twist that was sent, in the base's frame, is in `info["sent"]`: it is what the
    environment saw, while demonstrations hold what was chosen. It is clipped to the environment's limits.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        pose: Sequence[int],
        velocity: Sequence[int] | None = None,
        convention: Convention = "textbook",
    ) -> None:
        super().__init__(env)
        space, action = env.observation_space, env.action_space
        if not (isinstance(space, Box) and isinstance(action, Box) and len(space.shape) == 1):
            raise CapabilityError(
                f"relative frames need vectors, not observations {space} and actions {action}"
            )
        if action.shape[0] < TWIST:
            raise CapabilityError(f"actions of {action.shape[0]} numbers", expected="a twist of six first")
        told = [*pose, *(velocity or ())]
        wrong = len(pose) != POSE or len(velocity or range(TWIST)) != TWIST or len(set(told)) < len(told)
        if wrong or not all(0 <= entry < space.shape[0] for entry in told):
            raise SettingError(
                f"the pose at {list(pose)} and the velocity at {velocity and list(velocity)}",
                where=f"an observation of {space.shape[0]} numbers",
                expected="seven and six entries of it, each named once",
            )
        self._pose, self._velocity = list(pose), None if velocity is None else list(velocity)
        self._others = [entry for entry in range(space.shape[0]) if entry not in told]
        self._convention: Convention = convention
        self._low, self._high = action.low, action.high
        unlimited = np.full(TWIST * (1 if velocity is None else 2), np.inf, np.float32)
        self.observation_space = Box(
            np.concatenate([space.low[self._others].astype(np.float32), -unlimited]),
            np.concatenate([space.high[self._others].astype(np.float32), unlimited]),
        )
        self._reset_pose = np.array([0, 0, 0, 0, 0, 0, 1.0])
        self._now = self._reset_pose

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, whose poses are told from this one's."""
        observation, info = self.env.reset(**kwargs)
        self._reset_pose = np.array(observation[self._pose], float)
        return self._seen(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Send the action, its twist taken from the tool's frame to the base's."""
        sent = self.to_base(np.asarray(action))
        observation, reward, terminated, truncated, info = self.env.step(sent)
        return self._seen(observation), reward, terminated, truncated, info | {"sent": sent}

    def to_base(self, action: np.ndarray) -> np.ndarray:
        """The action as the environment is sent it now, float32."""
        twist = adjoint(self._now, convention=self._convention) @ action[:TWIST]
        return np.clip(np.concatenate([twist, action[TWIST:]]), self._low, self._high).astype(np.float32)

    def to_tool(self, sent: np.ndarray) -> np.ndarray:
        """What would have to be chosen now for `sent` to be sent, such as what a person did."""
        matrix = adjoint(self._now, convention=self._convention)
        return np.concatenate([np.linalg.solve(matrix, sent[:TWIST]), sent[TWIST:]]).astype(np.float32)

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        self._now = np.array(observation[self._pose], float)
        parts = [observation[self._others], euler_pose(relative_pose(self._now, self._reset_pose))]
        if self._velocity is not None:
            matrix = adjoint(self._now, convention=self._convention)
            parts.append(np.linalg.solve(matrix, observation[self._velocity]))
        return np.concatenate(parts).astype(np.float32)

"""The smallest world with two objectives: get there, and spare yourself.

The point of `point-reach` is paid twice for every step, and more of one costs some of the other:

    reward = [1 - distance to the goal,  1 - mean squared action]

Made for tests and examples of methods that learn trade-offs (`point-effort`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from policysmith.common.observations import Seen
from policysmith.worlds.point import PointReach, check_action


class PointEffort(PointReach):
    """`PointReach` with a reward vector: closeness and ease, float32 [2], each at most 1 per step.

    Observations and actions are those of `point-reach`. Episodes last `horizon` steps: ending at the goal
    would take away what is still to be earned there.
    """

    objectives = ("closeness", "ease")

    def __init__(self, *, horizon: int = 30, render_mode: str | None = None) -> None:
        super().__init__(horizon=horizon, terminate_on_success=False, render_mode=render_mode)
        self.reward_space = Box(np.array([1 - np.sqrt(2), 0], np.float32), np.ones(2, np.float32))

    def step(self, action: np.ndarray) -> tuple[Seen, Any, bool, bool, dict[str, float]]:
        """Move as in `point-reach`; the reward is a vector, which Gymnasium's own types do not know."""
        effort = np.clip(check_action(action, size=2), -1.0, 1.0)
        seen, closeness, terminated, truncated, info = super().step(effort)
        reward = np.array([1 + closeness, 1 - np.square(effort).mean()], dtype=np.float32)
        return seen, reward, terminated, truncated, info

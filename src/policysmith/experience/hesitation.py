"""Experts who hesitate: slower than they could be, and now and then standing still.

Hesitation lengthens demonstrations without making them inconsistent in direction, which is what makes slow
operators hard to tell from good ones by their actions alone.
Source: Belkhale et al. 2023 (2306.02437), the speed noise and the stops of the authors' scripted experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.policies.acting import Expert

STOPS = (2, 7)
"""The shortest and the longest stop in steps."""


class HesitantExpert:
    """`expert`, slowed down and stopped at random.

    `speed_noise`: each step the action's length shrinks by |N(0, speed_noise)|, to not less than 0 (units of
    the action, and only down). `stop_probability`: per step, that a stop of 2 to 7 steps begins. Dimensions
    in `untouched` (a gripper) are left as they are. The draws of an episode are determined by its seed.
    """

    def __init__(
        self,
        expert: Expert,
        *,
        speed_noise: float = 0.0,
        stop_probability: float = 0.0,
        untouched: tuple[int, ...] = (),
    ) -> None:
        if not (0 <= speed_noise < np.inf and 0 <= stop_probability <= 1):
            raise SettingError(
                f"speed noise {speed_noise} and stops with probability {stop_probability}",
                expected="0 or more, and a probability",
            )
        self._expert, self._untouched = expert, list(untouched)
        self._speed_noise, self._stop_probability = speed_noise, stop_probability
        self._rng = np.random.default_rng()
        self._standing = 0

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode."""
        self._expert.reset(seed)
        self._standing = 0
        if seed is not None:
            self._rng = numpy_generator(seed, "hesitation")

    def act(self, observation: Any) -> np.ndarray:
        """The expert's action, shortened."""
        action = np.asarray(self._expert.act(observation), dtype=np.float32)
        moving = np.ones(len(action), bool)
        moving[self._untouched] = False
        if self._standing == 0 and self._rng.random() < self._stop_probability:
            self._standing = int(self._rng.integers(STOPS[0], STOPS[1] + 1))
        speed = float(np.linalg.norm(action[moving]))
        slower = max(0.0, speed - abs(self._speed_noise * self._rng.standard_normal()))
        if self._standing > 0:
            self._standing, slower = self._standing - 1, 0.0
        return np.where(moving, action * (slower / speed if speed > 0 else 1.0), action).astype(np.float32)

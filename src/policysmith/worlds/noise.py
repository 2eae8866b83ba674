"""System noise: a world that does not do exactly what it is told.

The noise is added to the action inside `step`, after the policy (or whoever records) has chosen: what is
chosen stays as it was, what happens does not. Evaluate a policy in the world with the noise it will meet.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.rng import numpy_generator


class SystemNoise(gymnasium.Wrapper):
    """Adds Gaussian noise of standard deviation `deviation` (in units of the action) to every action.

    The sum is clipped to the action space. Dimensions in `untouched` (a gripper) have no noise. The noise of
    an episode is determined by the seed of its reset.
    """

    def __init__(self, env: gymnasium.Env, deviation: float, *, untouched: tuple[int, ...] = ()) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, Box):
            raise CapabilityError(f"system noise needs a continuous (Box) action space, not {space}")
        if not 0 <= deviation < np.inf:
            raise SettingError(f"a noise of deviation {deviation}", expected="0 or more, and finite")
        self._low, self._high = space.low, space.high
        self._deviation = np.full(space.shape, deviation)
        self._deviation[list(untouched)] = 0.0
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode; without a seed the noise goes on from before."""
        if seed is not None:
            self._rng = numpy_generator(seed, "system noise")
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Play the action with its noise."""
        played = action + self._deviation * self._rng.standard_normal(self._deviation.shape)
        return self.env.step(np.clip(played, self._low, self._high).astype(self._low.dtype))

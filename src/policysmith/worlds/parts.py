"""Environments whose observation has parts: a state, a goal, pictures from cameras.

A dictionary of plain vectors is one vector to a policy, and so is everything else that Gymnasium can flatten
(a number among choices becomes zeros and a one). Discrete actions are whole numbers in a vector. Where there
are pictures, or where a goal is wanted apart, the vectors other than the goal are joined into `state` in the
order of their keys, and the rest keeps its name.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.wrappers import FlattenObservation

from policysmith.common.errors import CapabilityError
from policysmith.common.observations import ACTION_MASK, GOAL, STATE, has_pixels, is_parts
from policysmith.common.spaces import ActionSpace

GOAL_KEYS = ("achieved_goal", "desired_goal")
"""What Gymnasium's goal environments call where they are and where they should be."""


def as_policies_see(env: gymnasium.Env, *, goal: bool = False) -> gymnasium.Env:
    """`env` with its dictionary of vectors flattened, or in parts where it has pictures or for a `goal`.

    `goal` True needs a goal environment (`observation`, `achieved_goal`, `desired_goal`), whose desired goal
    becomes the part `goal`; `CapabilityError` for any other.
    """
    space = env.observation_space
    if goal and not (isinstance(space, Dict) and {"observation", *GOAL_KEYS} <= set(space.spaces)):
        if isinstance(space, Dict) and GOAL in space.spaces:
            return Parts(env)
        raise CapabilityError(
            f"the environment has no goal apart from its observation {space}",
            expected="a Dict of observation, achieved_goal and desired_goal, or one with a 'goal'",
        )
    if goal:
        return GoalParts(env)
    if is_parts(space):
        return Parts(env)
    if has_pixels(space):
        return OnePicture(env)
    if isinstance(space, Box) and len(space.shape) == 1:
        return env
    try:
        return FlattenObservation(env)
    except NotImplementedError as error:
        raise CapabilityError(
            f"the environment shows {space}, which is no vector",
            expected="Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them",
            cure="wrap the environment so that its observation is one of these",
        ) from error


def with_vector_actions(env: gymnasium.Env) -> gymnasium.Env:
    """`env` with discrete actions as vectors of whole numbers (an integer Box); others as they are."""
    discrete = isinstance(env.action_space, Discrete | MultiDiscrete | MultiBinary)
    return WholeNumbers(env) if discrete else env


class WholeNumbers(gymnasium.ActionWrapper):
    """Discrete, MultiDiscrete and MultiBinary actions as a vector of whole numbers from 0."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        choices = np.array(ActionSpace.of(env).choices)
        self.action_space = Box(np.zeros_like(choices), choices - 1, dtype=np.int64)
        self._inner = env.action_space
        self._start = self._inner.start if isinstance(self._inner, Discrete) else None

    def action(self, action: Any) -> Any:
        """The environment's own form of a vector."""
        if self._start is not None:
            # Gymnasium checks a NumPy number several times as fast as one of Python.
            return np.int64(action[0]) + self._start
        numbers = np.asarray(action, dtype=np.int64).reshape(self._inner.shape or ())
        if isinstance(self._inner, MultiDiscrete):
            numbers = numbers + self._inner.start
        return numbers.astype(self._inner.dtype)


class OnePicture(gymnasium.ObservationWrapper):
    """An observation that is a picture or a stack of them, as the part `picture`."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = Dict({"picture": env.observation_space})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The picture by its name."""
        return {"picture": observation}


class Parts(gymnasium.ObservationWrapper):
    """Joins the vectors of a dictionary into `state` and leaves `goal` and pictures as they are."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        spaces = env.observation_space.spaces
        apart = (GOAL, ACTION_MASK)
        self._kept = [name for name, space in spaces.items() if name in apart or has_pixels(space)]
        self._joined = [name for name in spaces if name not in self._kept]
        parts: dict[str, gymnasium.Space] = {name: spaces[name] for name in self._kept}
        if self._joined:
            parts[STATE] = _joined_space([spaces[name] for name in self._joined])
        self.observation_space = Dict(parts)

    def observation(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        """The parts of one observation."""
        parts = {name: np.asarray(observation[name]) for name in self._kept}
        if self._joined:
            parts[STATE] = _join([observation[name] for name in self._joined])
        return parts


class GoalParts(gymnasium.ObservationWrapper):
    """A goal environment's observation as `state` and its desired goal as `goal`, both float32."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        spaces = env.observation_space.spaces
        self.observation_space = Dict(
            {STATE: _joined_space([spaces["observation"]]), GOAL: _joined_space([spaces["desired_goal"]])}
        )

    def observation(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        """State and goal."""
        return {STATE: _join([observation["observation"]]), GOAL: _join([observation["desired_goal"]])}


def _joined_space(spaces: list[gymnasium.Space]) -> Box:
    wrong = [space for space in spaces if not isinstance(space, Box) or len(space.shape) > 2]
    if wrong:
        raise CapabilityError(
            f"the observation has a part {wrong[0]}",
            expected="vectors (Box of one axis, of two where they are stacked) and pictures (Box of uint8 "
            "[height, width, 3], with an axis before where they are stacked)",
            cure="wrap the environment so that the part is one of these",
        )
    low, high = (np.concatenate([np.ravel(getattr(s, end)) for s in spaces]) for end in ("low", "high"))
    return Box(low.astype(np.float32), high.astype(np.float32))


def _join(vectors: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(vector) for vector in vectors]).astype(np.float32)

"""Environments that pay several objectives at once: a reward vector instead of a number.

The convention is that of MO-Gymnasium: `step` returns an array [objective], and `reward_space` says how many
objectives there are. An environment that does not say so is asked by one step of play.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError


def objectives_of(environment: gymnasium.Env) -> int:
    """How many objectives the environment pays; 0 where its reward is a number.

    An environment without a `reward_space` is reset and played for one step of a random action.
    """
    space: Any = getattr(environment.unwrapped, "reward_space", None)
    if space is not None and getattr(space, "shape", None) is not None:
        shape = tuple(space.shape)
    else:
        environment.reset(seed=0)
        environment.action_space.seed(0)
        reward: Any = environment.step(environment.action_space.sample())[1]
        shape = np.shape(reward)
    if len(shape) > 1:
        raise CapabilityError(
            f"the environment's reward has shape {list(shape)}", expected="a number, or a vector [objective]"
        )
    return int(shape[0]) if shape else 0


def require_objectives(environment: gymnasium.Env, *, by: str) -> int:
    """The number of objectives; `CapabilityError` where the reward is no vector of two or more."""
    found = objectives_of(environment)
    if found < 2:
        raise CapabilityError(
            f"{by} needs an environment with a reward vector",
            where=f"{environment}: its reward {'is one number' if found == 0 else 'has one entry'}",
            expected="step() returns an array [objective] of two or more, as MO-Gymnasium's environments do",
            cure="return the parts of the reward as a vector instead of adding them up",
        )
    return found

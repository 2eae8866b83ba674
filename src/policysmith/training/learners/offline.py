"""What offline learners read: episodes as a replay, with the limits of their actions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, DataError
from policysmith.common.spaces import CONTINUOUS, ActionSpace
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import Replay, replay_of
from policysmith.training.learners.off_policy import check_transitions

UNIT = 1.0
"""The limits of actions that say nothing of their own: -1 to 1."""


@dataclass(frozen=True)
class OfflineData:
    """Transitions, and what they say about observations and actions."""

    replay: Replay
    observation_size: int
    action: ActionSpace

    @property
    def observation_space(self) -> gymnasium.Space:
        """Vectors of the observation's width."""
        return Box(-np.inf, np.inf, (self.observation_size,), np.float32)


def offline_data(episodes: Episodes, *, by: str, n_step: int = 1, discount: float = 0.99) -> OfflineData:
    """The transitions of `episodes` for the method `by`, actions within the limits they were recorded with.

    Limits are those in the provenance (`action_low`, `action_high`, as `data record` writes them), else -1 to
    1. Raises `CapabilityError` for pictures and parts, `DataError` for actions beyond the limits and for a
    data set without any reward, and warns where no episode ever terminates by a time limit only.
    """
    if episodes.pictures or not hasattr(episodes.steps["observation"], "dtype"):
        raise CapabilityError(
            f"{by} reads vectors, and these observations have parts",
            expected="one vector per observation",
            cure="leave pictures and goals out when loading the data",
        )
    low = episodes.provenance.get("action_low", [-UNIT] * episodes.action_size)
    high = episodes.provenance.get("action_high", [UNIT] * episodes.action_size)
    check_transitions(episodes, low=low, high=high)
    if not bool(episodes.steps["reward"].any()):
        raise DataError(
            f"{by} learns from rewards, and every reward in the data is 0",
            cure="record rewards too, or imitate the data (behaviour-cloning)",
        )
    if bool((episodes.steps["terminated"] & episodes.steps["truncated"]).any()):
        warnings.warn(
            "some steps are marked as terminated and as truncated: a time limit is no end of the task, and "
            "its value should go on; they are taken as terminated",
            stacklevel=2,
        )
    action = ActionSpace(CONTINUOUS, tuple(map(float, low)), tuple(map(float, high)))
    replay = replay_of(episodes, n_step=n_step, discount=discount)
    return OfflineData(replay, episodes.observation_size, action)

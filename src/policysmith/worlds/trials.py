"""Trials: several episodes at one task as a single long one, for policies that learn within their memory.

A recurrent policy that is shown what its last action led to (`Feedback`), and whose memory outlives the
episodes of a trial, can find out in the first ones what the task wants and do it in the later ones. Trained
on `Trials` by any recurrent learner that maximises the return of the whole trial, it is RL2.

Source: Duan et al. 2016 (RL2), section 2.2.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.rng import derive

REWARD_SCALE = 10.0
"""Rewards are told divided by it; Meta-World's are 0 to 10."""

EPISODE = "episode_of_trial"
"""The reset option, and the entry of `info`, that numbers the episodes of a trial from 0."""


class Feedback(gymnasium.Wrapper):
    """The observation with the last action, its reward over ten, and whether it ended the episode behind it.

    Zeros at the start of a trial. The first observation of a trial's later episodes tells of the last step of
    the episode before, whose reward nothing else would ever show: a reset with
    `options={"episode_of_trial": number}` above 0 says that the trial goes on.
    Source: Duan et al. 2016 (RL2), section 2.2; Meta-World's package, whose own wrapper has zeros at the
    start of every episode.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space, action = env.observation_space, env.action_space
        if not (isinstance(space, Box) and isinstance(action, Box) and len(space.shape) == 1):
            raise CapabilityError(f"feedback needs vectors, not observations {space} and actions {action}")
        self._told = np.zeros(action.shape[0] + 2, np.float32)
        added = np.full_like(self._told, np.inf)
        self.observation_space = Box(np.concatenate([space.low, -added]), np.concatenate([space.high, added]))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; of a trial's first there is nothing to tell yet."""
        if (options or {}).get(EPISODE):
            self._told[-1] = 1.0  # also where the episode was cut by whoever played it
        else:
            self._told = np.zeros_like(self._told)
        observation, info = self.env.reset(seed=seed, options=options)
        return np.concatenate([observation, self._told]), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, with what it was and led to behind the observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        led_to = [*action, float(reward) / REWARD_SCALE, float(terminated or truncated)]
        self._told = np.array(led_to, np.float32)
        return np.concatenate([observation, self._told]), float(reward), terminated, truncated, info


class Trials(gymnasium.Wrapper):
    """`episodes` episodes of `env` at one task, one after another, as one episode that then is over.

    All of a trial's episodes are reset with one seed and the same options: whatever of the task these
    determine (a goal, the place of an object) stays the same through the trial, as it does in Meta-World. The
    later ones are told their number too (`options={"episode_of_trial": number}`), from which an environment
    can draw what is to differ between them.

    An episode's end is not an end of the trial's return: the observation after it is the first of the next.
    The trial's end is: it terminates, also where its last episode was truncated, since what is maximised is
    the return of one trial, behind which nothing has any value. `info["episode_of_trial"]` counts from 0,
    `info["episode_success"]` says at an episode's last step whether any of its steps succeeded.
    """

    def __init__(self, env: gymnasium.Env, episodes: int) -> None:
        super().__init__(env)
        if episodes < 1:
            raise SettingError(f"trials of {episodes} episodes", expected="at least 1")
        self.episodes = episodes
        self._start: tuple[int, dict[str, Any]] = (0, {})
        self._seed, self._resets = 0, 0
        self._played, self._success = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a trial; without a seed, one derived from the last seed and the trials since."""
        if seed is None:
            self._resets += 1
            seed = derive(self._seed, "trial", self._resets)
        else:
            self._seed, self._resets = seed, 0
        self._start = seed, dict(options or {})
        self._played = 0
        observation, info = self._begin()
        return observation, info | {EPISODE: 0}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; where it ends an episode that is not the trial's last, the next has begun."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._success |= any(bool(info.get(key)) for key in ("success", "is_success"))
        info = info | {EPISODE: self._played}
        if not (terminated or truncated):
            return observation, reward, False, False, info
        info["episode_success"] = float(self._success)
        self._played += 1
        over = self._played == self.episodes
        if not over:
            observation, _ = self._begin()
        return observation, reward, over, False, info

    def _begin(self) -> tuple[Any, dict[str, Any]]:
        self._success = False
        seed, options = self._start
        if self._played:
            options = options | {EPISODE: self._played}
        return self.env.reset(seed=seed, options=options or None)

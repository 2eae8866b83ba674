"""Data of graded quality from one training run: what an agent did while it learnt, and at which stages.

As the D4RL data sets define them, for an agent that learns in the environment from nothing:

    random           uniformly random actions
    medium           the agent when it first reaches a third of the way from random to its best
    medium-replay    all that it did until then
    expert           the agent at its best
    medium-expert    as much of medium as of expert

Source: Fu et al. 2020, D4RL: Datasets for Deep Data-Driven Reinforcement Learning, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import each_part, stack
from policysmith.common.rng import numpy_generator
from policysmith.experience.collect import Recorded, record, succeeded
from policysmith.policies.acting import Expert

LEVELS = ("random", "medium", "medium-replay", "expert", "medium-expert")
MEDIUM = 1 / 3
"""The normalised score of a medium agent: 0 is random, 1 the agent at its best."""


@dataclass(frozen=True)
class Snapshot:
    """An agent at one time of its training.

    `steps`: those it had taken until then, in each of its environments; `mean_return`, and the `policy`.
    """

    steps: tuple[int, ...]
    mean_return: float
    policy: Any


def normalised(value: float, *, random: float, best: float) -> float:
    """Where a return lies between random (0) and the best (1); 0 where these are the same."""
    return (value - random) / (best - random) if best > random else 0.0


def medium_and_expert(history: Sequence[Snapshot], *, random_return: float) -> tuple[Snapshot, Snapshot]:
    """The medium and the expert agent of a training run, from its snapshots in order.

    Raises `DataError` where the agent never did better than random actions: there are no levels then.
    """
    expert = max(history, key=lambda snapshot: snapshot.mean_return)
    if expert.mean_return <= random_return:
        raise DataError(
            f"the agent's best mean return is {expert.mean_return:.4g}, and that of random actions "
            f"{random_return:.4g}",
            expected="an agent that learns something",
            cure="train longer, or with other settings",
        )
    medium = next(
        snapshot
        for snapshot in history
        if normalised(snapshot.mean_return, random=random_return, best=expert.mean_return) >= MEDIUM
    )
    return medium, expert


def record_steps(
    environment: gymnasium.Env, expert: Expert, *, steps: int, seed: int, limit: int | None = None
) -> Iterator[Recorded]:
    """Yield whole episodes of `expert` until there are `steps` steps, the last one cut to fit."""
    if steps < 1:
        raise SettingError(f"{steps} steps were asked for", expected="at least 1")
    left = steps
    # So many episodes are never needed: each has a step at least.
    for episode in record(
        environment, expert, episodes=steps, seed=seed, limit=limit, stop_on_success=False, most_attempts=1
    ):
        yield shortened(episode, left)
        left -= len(episode["action"])
        if left <= 0:
            return


def shortened(episode: Recorded, steps: int) -> Recorded:
    """The first `steps` steps of an episode, ended by a truncation where that leaves some out."""
    if len(episode["action"]) <= steps:
        return episode
    cut = {key: values[:steps] for key, values in episode.items() if key != "observation"}
    cut["truncated"] = np.append(cut["truncated"][:-1], True)
    return {"observation": each_part(episode["observation"], lambda part: part[: steps + 1])} | cut


class RandomActions:
    """An expert in nothing: uniformly random actions."""

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise SettingError(f"actions without limits ({space})", expected="a box with finite limits")
        self._space = space
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode, whose actions the seed determines."""
        self._rng = numpy_generator(seed or 0, "random actions")

    def act(self, observation: Any) -> np.ndarray:
        """Any action; of whole numbers where the space is."""
        low, high = self._space.low, self._space.high
        if np.issubdtype(self._space.dtype, np.integer):
            return self._rng.integers(low, high + 1)  # type: ignore[call-overload]
        return self._rng.uniform(low, high).astype(np.float32)


class Recorder(gymnasium.Wrapper):
    """Writes down everything that is done in an environment, whoever does it."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._finished: list[Recorded] = []
        self._rows: dict[str, list[Any]] = {}
        self.steps = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; one that had not ended is kept as cut off here."""
        self._finish()
        observation, info = self.env.reset(**options)
        self._rows = {"observation": [each_part(observation, np.array)]}
        self._rows |= {key: [] for key in ("action", "reward", "terminated", "truncated", "success")}
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, written down."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        values = (
            each_part(observation, np.array), np.array(action), reward, terminated, truncated, succeeded(info)
        )  # fmt: skip
        for rows, value in zip(self._rows.values(), values, strict=True):
            rows.append(value)
        self.steps += 1
        return observation, reward, terminated, truncated, info

    def until(self, steps: int) -> list[Recorded]:
        """The episodes of the first `steps` steps, the last one cut to fit."""
        self._finish()
        found = []
        for episode in self._finished:
            if steps <= 0:
                break
            found.append(shortened(episode, steps))
            steps -= len(episode["action"])
        return found

    def _finish(self) -> None:
        rows, self._rows = self._rows, {}
        if not rows or not rows["action"]:
            return
        seen = stack(rows.pop("observation"))
        episode: dict[str, Any] = {"observation": seen} | {
            key: np.asarray(values) for key, values in rows.items()
        }
        if not episode["terminated"][-1]:
            episode["truncated"][-1] = True
        self._finished.append(episode)

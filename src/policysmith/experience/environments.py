"""Several environments side by side, in this process or in processes of their own.

Both kinds step all environments at once and hand out arrays with a leading axis of environments. They know
nothing of episodes: who begins one, with which seed, is `experience.interaction`'s business. A worker process
that dies is started again, and the rows it had are reported as lost for whoever keeps the episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.observations import Seen
from policysmith.common.spaces import ActionSpace

Maker = Callable[[], gymnasium.Env]
"""Makes one environment."""


@dataclass
class Steps:
    """What one step of every environment gave.

    `observation`: per environment, the one after the step; `reward` [env] or [env, objective]; `info`: the
    environments' own. `lost`: environments whose worker died; their other entries mean nothing.
    """

    observation: list[Seen]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: list[Mapping[str, Any]]
    lost: list[int] = field(default_factory=list)


class Environments(Protocol):
    """Environments side by side."""

    count: int
    observation_space: gymnasium.Space
    action_space: gymnasium.Space

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Seen]:
        """Begin an episode in each environment that has a seed; their first observations."""
        ...

    def step(self, actions: np.ndarray) -> Steps:
        """One step of every environment, `actions` [env, action]."""
        ...

    def close(self) -> None:
        """Let go of all environments."""
        ...


class InThisProcess:
    """Environments that are stepped one after another; the fastest where a step costs microseconds."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        if not makers:
            raise SettingError("no environments were asked for", expected="at least one")
        self.environments = [make() for make in makers]
        self.count = len(self.environments)
        self.observation_space = self.environments[0].observation_space
        self.action_space = self.environments[0].action_space
        for number, environment in enumerate(self.environments):
            check_same(self, environment.observation_space, environment.action_space, number)
        self._step = [environment.step for environment in self.environments]

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Seen]:
        """See `Environments`."""
        return {
            row: begun(self.environments[row].reset(seed=seed), self.environments[row])
            for row, seed in seeds.items()
        }

    def step(self, actions: np.ndarray) -> Steps:
        """See `Environments`."""
        found = [step(action) for step, action in zip(self._step, actions, strict=True)]
        try:
            observation, reward, terminated, truncated, info = zip(*found, strict=True)
        except ValueError:
            raise _wrong_step(found[0]) from None
        return Steps(
            list(observation),
            np.array(reward, dtype=np.float32),
            np.array(terminated, dtype=bool),
            np.array(truncated, dtype=bool),
            list(info),
        )

    def close(self) -> None:
        """See `Environments`."""
        for environment in self.environments:
            environment.close()


def begun(answer: Any, environment: gymnasium.Env) -> Seen:
    """The observation of a `reset`; `CapabilityError` where it does not keep Gymnasium's rules."""
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        raise CapabilityError(
            f"reset() of {environment} returned {type(answer).__name__}",
            expected="(observation, info), as Gymnasium's environments do",
            cure="see gymnasium.utils.env_checker.check_env",
        )
    return answer[0]


def _wrong_step(answer: Any) -> CapabilityError:
    size = f" of {len(answer)}" if isinstance(answer, tuple) else ""
    return CapabilityError(
        f"step() returned a {type(answer).__name__}{size}",
        expected="(observation, reward, terminated, truncated, info), as Gymnasium's environments do",
        cure="see gymnasium.utils.env_checker.check_env; old environments: gymnasium's shimmy package",
    )


def check_same(environments: Any, observation: gymnasium.Space, action: gymnasium.Space, number: int) -> None:
    """Raise `CapabilityError` where environment `number` has other spaces than the first."""
    for what, mine, theirs in (
        ("observations", environments.observation_space, observation),
        ("actions", environments.action_space, action),
    ):
        alike = mine.shape == theirs.shape and type(mine) is type(theirs)
        if not alike or (what == "actions" and ActionSpace.of(mine) != ActionSpace.of(theirs)):
            raise CapabilityError(
                f"environment {number} has {what} {theirs}",
                expected=f"{mine}, as the first one has",
                cure="environments that are stepped together need the same spaces",
            )

"""Demonstrations by description: which environment, which expert, how many, with what noise.

The same description gives the same episodes, so recordings are kept by their description and made once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError
from policysmith.common.named import load_named
from policysmith.experience.collect import Recorded, record
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import load_episodes, save_episodes
from policysmith.policies.acting import Expert
from policysmith.worlds import registry


@dataclass(frozen=True)
class Demonstrations:
    """What is to be recorded; noise is in units of the action (see `experience.collect`)."""

    environment: str
    episodes: int = 100
    seed: int = 0
    action_noise: float = 0.0
    system_noise: float = 0.0
    limit: int | None = None
    only_successful: bool = True
    expert: str = ""
    """`package.module:name` of an expert (a function of the observation, or an object with `act`); empty for
    the scripted expert that comes with the environment"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """what the environment is made with besides its name, as plain data: `pictures`, say"""

    @property
    def description(self) -> dict[str, Any]:
        """This description as plain data; without `options` where there are none."""
        return {name: value for name, value in asdict(self).items() if name != "options" or value}

    def make(self, **keywords: Any) -> gymnasium.Env:
        """The environment, with the options and further `keywords`."""
        return registry.make(self.environment, **self.options, **keywords)

    def record(self) -> Iterator[Recorded]:
        """Record, yielding one episode after another."""
        environment = self.make()
        try:
            yield from record(
                environment,
                self.find_expert(environment),
                episodes=self.episodes,
                seed=self.seed,
                action_noise=self.action_noise,
                system_noise=self.system_noise,
                limit=self.limit,
                only_successful=self.only_successful,
            )
        finally:
            environment.close()

    def find_expert(self, environment: Any) -> Expert:
        """The expert that `expert` names, or the environment's own; an error where there is none.

        It acts on the environment's whole observation, also where cameras were added to it.
        """
        if self.expert:
            return registry.seeing(load_expert(self.expert), environment)
        expert = registry.expert(self.environment, environment)
        if expert is None:
            raise CapabilityError(
                f"no scripted expert is known for '{self.environment}'",
                cure="give one (--expert package.module:name) or demonstrations of your own (--data FOLDER)",
            )
        return expert

    def save(self, recorded: list[Recorded], folder: Path) -> Episodes:
        """Write what was recorded into `folder` as a Minari data set, and return it."""
        environment = self.make()
        episodes = Episodes.from_arrays(recorded, provenance=self.description)
        save_episodes(episodes, folder, action_space=environment.action_space)  # type: ignore[arg-type]
        environment.close()
        return episodes

    def path(self, folder: Path) -> Path:
        """Where a recording of this description is kept under `folder`."""
        text = json.dumps(self.description, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.environment.replace("/", "-").replace(":", "-")
        return folder / "data" / f"{name}-{self.episodes}-{key}"

    def load(self, folder: Path) -> Episodes | None:
        """The kept recording, or None where there is none yet."""
        path = self.path(folder)
        return load_episodes(path) if path.is_dir() else None


def load_expert(name: str) -> Expert:
    """The expert at `package.module:name`; a plain function of the observation is wrapped."""
    found = load_named(name, what="expert")
    if isinstance(found, type):
        found = found()
    if hasattr(found, "act"):
        return found
    if callable(found):
        return _Function(found)
    raise CapabilityError(
        f"'{name}' is neither a function of the observation nor an object with `act`",
    )


class _Function:
    def __init__(self, function: Any) -> None:
        self.function = function

    def reset(self, seed: int | None = None) -> None:
        """A function remembers nothing."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The function's answer."""
        return self.function(observation)

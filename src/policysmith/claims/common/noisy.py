"""Tasks that are demonstrated with noise in the policy or in the world, and played in a noisy world.

The two kinds of noise have one scale per task, so that equal numbers are equal pushes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gymnasium

from policysmith.claims.common.imitation import Task
from policysmith.experience.demonstrations import Demonstrations
from policysmith.worlds import registry
from policysmith.worlds.noise import SystemNoise
from policysmith.worlds.obstacle import STEP_LENGTH

NoiseKind = Literal["clean", "system", "policy"]
MakeNoisy = Callable[[float], Callable[[], gymnasium.Env]]
"""Noise level -> what makes the environment with it."""


@dataclass(frozen=True)
class NoisyTask:
    """A task with the ways in which it is demonstrated and the noise under which policies are played.

    - `trained`: (kind, level) of each collection; `played`: levels of system noise.
    - `state`: the dimensions of the observation that say where things are.
    - `scale`: actions per unit of noise; `in_world` True where the environment itself makes the noise.
    """

    name: str
    trained: tuple[tuple[NoiseKind, float], ...]
    played: tuple[float, ...]
    limit: int
    state: tuple[int, ...]
    scale: float = 1.0
    in_world: bool = False

    def collection(self, kind: NoiseKind, level: float, *, episodes: int, seed: int) -> Task:
        """Successful demonstrations with noise of one kind."""
        pushed = kind == "system"
        return Task(
            Demonstrations(
                self.name,
                episodes=episodes,
                seed=seed,
                action_noise=self.scale * level if kind == "policy" else 0.0,
                system_noise=level if pushed and not self.in_world else 0.0,
                limit=self.limit,
                options={"sigma_system": level} if pushed and self.in_world else {},
            ),
            limit=self.limit,
        )

    def maker(self, *, rows: int = 25) -> MakeNoisy:
        """What makes the environment at a level; no more than `rows` are built, and used in turn.

        A simulator takes far longer to build than to reset, and hundreds of policies are played.
        """
        if self.in_world:
            return lambda level: lambda: registry.make(self.name, sigma_system=level)
        kept: list[gymnasium.Env] = []
        again = itertools.cycle(range(rows))

        def make() -> gymnasium.Env:
            if len(kept) < rows:
                kept.append(registry.make(self.name))
                return kept[-1]
            return kept[next(again)]

        return lambda level: lambda: SystemNoise(make(), level)

    @property
    def short_name(self) -> str:
        """The name without the package."""
        return self.name.rpartition("/")[2]


OBSTACLE = NoisyTask(
    "point-obstacle",
    trained=tuple((kind, level) for level in (0.01, 0.02, 0.03) for kind in ("system", "policy")),
    played=(0.01, 0.02, 0.03),
    limit=200,
    state=(0, 1),
    scale=1 / STEP_LENGTH,
    in_world=True,
)
ARM_TASKS = tuple(
    NoisyTask(
        f"metaworld/{name}",
        trained=(("clean", 0.0), ("system", 0.3), ("policy", 0.3)),
        played=(0.0, 0.3),
        limit=150,
        # The hand, its opening, and the first object.
        state=tuple(range(11)),
    )
    for name in ("drawer-open-v3", "door-open-v3", "button-press-topdown-v3")
)

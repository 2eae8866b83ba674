"""IWOCS: a robust policy from ordinary runs, each in the world where the policy so far does worst.

What a policy will meet, masses and friction say, is known to lie in a box. Instead of a game against an
adversary, IWOCS repeats two ordinary jobs:

    solve:   SAC in the world T_i -> actor pi_i, critic Q_i without entropy, predictor, threshold rho_i
    search:  T_{i+1} = argmin_{T in box} return of the acting rule in T        (CMA-ES; on a grid: IWOCS*)

    acting rule:  a = pi_{j*}(s),  j* = argmin_{valid j} Q_j(s, pi_j(s))        (`policies.pessimistic`)

A default policy, trained in worlds drawn at random, gives the first worst world and acts where no critic is
valid. Unlike domain randomisation, experience is gathered where the present policy fails; unlike adversarial
methods, no training is a game. The world is fixed for a whole episode.

Zouitine, Bertoin, Clavier, Geist and Rachelson 2024, "Solving robust MDPs as a sequence of static RL
problems", arXiv:2410.06212. Sets of tables are solved exactly, by
`objectives.worst_case.incremental_worst_case_search`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from jaxtyping import Float

from policysmith.common.errors import SettingError
from policysmith.common.rng import derive
from policysmith.evaluation.robustness import over_grid
from policysmith.experience.environments import Maker
from policysmith.experience.makers import makers_of
from policysmith.policies.pessimistic import PessimisticPolicy, WorldExpertise
from policysmith.training.learners.robust import (
    REPEATED,
    RobustState,
    blank_result,
    expertise_of,
    solve,
)
from policysmith.training.learners.sac import SacSettings
from policysmith.training.loop import Progress, RunState
from policysmith.training.search import Found, cmaes_search, grid_search
from policysmith.worlds.physics import RandomPhysics, robust_box, with_physics, without_effect
from policysmith.worlds.uncertainty import UncertaintyBox


@dataclass(frozen=True)
class Config:
    """Defaults of the paper (table 5, appendices G and H), for two uncertain parameters.

    - `sac`: of every run; its `environment_steps` are set by the next two. The paper's Adam has an epsilon
      of 1e-5, ours PyTorch's 1e-8.
    - `default_steps`, `steps_per_world`: environment steps of the default policy and in each of `worlds`.
    - `parameters`, `low`, `high`: the box; where nothing is said, the published one of the task, of its first
      `dimensions` parameters.
    - `search`: "cmaes" with `population` points in each of `generations`, or "grid" with `grid_points` values
      per parameter (IWOCS*); `search_episodes`: played in every world that is tried (ours: the paper does
      not say).
    - `thresholds`: the rho that are tried, once per world; the one whose worst world is best is kept.
    """

    sac: SacSettings = field(default_factory=lambda: SacSettings(critic_learning_rate=1e-3))
    default_steps: int = 1_600_000
    steps_per_world: int = 800_000
    worlds: int = 3
    parameters: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dimensions: int = 2
    search: Literal["cmaes", "grid"] = "cmaes"
    population: int = 100
    generations: int = 6
    grid_points: int = 10
    search_episodes: int = 1
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    checkpoint_every: ClassVar[int] = SacSettings.checkpoint_every
    """Steps between checkpoints, where nobody says otherwise: the replay is in each."""
    log_every: ClassVar[int] = SacSettings.log_every
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        if self.worlds < 1 or self.search_episodes < 1:
            raise SettingError(
                f"{self.worlds} worlds, searched with {self.search_episodes} episodes each",
                expected="at least 1",
            )
        if self.sac.n_step != 1:
            raise SettingError(f"n_step is {self.sac.n_step}", expected="1: what is predicted is one step")
        if not self.thresholds or not all(threshold >= 0 for threshold in self.thresholds):
            raise SettingError(f"the thresholds are {self.thresholds}", expected="some, each 0 or more")

    def of_run(self, number: int) -> SacSettings:
        """The settings of the default's run (0) and of those in the worlds after it."""
        return replace(self.sac, environment_steps=self.steps_per_world if number else self.default_steps)

    @property
    def steps(self) -> int:
        """Steps of all runs together."""
        return sum(self.of_run(number).steps for number in range(self.worlds + 1))


PRESETS = {
    "paper": Config(),
    "bench": Config(
        sac=SacSettings(
            random_steps=500,
            every=4,
            batch_size=128,
            hidden=(64, 64),
            replay_capacity=50_000,
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            temperature_learning_rate=1e-3,
            initial_temperature=0.1,
            rate=0.1,
        ),
        default_steps=8000,
        steps_per_world=6000,
        worlds=2,
        population=10,
        generations=3,
        search_episodes=2,
        thresholds=(0.05, 0.2, 1.0),
    ),
    "tiny": Config(
        sac=SacSettings(random_steps=8, batch_size=8, hidden=(8,), replay_capacity=100, every=4),
        default_steps=16,
        steps_per_world=16,
        worlds=1,
        parameters=("step length",),
        low=(0.05,),
        high=(0.2,),
        search="grid",
        grid_points=3,
        thresholds=(0.05, 0.5),
    ),
}
"""The paper's; a laptop's, for a task as small as InvertedPendulum; and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn a policy for every world of the box; `environment` is a name, or a function that makes one.

    `progress.state.policy()` is the acting rule so far (a `PessimisticPolicy`). Metrics are those of the
    present run, and `worst_return`, the lowest return that the last search found. The sequence ends early
    where the worst world is one that was solved before. A parameter that changes nothing is warned of.
    """
    make = makers_of(environment, 2)[0]
    box = uncertain(make, config)
    if state is None and (deaf := without_effect(partial(in_world, make), box, seed=seed)):
        warnings.warn(f"uncertainty parameter has no effect: {', '.join(deaf)}", stacklevel=2)
    return _Sequence(make, box, config, seed, state).run()


class _Sequence:
    """Runs and searches in turn; what has to survive a restart is in `state`."""

    def __init__(
        self,
        make: Maker,
        box: UncertaintyBox,
        config: Config,
        seed: int,
        state: RunState | Mapping[str, Any] | None,
    ) -> None:
        self.make, self.box, self.config, self.seed = make, box, config, seed
        blank = partial(blank_result, make, config.sac)
        self.state = RobustState(learners={}, parameters=box.names, blank=blank)
        self.state.restored(state)

    def run(self) -> Iterator[Progress]:
        """The default's run, and those in one worst world after another."""
        state, config = self.state, self.config
        while len(state.finished) <= config.worlds and state.phase != REPEATED:
            number = len(state.finished)
            for now in self._solve(number, state.inner):
                state.inner, state.step, state.inexact = now.state, state.step + 1, now.state.inexact
                if now.step == now.total:
                    self._settle(number)
                ended = state.phase == REPEATED
                metrics = now.metrics | ({"worst_return": state.worst[-1]} if state.worst else {})
                yield Progress(state.step, state.step if ended else config.steps, metrics, now.seconds, state)

    def _solve(self, number: int, state: RunState | Mapping[str, Any] | None) -> Iterator[Progress]:
        return solve(
            self._world(number),
            settings=self.config.of_run(number),
            seed=derive(self.seed, "world", number),
            state=state,
        )

    def _world(self, number: int) -> Maker:
        """What the n-th run takes place in."""
        if number == 0:
            return partial(at_random, self.make, self.box)
        return partial(in_world, self.make, self.box.named(self.state.points[number - 1]))

    def _settle(self, number: int) -> None:
        """Take what the run has come to into the rule, and find the world in which that does worst."""
        state = self.state
        assert isinstance(state.inner, RunState)
        if number == 0:
            state.finished.append(state.inner.policy())
            found = self._worst_world(state.policy())
        else:
            expertise = expertise_of(state.inner, state.points[-1])
            found = self._with_best_threshold(expertise)
            state.finished.append(expertise)
        interaction: Any = state.inner.sources["interaction"]
        interaction.close()
        state.worst.append(found.value)
        state.inner = None
        point = tuple(map(float, found.point))
        if any(np.allclose(point, before, rtol=1e-6) for before in state.points):
            state.phase = REPEATED  # solving it again would change nothing
        state.points.append(point)

    def _with_best_threshold(self, expertise: WorldExpertise) -> Found:
        """Set the threshold with which the rule does best in its worst world; the search that says so."""
        tried: list[Found] = []
        for threshold in self.config.thresholds:
            expertise.threshold.fill_(threshold)
            tried.append(self._worst_world(self.state.policy(expertise)))
        best = int(np.argmax([found.value for found in tried]))
        expertise.threshold.fill_(self.config.thresholds[best])
        return tried[best]

    def _worst_world(self, policy: PessimisticPolicy) -> Found:
        """Search the box; every world is played from the same seeds, and every rule on the same draws."""
        config = self.config
        starts = [derive(self.seed, "search", i) for i in range(config.search_episodes)]

        def mean_return(points: Float[np.ndarray, "point parameter"]) -> Float[np.ndarray, "point"]:
            worlds = [self.box.named(point) for point in points]
            return over_grid(policy, partial(in_world, self.make), worlds, seeds=starts).mean

        if config.search == "grid":
            return grid_search(mean_return, self.box, points=config.grid_points)
        return cmaes_search(
            mean_return,
            self.box,
            population=config.population,
            generations=config.generations,
            seed=derive(self.seed, "cmaes", len(self.state.finished)),
        )


def in_world(make: Maker, parameters: Mapping[str, float]) -> gymnasium.Env:
    """What `make` makes, in the world that the parameters describe."""
    return with_physics(make(), parameters)


def at_random(make: Maker, box: UncertaintyBox) -> gymnasium.Env:
    """What `make` makes, in worlds drawn from the box."""
    return RandomPhysics(make(), box)


def uncertain(make: Maker, config: Config) -> UncertaintyBox:
    """The box of a configuration: its own, or the published one of the task."""
    if config.parameters or config.low or config.high:
        return UncertaintyBox.of(config.parameters, config.low, config.high)
    env = make()
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    env.close()
    return robust_box(name, dimensions=config.dimensions)

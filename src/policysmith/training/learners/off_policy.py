"""The off-policy loop: act a little, keep what was seen, learn from draws of everything that was kept.

    collect:  `every` steps in each environment into `store`; then `updates` minibatches from `source`
    update:   `update_once` on each of them

`explore` says what is done for an observation, `store` keeps it, and `source` is anything that can be drawn
from: the store itself, a mixture with demonstrations, hindsight, transitions that a model made up. `label`
changes what was drawn before it is learnt from (rewards that are learnt meanwhile); then its pictures are
moved by a few pixels, so that critics do not learn them by heart. Learning from data alone is the same
without acting, and from data first and experience after it with `pretraining`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import Observation, to_tensors
from policysmith.common.rng import generator, numpy_generator
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Replay, Source, Transitions
from policysmith.networks.vision import shifted
from policysmith.training.learner import Learner
from policysmith.training.loop import Progress, RunState, Stateful, run

Explore = Callable[[Observation, torch.Generator], Tensor]
"""Observations [env, ...] -> what is done for the sake of learning."""

UpdateOnce = Callable[[RunState, Transitions, int], dict[str, float]]
"""(state, minibatch, its number since the run began) -> metrics."""

Label = Callable[[Transitions], Transitions]
"""A drawn minibatch -> the minibatch that is learnt from."""


@dataclass(frozen=True)
class OffPolicySettings:
    """What every off-policy run needs; a system's configuration says where its values are from.

    - `environment_steps`: of all environments together; `processes`: workers that step them, 0 for none.
    - `random_steps`: of uniformly random actions at first, during which nothing is learnt.
    - `updates` minibatches of `batch_size` after every `every` steps of each environment.
    - `replay_capacity`, `n_step`, `discount`: of what is kept and drawn.
    - `shift`: pictures are moved by up to so many pixels whenever they are drawn (DrQ: 4 of 84); 0: never.
    """

    environment_steps: int = 1_000_000
    environments: int = 1
    processes: int = 0
    random_steps: int = 10_000
    every: int = 1
    updates: int = 1
    batch_size: int = 256
    replay_capacity: int = 1_000_000
    n_step: int = 1
    discount: float = 0.99
    shift: int = 4

    checkpoint_every: ClassVar[int] = 10_000
    """Steps between checkpoints, where nobody says otherwise: the replay is in each."""
    log_every: ClassVar[int] = 250
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        counts = ("environments", "every", "updates", "batch_size", "replay_capacity", "n_step")
        for name in ("environment_steps", *counts):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("random_steps", "shift"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.discount <= 1:
            raise SettingError(f"discount is {self.discount}", expected="0 to 1")

    @property
    def steps(self) -> int:
        """Steps of the run, each of `every` steps in every environment."""
        return math.ceil(self.environment_steps / (self.environments * self.every))

    def replay(self) -> Replay:
        """The replay that the settings describe."""
        return Replay(
            self.replay_capacity, columns=self.environments, n_step=self.n_step, discount=self.discount
        )


@dataclass(frozen=True)
class OfflineSettings:
    """What every run on data alone needs: `steps` minibatches of `batch_size`, and the `discount`."""

    steps: int = 1_000_000
    batch_size: int = 256
    discount: float = 0.99

    checkpoint_every: ClassVar[int] = 10_000
    """Steps between checkpoints, where nobody says otherwise."""
    log_every: ClassVar[int] = 250
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 <= self.discount <= 1:
            raise SettingError(f"discount is {self.discount}", expected="0 to 1")


class Acting:
    """Steps in the environments that go into a store: random ones first, then what `explore` says."""

    def __init__(
        self,
        interaction: Interaction,
        store: Replay,
        explore: Explore,
        *,
        random_steps: int,
        rng: torch.Generator,
        seed: int,
    ) -> None:
        self.interaction, self.store, self.explore = interaction, store, explore
        self.random_steps, self.rng, self.seed = random_steps, rng, seed

    @torch.no_grad()
    def step(self) -> None:
        """One step of every environment."""
        interaction = self.interaction
        interaction.start()
        before = interaction.tensors
        if interaction.count < self.random_steps:
            action = torch.from_numpy(self._anything())
        else:
            action = self.explore(before, self.rng)
        found = interaction.step(action.numpy())
        self.store.add(
            {
                "observation": before,
                "action": action,
                "reward": torch.from_numpy(found.reward),
                "next_observation": to_tensors(found.next_observation, [interaction.rows]),
                "terminated": torch.from_numpy(found.terminated),
                "truncated": torch.from_numpy(found.truncated),
            },
            lost=found.lost,
        )

    def _anything(self) -> np.ndarray:
        """Uniform over the action space, from a generator that the step's number determines."""
        space, rows = self.interaction.action_space, self.interaction.rows
        draw = numpy_generator(self.seed, "random", self.interaction.count)
        if space.discrete:
            return draw.integers(0, space.choices, (rows, space.size))
        return draw.uniform(space.low, space.high, (rows, space.size)).astype(np.float32)


def off_policy_run(
    *,
    learners: dict[str, Learner],
    targets: dict[str, Stateful],
    interaction: Interaction,
    explore: Explore,
    update_once: UpdateOnce,
    settings: OffPolicySettings,
    seed: int,
    store: Replay | None = None,
    source: Source | None = None,
    label: Label = lambda batch: batch,
    pretraining: int = 0,
    before_step: Callable[[RunState], dict[str, float]] = lambda state: {},
    sources: Mapping[str, Stateful] | None = None,
    generators: Mapping[str, torch.Generator] | None = None,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn by acting, and from what was kept; see the module's own words for the seams.

    `pretraining`: so many steps at first that only learn, from what `source` holds already. `before_step` is
    called at the beginning of every step with the state (to refill a source, say); its numbers are among the
    metrics. `sources` and `generators` are further things to save with the run.
    """
    store = settings.replay() if store is None else store
    source = store if source is None else source
    acting = Acting(
        interaction,
        store,
        explore,
        random_steps=settings.random_steps,
        rng=generator(seed, "exploration"),
        seed=seed,
    )
    draws = generator(seed, "minibatches")
    run_state = RunState(
        learners=learners,
        generators={"exploration": acting.rng, "minibatches": draws, **(generators or {})},
        sources={"interaction": interaction, "replay": store, **(sources or {})},
        targets=targets,
    ).restored(state)

    def collect(state: RunState) -> tuple[dict[str, float], list[Transitions]]:
        noted = before_step(state)
        learns = state.step < pretraining
        if not learns:
            for _ in range(settings.every):
                acting.step()
            learns = interaction.count > settings.random_steps
        count = settings.updates if learns and len(source) else 0
        return noted, [minibatch(source, settings, draws, label=label) for _ in range(count)]

    def update(state: RunState, collected: tuple[dict[str, float], list[Transitions]]) -> dict[str, float]:
        noted, batches = collected
        metrics = learn(state, batches, update_once)
        return metrics | noted | interaction.metrics()

    return run(run_state, collect=collect, update=update, steps=pretraining + settings.steps)


def minibatch(
    source: Source, settings: OffPolicySettings, rng: torch.Generator, *, label: Label = lambda batch: batch
) -> Transitions:
    """Rows of `source` to learn from: labelled as they were seen, then their pictures shifted.

    Each row's are, before and after its action, by an amount of their own. Source: Yarats et al. 2021 (DrQ),
    section 3.1.
    """
    batch = label(source.sample(settings.batch_size, rng))
    if settings.shift == 0 or isinstance(batch["observation"], Tensor):
        return batch
    seen = ("observation", "next_observation")
    return batch | {key: shifted(batch[key], pad=settings.shift, rng=rng) for key in seen}


def learn(state: RunState, batches: list[Transitions], update_once: UpdateOnce) -> dict[str, float]:
    """`update_once` on each batch; the means of what it measured, each over the batches that measured it."""
    found: dict[str, list[float]] = {}
    first = state.learners["critic"].steps if "critic" in state.learners else state.learners["policy"].steps
    for number, batch in enumerate(batches):
        for name, value in update_once(state, batch, first + number).items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def offline_run(
    *,
    learners: dict[str, Learner],
    targets: dict[str, Stateful],
    source: Source,
    update_once: UpdateOnce,
    settings: OfflineSettings,
    seed: int,
    label: Label = lambda batch: batch,
    generators: Mapping[str, torch.Generator] | None = None,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from what `source` holds, and never act; `generators` are further ones to save with the run."""
    if len(source) < 1:
        raise DataError("there are no transitions to learn from", expected="at least one")
    draws = generator(seed, "minibatches")
    run_state = RunState(
        learners=learners, generators={"minibatches": draws, **(generators or {})}, targets=targets
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: [label(source.sample(settings.batch_size, draws))],
        update=lambda state, batches: learn(state, batches, update_once),
        steps=settings.steps,
    )


def check_transitions(episodes: Episodes, *, low: Any, high: Any) -> None:
    """Raise `DataError` where actions are outside the limits, naming the worst, its episode and its step.

    Rewards that are not finite have been refused when the episodes were read.
    """
    action = episodes.steps["action"]
    beyond = torch.maximum(action - torch.as_tensor(high), torch.as_tensor(low) - action)
    worst = float(beyond.max())
    if worst > 1e-5:
        step = int(beyond.amax(1).argmax())
        episode = int((episodes.starts <= step).sum()) - 1
        raise DataError(
            f"an action reaches {float(action[step][beyond[step].argmax()]):.4g}",
            where=f"episode {episode}, step {step - int(episodes.starts[episode])}",
            expected=f"within {list(low)} and {list(high)}",
            cure="rescale the actions, or give the limits they were recorded with",
        )

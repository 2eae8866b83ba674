"""The off-policy loop with an actor that does not wait: acting and learning go on at the same time.

    actor   one step after another, with the weights that were published last
    step    take in what has come; `updates` minibatches; publish every so often

The seams are those of `off_policy`. A step of the run is one of the learner's; how many of the environment's
fall on it is a matter of the clock, and a resumed run does not repeat the same numbers.

Source: Luo et al. 2024 (SERL), section IV-D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Replay, Source, Transitions
from policysmith.training.asynchronous import INEXACT, AsynchronousActor
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import (
    Acting,
    Label,
    OffPolicySettings,
    UpdateOnce,
    learn,
    minibatch,
)
from policysmith.training.loop import Progress, RunState, Stateful, run


@dataclass(frozen=True)
class Beside:
    """How actor and learner stand to each other.

    - `learner_steps`: of the run, each of the settings' `updates` minibatches.
    - `training_starts`: steps that have to have come before the learner begins.
    - `publish_every`: learner's steps between two publications of the weights.
    - `rate`: the actor's steps per second, None for as fast as it goes; `ahead`: steps it may be ahead.
    """

    learner_steps: int = 10_000
    training_starts: int = 300
    publish_every: int = 30
    rate: float | None = 10.0
    ahead: int = 1000

    def __post_init__(self) -> None:
        for name in ("learner_steps", "training_starts", "publish_every", "ahead"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if self.rate is not None and not self.rate > 0:
            raise SettingError(f"rate is {self.rate}", expected="above 0, or None")


class _Kept:
    """Stands where `Acting` has a replay, and keeps a step for the learner to take."""

    step: tuple[Transitions, list[int]]

    def add(self, step: Transitions, *, lost: Any = ()) -> None:
        """Keep the newest."""
        self.step = (step, list(lost))


def asynchronous_run(
    *,
    learners: dict[str, Learner],
    targets: dict[str, Stateful],
    interaction: Interaction,
    update_once: UpdateOnce,
    settings: OffPolicySettings,
    beside: Beside,
    seed: int,
    store: Replay,
    source: Source,
    label: Label = lambda batch: batch,
    before_step: Callable[[RunState], dict[str, float]] = lambda state: {},
    generators: Mapping[str, torch.Generator] | None = None,
    state: RunState | Mapping[str, Any] | None = None,
    explore: Any = None,
) -> Iterator[Progress]:
    """Learn from what an actor beside the learner plays; the arguments are those of `off_policy_run`.

    The actor draws from the policy that was published last, whatever `explore` says.
    """
    kept = _Kept()
    acting = Acting(
        interaction,
        kept,  # type: ignore[arg-type]
        lambda observation, rng: observation,
        random_steps=settings.random_steps,
        rng=generator(seed, "exploration"),
        seed=seed,
    )

    def play(policy: Any) -> tuple[Transitions, list[int]]:
        acting.explore = lambda observation, rng: policy.draw(observation, rng)[0]
        acting.step()
        return kept.step

    policy = learners["policy"]
    actor = AsynchronousActor(
        policy.module, play, interaction=interaction, rate=beside.rate, ahead=beside.ahead
    )
    draws = generator(seed, "minibatches")
    run_state = RunState(
        learners=learners,
        generators={"minibatches": draws, **(generators or {})},
        sources={"actor": actor, "replay": store},
        targets=targets,
    ).restored(state)
    run_state.inexact = INEXACT
    actor.publish(policy.module)

    def collect(state: RunState) -> tuple[dict[str, float], list[Transitions]]:
        missing = beside.training_starts - store.written * store.columns
        for step, lost in actor.take(max(0, missing) // store.columns):
            store.add(step, lost=lost)
        noted = before_step(state)
        return noted, [minibatch(source, settings, draws, label=label) for _ in range(settings.updates)]

    def update(state: RunState, collected: tuple[dict[str, float], list[Transitions]]) -> dict[str, float]:
        noted, batches = collected
        metrics = learn(state, batches, update_once)
        if (state.step + 1) % beside.publish_every == 0:
            actor.publish(policy.module)
        return metrics | noted | actor.metrics()

    def driven() -> Iterator[Progress]:
        try:
            yield from run(run_state, collect=collect, update=update, steps=beside.learner_steps)
        finally:
            actor.close()

    return driven()

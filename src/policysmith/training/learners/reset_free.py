"""Learning without resets: two agents take turns, the one undoing what the other does.

    forward   until its task is done, or its time is up
    backward  until everything is back, or its time is up
    forward   ...

Each has its own demonstrations, replay, learners and judge of success; the environment goes on through all
of it. An agent's episode ends (`terminated`) where its own judge sees success, and is cut where its time is
up. Both learn at every step that is played, from what they have seen so far.

Source: Luo et al. 2024 (SERL), section IV-C; Eysenbach et al. 2018, "Leave no trace".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation, to_tensors
from policysmith.common.rng import derive, generator, numpy_generator
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Replay, Transitions, replay_of
from policysmith.training.learners.off_policy import learn, minibatch
from policysmith.training.learners.rlpd import (
    RlpdLearners,
    RlpdSettings,
    check_demonstrations,
    check_shown,
    with_demonstrations,
)
from policysmith.training.loop import Progress, RunState, run

Judge = Callable[[Observation], Bool[Tensor, "row"]]
"""Observations -> whether the task is done in them: a classifier's `says`, or a rule."""


@dataclass(frozen=True)
class Way:
    """One of the two directions: who judges it, how long a turn may last, and how it is demonstrated."""

    done: Judge
    limit: int
    demonstrations: Episodes | None = None

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise SettingError(f"a turn of {self.limit} steps", expected="at least 1")


class Turns:
    """Whose turn it is, for how many steps, and how the turns of each went."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.ways = ways
        self.now, self.steps = 0, 0
        self.turns, self.successes = [0, 0], [0, 0]

    def take(self, done: bool) -> tuple[bool, bool]:
        """One step; whether it ended the turn by success, and whether by its limit."""
        self.steps += 1
        cut = not done and self.steps >= self.ways[self.now].limit
        if done or cut:
            self.turns[self.now] += 1
            self.successes[self.now] += done
            self.now, self.steps = 1 - self.now, 0
        return done, cut

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"now": self.now, "steps": self.steps, "turns": self.turns, "successes": self.successes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.now, self.steps = int(state["now"]), int(state["steps"])
        self.turns, self.successes = list(state["turns"]), list(state["successes"])


NAMES = ("forward", "backward")


def reset_free_run(
    interaction: Interaction,
    ways: tuple[Way, Way],
    *,
    settings: RlpdSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn both ways in one environment that is never reset between them.

    The environment's own reward is not looked at. Where it ends an episode all the same (a watchdog, a fall),
    the turn goes on in the next one. The forward agent is the learner `policy`, the backward one
    `backward_policy`. Raises `SettingError` for more than one environment.
    """
    if interaction.rows != 1:
        raise SettingError(f"{interaction.rows} environments without resets", expected="one")
    space, action = interaction.environments.observation_space, interaction.action_space
    agents, stores, demonstrated = [], [], []
    for name, way in zip(NAMES, ways, strict=True):
        shown = way.demonstrations
        if shown is not None:
            check_demonstrations(shown, low=action.low, high=action.high)
            check_shown(shown.steps["observation"], space)
        seen = None if shown is None else shown.steps["observation"]
        agents.append(RlpdLearners(space, action, settings, seed=derive(seed, name), demonstrations=seen))
        stores.append(Replay(settings.replay_capacity, discount=settings.discount))
        demonstrated.append(None if shown is None else replay_of(shown))
    sources = [
        with_demonstrations(store, shown, settings.demonstration_share)
        for store, shown in zip(stores, demonstrated, strict=True)
    ]
    turns, rng, draws = Turns(ways), generator(seed, "exploration"), generator(seed, "minibatches")
    run_state = RunState(
        learners={
            name if number == 0 else f"backward_{name}": learner
            for number, agent in enumerate(agents)
            for name, learner in agent.learners.items()
        },
        generators={
            "exploration": rng,
            "minibatches": draws,
            "forward": agents[0].rng,
            "backward": agents[1].rng,
        },
        sources={"interaction": interaction, "turns": turns, **dict(zip(NAMES, stores, strict=True))},
        targets={name: agent.target for name, agent in zip(NAMES, agents, strict=True)},
    ).restored(state)

    def collect(state: RunState) -> list[list[Transitions]]:
        _play(interaction, turns, agents, stores, settings, rng, seed)
        state.phase = NAMES[turns.now]
        if interaction.count <= settings.random_steps:
            return [[], []]
        return [
            [minibatch(source, settings, draws) for _ in range(settings.updates if len(store) else 0)]
            for source, store in zip(sources, stores, strict=True)
        ]

    def update(state: RunState, batches: list[list[Transitions]]) -> dict[str, float]:
        metrics = {"environment_steps": float(interaction.count)}
        for number, (name, agent) in enumerate(zip(NAMES, agents, strict=True)):
            found = learn(state, batches[number], agent.update_once)
            metrics |= {f"{name}/{key}": value for key, value in found.items()}
            if turns.turns[number]:
                metrics[f"{name}/success"] = turns.successes[number] / turns.turns[number]
        return metrics

    return run(run_state, collect=collect, update=update, steps=settings.steps)


@torch.no_grad()
def _play(
    interaction: Interaction,
    turns: Turns,
    agents: Sequence[RlpdLearners],
    stores: Sequence[Replay],
    settings: RlpdSettings,
    rng: torch.Generator,
    seed: int,
) -> None:
    """One step of whoever's turn it is, into its own replay."""
    interaction.start()
    way, number, before = turns.ways[turns.now], turns.now, interaction.tensors
    if interaction.count < settings.random_steps:
        space = interaction.action_space
        drawn = numpy_generator(seed, "random", interaction.count).uniform(space.low, space.high)
        action = torch.from_numpy(drawn[None].astype(np.float32))
    else:
        action = agents[number].explore(before, rng)
    found = interaction.step(action.numpy())
    after = to_tensors(found.next_observation, [1])
    done, cut = turns.take(bool(way.done(after)[0]))
    stores[number].add(
        {
            "observation": before,
            "action": action,
            "reward": torch.tensor([float(done)]),
            "next_observation": after,
            "terminated": torch.tensor([done]),
            "truncated": torch.tensor([cut or (bool(found.ended[0]) and not done)]),
        },
        lost=found.lost,
    )

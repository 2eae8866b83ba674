"""Unstable directions (RA-NLD): what in its observation a trained policy is most easily upset by.

In every state that a policy meets there is a direction along which a small step changes its decision
soonest. What these have in common over a whole run is their principal axis:

    v(s) = d/ds [-log softmax(Q(s, .))[a*]],   G = first eigenvector of sum_s v(s) v(s)^T

G, drawn over the observation, shows the cells that the policy leans on and can be upset by; how well G serves
in other states (`correlation_quotient`) says how far a shift of the data moves the weakness; and |v(s)| over
time says when it is weak. Unlike a saliency map of a state it is a statement about the policy, and unlike an
attack it names a place. That G means anything is checked beside it: moved along G, the policy has to change
more decisions than moved as far at random.

The method says nothing of how the states are taken; ours are those of two independent sets of episodes, G
being found on the one and every quotient taken on the other, so that the value without a shift is what two
runs have in common anyway. The quotient's formula is reconstructed from its published properties.

Reference: Korkmaz 2024, Understanding and Diagnosing Deep Reinforcement Learning (2406.16979).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import derive, generator
from policysmith.common.spaces import planes_of
from policysmith.common.stages import Stage
from policysmith.evaluation.directions import (
    changed_along,
    changed_at_random,
    changed_decisions,
    greedy_episodes,
    moved,
    moves_for,
    scores_of,
)
from policysmith.evaluation.findings import Findings
from policysmith.evaluation.instability import Diagnosis, Moved, Probe, instability_findings
from policysmith.objectives.decisions import as_rows, unstable_direction
from policysmith.objectives.directions import (
    Reference,
    correlation_quotient,
    instability_trace,
    principal_direction,
)
from policysmith.worlds import registry


@dataclass(frozen=True)
class Config:
    """The paper's numbers where it has them; sizes of shifts and attacks are ours, the paper's unknown."""

    environment: str = ""
    """where the policy is played, unless states are given: minatar/breakout, any Gymnasium id, ..."""
    episodes: int = 10
    """episodes per set of states; two sets are played (the paper's 10)"""
    limit: int | None = None
    """most steps of an episode"""
    temperature: float = 1.0
    """of the softmax over scores; higher where it is saturated (the paper's is not known; 1)"""
    normalise: bool = False
    """bring every state's direction to length 1 first (the paper analyses lengths on their own)"""
    reference: Reference = "shifted"
    """measure the base's axis on shifted states, or (`base`) the shifted states' axis on the base"""
    planes: tuple[int, ...] = ()
    """height, width and planes that an observation holds, where the environment does not say so"""
    moves: tuple[str, ...] = ()
    """ways to move states; by default every shift (of planes) and attack"""
    size: float = 0.05
    """what bounded attacks may move each number by, as a share of the range"""
    low: float = 0.0
    """least value of an observation's numbers"""
    high: float = 1.0
    """largest value of an observation's numbers"""
    steps: tuple[float, ...] = (0.25, 0.5, 1.0)
    """lengths of the steps by which the direction is compared with random ones"""
    draws: int = 20
    """random directions that it is compared with"""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.planes and (len(self.planes) != 3 or min(self.planes) < 1):
            raise SettingError(f"planes are {list(self.planes)}", expected="height, width and planes")
        if not self.steps or min(self.steps) <= 0:
            raise SettingError(f"steps are {list(self.steps)}", expected="one length or more, above 0")
        if self.draws < 1:
            raise SettingError(f"{self.draws} draws", expected="1 or more")
        if not self.low < self.high:
            raise SettingError(f"numbers between {self.low} and {self.high}", expected="low below high")


PRESETS = {
    "paper": Config(),
    "tiny": Config(episodes=1, limit=20, moves=("gradient sign", "deepfool"), draws=2, low=-10.0, high=10.0),
}


def measure(
    policy: Any,
    states: Sequence[Tensor] | Tensor | None = None,
    *,
    config: Config = PRESETS["paper"],
) -> Generator[Stage, None, Findings]:
    """Diagnose `policy`, or a function from states [row, ...] to scores [row, action].

    `states` are those it meets: episodes, a tensor [step, *state] each, of which every second one is kept for
    the other set; or one tensor [row, *state], every second row likewise. Without them the greedy policy is
    played in `config.environment`. The findings' `data` holds the direction, every quotient and the traces.

    Raises `CapabilityError` for a policy of continuous actions; `DataError` where there are not enough
    states, where they are integers or outside of [low, high], and where every direction is zero;
    `ShapeError` for states of different shapes.
    """
    scores = scores_of(policy)
    planes = config.planes
    if states is None:
        episodes, planes = yield from _played(scores, config)
    else:
        episodes = list(states) if not isinstance(states, Tensor) else list(as_rows(states).unsqueeze(1))
    if len(episodes) < 2:
        raise DataError(
            f"{len(episodes)} episodes of states", expected="two or more: one set is judged on another"
        )
    given = as_rows([state for episode in episodes for state in episode])
    planes = planes or (tuple(given.shape[1:]) if given.dim() == 4 else ())
    if planes and given[0].numel() != planes[0] * planes[1] * planes[2]:
        raise SettingError(f"planes are {list(planes)}", expected=f"{given[0].numel()} numbers together")
    if float(given.min()) < config.low or float(given.max()) > config.high:
        raise DataError(
            f"states have numbers from {float(given.min()):g} to {float(given.max()):g}",
            expected=f"between low = {config.low:g} and high = {config.high:g}, as attacks keep to them",
            cure="set low and high to the range of the observations",
        )
    return (
        yield from _diagnosed(scores, [one.flatten(1) for one in episodes], given.shape[1:], planes, config)
    )


def _played(scores: Any, config: Config) -> Generator[Stage, None, tuple[list[Tensor], tuple[int, ...]]]:
    """Two sets of episodes by turns, and the planes that the environment says its observations hold."""
    if not config.environment:
        raise SettingError("no states and nowhere to play", cure="give states, or config.environment")
    make = partial(registry.make, config.environment)
    environment = make()
    planes = config.planes or planes_of(environment.observation_space)
    environment.close()
    sets = []
    for number in range(2):
        yield Stage("play episodes", number, 2)
        seed = derive(config.seed, "set", number)
        played = greedy_episodes(scores, make, episodes=config.episodes, seed=seed, limit=config.limit)
        sets.append(played.states)
    yield Stage("play episodes", 2, 2)
    return [episode for pair in zip(*sets, strict=True) for episode in pair], planes


def _diagnosed(
    given: Any, episodes: list[Tensor], shape: tuple[int, ...], planes: tuple[int, ...], config: Config
) -> Generator[Stage, None, Findings]:
    """From flattened episodes, the two sets by turns, to the findings."""

    def scores(states: Tensor) -> Tensor:
        return given(states.unflatten(1, shape))

    base, other = torch.cat(episodes[::2]), torch.cat(episodes[1::2])
    names = moves_for(planes, config.moves)
    stages = len(names) + len(config.steps) + 2

    def directions(states: Tensor) -> Tensor:
        return unstable_direction(scores, states, temperature=config.temperature)

    yield Stage("find directions", 0, stages)
    found = directions(base)
    principal = principal_direction(found, normalise=config.normalise)

    def judged(name: str, states: Tensor) -> Moved:
        there = directions(states)
        quotients = {
            reference: correlation_quotient(found, there, reference=reference, normalise=config.normalise)
            for reference in ("shifted", "base")
        }
        mirrored = quotients["base" if config.reference == "shifted" else "shifted"]
        distance = float((states - other).norm(dim=1).mean())
        changed = changed_decisions(scores, other, states)
        return Moved(name, quotients[config.reference], mirrored, changed, distance)

    yield Stage("find directions", 1, stages)
    independent, results = judged("", other), []
    for number, name in enumerate(names):
        yield Stage(f"move states: {name}", 2 + number, stages)
        there = moved(name, scores, other, planes=planes, size=config.size, low=config.low, high=config.high)
        results.append(judged(name, there))
    probes = []
    for number, size in enumerate(config.steps):
        yield Stage("compare with random directions", 2 + len(names) + number, stages)
        rng = generator(config.seed, "random directions")
        along = changed_along(scores, other, principal.vector, size=size)
        random = changed_at_random(scores, other, size=size, draws=config.draws, rng=rng)
        probes.append(Probe(size, along, random))
    yield Stage("compare with random directions", stages, stages)
    shaped = principal._replace(vector=principal.vector.view(*(planes or shape)))
    lengths = instability_trace(found).split([len(one) for one in episodes[::2]])
    return instability_findings(
        Diagnosis(
            shaped,
            lengths,
            len(base) + len(other),
            independent,
            results,
            probes,
            config.reference,
            config.temperature,
        )
    )

"""Recording data of graded quality: train an agent, measure it as it learns, and record from its stages.

What the levels are is in `experience.levels`. Everything the agent does in training is written down beside
it, so that any learner will do, with replay or without.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.common.rng import derive, generator
from policysmith.common.stages import Stage
from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.playing import MakeEnvironment, MakeExpert
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.collect import Recorded
from policysmith.experience.episodes import Episodes
from policysmith.experience.levels import (
    LEVELS,
    RandomActions,
    Recorder,
    Snapshot,
    medium_and_expert,
    normalised,
    record_steps,
)
from policysmith.policies.acting import Expert, PolicyExpert
from policysmith.policies.protocol import Policy
from policysmith.training.loop import Progress

Train = Callable[[MakeEnvironment], Iterator[Progress]]
"""From a maker of environments to a training run in them."""


def record_levels(
    train: Train,
    make: MakeEnvironment,
    *,
    levels: Sequence[str],
    steps: int,
    agent_steps: int,
    evaluations: int = 20,
    episodes: int = 10,
    seed: int = 0,
    limit: int | None = None,
) -> Generator[Stage, None, dict[str, Episodes]]:
    """Train for `agent_steps` environment steps and record `steps` steps of each level (see `LEVELS`).

    The agent is measured `evaluations` times in `episodes` episodes, and acts there as it does where it is
    recorded: drawing its actions, if it can. `medium-replay` is as long as it is. What the agent came to is
    in the episodes' provenance. `train` has to play in this process; nothing is trained for `random` alone.
    Raises `SettingError` for an unknown level and `DataError` where the agent learns nothing.
    """
    if not levels or not set(levels) <= set(LEVELS):
        raise SettingError(f"the levels {', '.join(levels) or 'of no name'}", expected=", ".join(LEVELS))
    starts = episode_seeds(seed, episodes)
    yield Stage("measure random actions", 0, 1)
    random_return = _mean_return(_random, make, starts, limit)
    yield Stage("measure random actions", 1, 1)
    recorders: list[Recorder] = []
    agents: dict[str, list[Snapshot]] = {"random": []}
    if set(levels) != {"random"}:
        pause = max(1, agent_steps // evaluations)
        history = yield from _trained(train, make, recorders, pause=pause, starts=starts, limit=limit)
        medium, expert = medium_and_expert(history, random_return=random_return)
        agents |= {"medium": [medium], "medium-replay": [medium], "expert": [expert]}
        agents["medium-expert"] = [medium, expert]
    found = {}
    for done, level in enumerate(levels):
        yield Stage("record", done, len(levels))
        if level == "medium-replay":
            recorded = _replay(recorders, agents[level][0])
        else:
            actors = [_expert(one.policy, seed) for one in agents[level]] or [_random]
            recorded = _record(actors, make, steps, derive(seed, level), limit)
        about = {
            "level": level,
            "seed": seed,
            "random_return": random_return,
            "agents": [_facts(one, random_return, agents["expert"][0]) for one in agents[level]],
            "measured_episodes": episodes,
        }
        found[level] = Episodes.from_arrays(recorded, provenance=about)
    yield Stage("record", len(levels), len(levels))
    return found


def _trained(
    train: Train,
    make: MakeEnvironment,
    recorders: list[Recorder],
    *,
    pause: int,
    starts: Sequence[int],
    limit: int | None,
) -> Generator[Stage, None, list[Snapshot]]:
    """The agent's snapshots, one after every `pause` environment steps and one at the end."""

    def watched() -> gymnasium.Env:
        recorders.append(Recorder(make()))
        return recorders[-1]

    history: list[Snapshot] = []
    due = pause
    for now in train(watched):
        yield Stage("train the agent", now.step, now.total, now.metrics.get("loss"))
        steps = tuple(recorder.steps for recorder in recorders)
        if sum(steps) >= due or now.step == now.total:
            policy = _with_noise(now.state.policy())
            history.append(Snapshot(steps, _mean_return(policy, make, starts, limit), policy))
            due = sum(steps) + pause
    return history


def _replay(recorders: Sequence[Recorder], agent: Snapshot) -> list[Recorded]:
    """What was done until then; environments that were made later had no steps."""
    pairs = zip(recorders, agent.steps, strict=False)
    return [episode for recorder, steps in pairs for episode in recorder.until(steps)]


def _record(
    actors: Sequence[MakeExpert], make: MakeEnvironment, steps: int, seed: int, limit: int | None
) -> list[Recorded]:
    """Equal shares of the steps from each actor."""
    environment = make()
    recorded = []
    for number, actor in enumerate(actors):
        share = steps // len(actors) + (number < steps % len(actors))
        expert = actor(environment)
        recorded += record_steps(environment, expert, steps=share, seed=derive(seed, number), limit=limit)
    environment.close()
    return recorded


def _facts(agent: Snapshot, random_return: float, best: Snapshot) -> dict[str, float]:
    score = normalised(agent.mean_return, random=random_return, best=best.mean_return)
    return {"steps": sum(agent.steps), "mean_return": agent.mean_return, "normalised_score": score}


def _with_noise(policy: Any) -> Any:
    if hasattr(policy, "deterministic"):
        policy.deterministic = False
    return policy


def _expert(policy: Policy, seed: int) -> MakeExpert:
    return lambda environment: PolicyExpert(policy, rng=generator(seed, "recording"))


def _random(environment: gymnasium.Env) -> Expert:
    return RandomActions(environment.action_space)  # type: ignore[arg-type]


def _mean_return(
    policy: Policy | MakeExpert, make: MakeEnvironment, starts: Sequence[int], limit: int | None
) -> float:
    rollouts = roll_out(policy, make, seeds=starts, limit=limit, parallel=10, stop_on_success=False)
    return float(rollouts.returns.mean())

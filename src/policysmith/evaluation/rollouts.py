"""Playing a policy in an environment and counting: success, return, network calls, time per decision.

`roll_out` plays many episodes at once, one environment per row and one batched call for all rows that decide
at the same tick. `time_decisions` plays a single environment on one thread, because that is what a control
loop does. Both start every episode from a seed of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.common.observations import STATE, parts_of, stack
from policysmith.common.rng import generator
from policysmith.common.threads import torch_threads
from policysmith.experience.collect import succeeded
from policysmith.policies.acting import Actor
from policysmith.policies.protocol import Policy

MakeEnvironment = Callable[[], gymnasium.Env]


@dataclass
class Rollouts:
    """What episodes came to, in the order of their seeds."""

    seeds: list[int]
    success: Bool[np.ndarray, "episode"]
    returns: Float[np.ndarray, "episode"]
    lengths: Int[np.ndarray, "episode"]
    network_calls: Int[np.ndarray, "episode"]

    @property
    def calls_per_action(self) -> float:
        """Network calls per action played, over all episodes."""
        return float(self.network_calls.sum() / self.lengths.sum())


@dataclass
class Timing:
    """Wall-clock time of single decisions and of the ticks of a control loop, one environment, one thread.

    `decision_ms` [decision] is the time of one decision: the tick that made it, and where the network calls
    were spread, the ticks that worked ahead for it. `tick_ms` [tick] is what each tick waited for its action:
    where nothing is spread, most wait for nothing when a decision covers several actions.
    """

    decision_ms: Float[np.ndarray, "decision"]
    action_steps: int
    tick_ms: Float[np.ndarray, "tick"]

    @property
    def action_ms(self) -> Float[np.ndarray, "decision"]:
        """Milliseconds per action, each decision's time over the actions it returned."""
        return self.decision_ms / self.action_steps

    def missed(self, rate: float) -> float:
        """Share of ticks that would miss their deadline at `rate` ticks per second."""
        return float((self.tick_ms > 1000 / rate).mean())


def roll_out(
    policy: Policy,
    make_environment: MakeEnvironment,
    *,
    seeds: Sequence[int],
    seed: int = 0,
    parallel: int = 25,
    limit: int | None = None,
    stop_on_success: bool = True,
    spread: bool = False,
) -> Rollouts:
    """Play one episode per entry of `seeds`, at most `parallel` at a time.

    `seed` starts the policy's own random stream; the same arguments give the same numbers. An episode ends
    when the environment says so, after `limit` steps, or at its first success. Actions are clipped to the
    action space. `spread` shares the network calls of a decision among the ticks before it, where the policy
    can; calls made ahead for a decision that the episode's end left out are counted.

    Raises `ShapeError` where policy and environment do not fit.
    """
    if not seeds:
        raise SettingError("no episodes were asked for", expected="at least one seed")
    environments = [make_environment() for _ in range(min(parallel, len(seeds)))]
    try:
        check_spaces(policy, environments[0])
        actor = Actor(policy, len(environments), rng=generator(seed, "policy"), spread=spread)
        return _play(actor, environments, list(seeds), limit, stop_on_success)
    finally:
        for environment in environments:
            environment.close()


def _play(
    actor: Actor,
    environments: list[gymnasium.Env],
    seeds: list[int],
    limit: int | None,
    stop_on_success: bool,
) -> Rollouts:
    rows, count = len(environments), len(seeds)
    result = Rollouts(
        seeds, np.zeros(count, bool), np.zeros(count), np.zeros(count, int), np.zeros(count, int)
    )
    episode, upcoming = np.arange(rows), rows  # which episode each row plays; `count` and above: none
    seen = [env.reset(seed=seeds[i])[0] for i, env in enumerate(environments)]
    calls_before = actor.network_calls.clone()
    low, high = environments[0].action_space.low, environments[0].action_space.high  # type: ignore[attr-defined]
    while (episode < count).any():
        active = torch.from_numpy(episode < count)
        actions = np.clip(actor.act(stack(seen), active), low, high)
        ended = np.zeros(rows, bool)
        for row in np.flatnonzero(active.numpy()):
            i = episode[row]
            seen[row], reward, terminated, truncated, info = environments[row].step(actions[row])
            result.returns[i] += float(reward)
            result.lengths[i] += 1
            result.success[i] |= succeeded(info)
            over = limit is not None and result.lengths[i] >= limit
            ended[row] = terminated or truncated or over or (stop_on_success and result.success[i])
        for row in np.flatnonzero(ended):
            calls = actor.network_calls
            result.network_calls[episode[row]] = int(calls[row] - calls_before[row])
            calls_before[row] = calls[row]
            episode[row], upcoming = upcoming, upcoming + 1
            if episode[row] < count:
                seen[row], _ = environments[row].reset(seed=seeds[episode[row]])
        actor.reset(torch.from_numpy(ended))
    return result


def time_decisions(
    policy: Policy,
    make_environment: MakeEnvironment,
    *,
    decisions: int = 100,
    warmup: int = 5,
    seed: int = 0,
    threads: int = 1,
    spread: bool = False,
) -> Timing:
    """Time `decisions` decisions in a running environment, after `warmup` that are not counted."""
    environment = make_environment()
    actor = Actor(policy, 1, rng=generator(seed, "policy"), spread=spread)
    decided_ms: list[float] = []
    tick_ms: list[float] = []
    low, high = environment.action_space.low, environment.action_space.high  # type: ignore[attr-defined]
    with torch_threads(threads):
        episode = 0
        while len(decided_ms) < warmup + decisions:
            observation, _ = environment.reset(seed=seed + episode)
            actor.reset(torch.ones(1, dtype=torch.bool))
            episode, ended, ahead = episode + 1, False, 0.0
            while not ended and len(decided_ms) < warmup + decisions:
                began = time.perf_counter()
                action = actor.act(stack([observation]))[0]
                spent = (time.perf_counter() - began) * 1000
                if bool(actor.decided[0]):
                    decided_ms.append(ahead + spent)
                    ahead = 0.0
                elif spread:
                    ahead += spent
                if len(decided_ms) > warmup:
                    tick_ms.append(spent)
                observation, _, terminated, truncated, _ = environment.step(np.clip(action, low, high))
                ended = terminated or truncated
    environment.close()
    return Timing(np.array(decided_ms[warmup:]), policy.action_steps, np.array(tick_ms))


def film(
    policy: Policy,
    environment: gymnasium.Env,
    *,
    seed: int,
    limit: int | None = None,
    linger: int = 10,
) -> tuple[UInt8[np.ndarray, "time height width 3"], list[bool]]:
    """Frames of one episode and, per frame, whether it has succeeded; goes on for `linger` steps after that.

    `environment` must render rgb arrays.
    """
    check_spaces(policy, environment)
    actor = Actor(policy, 1, rng=generator(seed, "policy"))
    low, high = environment.action_space.low, environment.action_space.high  # type: ignore[attr-defined]
    observation, _ = environment.reset(seed=seed)
    frames, success = [environment.render()], [False]
    ended = False
    while not ended and sum(success) <= linger and (limit is None or len(frames) <= limit):
        action = np.clip(actor.act(stack([observation]))[0], low, high)
        observation, _, terminated, truncated, info = environment.step(action)
        frames.append(environment.render())
        success.append(success[-1] or succeeded(info))
        ended = terminated or truncated
    return np.stack(frames), success  # type: ignore[arg-type]


def check_spaces(policy: Policy, environment: gymnasium.Env) -> None:
    """Raise where `policy` cannot act in `environment`, naming both sides."""
    observation, action = environment.observation_space, environment.action_space
    spaces = parts_of(observation.spaces if isinstance(observation, gymnasium.spaces.Dict) else observation)
    if not all(isinstance(space, gymnasium.spaces.Box) for space in (*spaces.values(), action)):
        raise CapabilityError(
            f"the environment has observations {observation} and actions {action}",
            expected="Box spaces: this policy reads vectors and pictures and acts in a continuous space",
            cure="wrap the environment (Dict observations: gymnasium.wrappers.FlattenObservation)",
        )
    wanted = {"observations" if name == STATE else name: shape for name, shape in policy.parts.items()}
    found = {"observations" if name == STATE else name: space.shape for name, space in spaces.items()}
    wanted["actions"], found["actions"] = (policy.action_size,), action.shape
    for what in wanted | found:
        if wanted.get(what) != found.get(what):
            raise ShapeError(
                f"the environment's {what} have {_shape(found.get(what))}",
                where=str(environment.spec.id if environment.spec else environment),
                expected=f"{_shape(wanted.get(what))}, as in the data the policy was trained on",
                cure="evaluate in the environment the demonstrations are from",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no place" if shape is None else f"shape {list(shape)}"

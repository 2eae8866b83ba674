"""Playing a policy in an environment and counting: success, return, network calls, time per decision.

`roll_out` plays many episodes of one environment at once (`playing` is the machinery, and plays more than
that). `time_decisions` plays a single environment on one thread, because that is what a control loop does.
Both start every episode from a seed of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, UInt8

from policysmith.common.errors import SettingError
from policysmith.common.observations import stack
from policysmith.common.rng import generator
from policysmith.common.threads import torch_threads
from policysmith.evaluation.playing import (
    MakeEnvironment,
    MakeExpert,
    Rollouts,
    Start,
    Trial,
    check_spaces,
    play,
)
from policysmith.experience.collect import succeeded
from policysmith.policies.acting import Actor
from policysmith.policies.protocol import Policy

__all__ = ["MakeEnvironment", "Rollouts", "Timing", "check_spaces", "film", "roll_out", "time_decisions"]


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
    policy: Policy | MakeExpert,
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
    action space. Instead of a policy, a function from an environment to a scripted expert will do. `spread`
    shares the network calls of a decision among the ticks before it, where the policy can; calls made ahead
    for a decision that the episode's end left out are counted.

    Raises `ShapeError` where policy and environment do not fit.
    """
    if not seeds:
        raise SettingError("no episodes were asked for", expected="at least one seed")
    trials = [Trial(make_environment, (Start(number),)) for number in seeds]
    return play(
        policy,
        trials,
        seed=seed,
        parallel=parallel,
        limit=limit,
        stop_on_success=stop_on_success,
        spread=spread,
    )


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

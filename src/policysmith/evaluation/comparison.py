"""Arms side by side: the same data, seeds and episodes for each, trained once and kept.

`compare` is a generator: it yields a `Stage` whenever something has moved, for whoever draws a bar, and
returns the results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from policysmith.common.rng import derive
from policysmith.common.stages import Stage
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.rollouts import MakeEnvironment, Rollouts, Timing, roll_out, time_decisions
from policysmith.experience.episodes import Episodes
from policysmith.policies.protocol import Policy


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a system with its settings, and how its trained policy is made to act.

    `acting` rebuilds the policy (another sampler, another chunk length) without training anew: arms that
    share system and settings share the training run.
    """

    label: str
    module: ModuleType
    config: Any
    acting: Callable[[Any], Policy] = lambda policy: policy


@dataclass
class ArmResult:
    """What an arm came to; one entry per run."""

    arm: Arm
    rollouts: list[Rollouts] = field(default_factory=list)
    curves: list[tuple[list[float], list[float]]] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)
    timing: Timing | None = None

    @property
    def success(self) -> Bool[np.ndarray, "run episode"]:
        """Whether each episode of each run succeeded."""
        return np.stack([run.success for run in self.rollouts])

    @property
    def calls_per_action(self) -> Float[np.ndarray, "run"]:
        """Network calls per action of each run."""
        return np.array([run.calls_per_action for run in self.rollouts])


def episode_seeds(seed: int, count: int) -> list[int]:
    """The seeds that evaluation episodes are reset with; never those of a recording with the same seed."""
    return [derive(seed, "evaluation", i) for i in range(count)]


def compare(
    arms: Sequence[Arm],
    episodes: Episodes,
    make_environment: MakeEnvironment,
    *,
    seeds: Sequence[int],
    evaluate: int,
    folder: Path,
    limit: int | None = None,
    decisions: int = 100,
    parallel: int = 25,
) -> Generator[Stage, None, list[ArmResult]]:
    """Train (or take from the cache) each arm for each seed, and play `evaluate` episodes with each.

    All arms and runs play the same episodes. Decisions are timed at the end, arm by arm, on one thread, so
    that nothing trains meanwhile. `parallel` episodes are played at a time.
    """
    results = [ArmResult(arm) for arm in arms]
    starts = episode_seeds(0, evaluate)
    for seed in seeds:
        for result in results:
            arm = result.arm
            run = CachedRun(arm.module, (episodes,), episodes.fingerprint, arm.config, seed, folder)
            for now in run.train():
                yield Stage(f"train {arm.label}, seed {seed}", now.step, now.total, now.metrics.get("loss"))
            result.curves.append(_losses(run))
            result.train_seconds.append(training_seconds(run))
            policy = arm.acting(run.policy())
            yield Stage(f"play {arm.label}, seed {seed}", 0, 1)
            result.policies.append(policy)
            result.rollouts.append(
                roll_out(policy, make_environment, seeds=starts, seed=seed, limit=limit, parallel=parallel)
            )
            yield Stage(f"play {arm.label}, seed {seed}", 1, 1)
    for result in results:
        yield Stage(f"time {result.arm.label}", 0, 1)
        result.timing = time_decisions(result.policies[0], make_environment, decisions=decisions)
        yield Stage(f"time {result.arm.label}", 1, 1)
    return results


def _losses(run: CachedRun) -> tuple[list[float], list[float]]:
    lines = run.directory.metrics()
    return [line["step"] for line in lines], [line["loss"] for line in lines]


def training_seconds(run: CachedRun) -> float:
    """Seconds that a run spent on training, from the logged share of its steps."""
    lines = run.directory.metrics()
    per_step = [line["seconds/collect"] + line["seconds/update"] for line in lines]
    return float(np.mean(per_step) * lines[-1]["step"])

"""Systems that maximise a return, side by side: the same run seeds, the same episodes, mean returns.

`compare_returns` is a generator like `comparison.compare` and shares its cache: a run that another comparison
has finished is not trained again. Episodes are played to their end: a success that ended one early would cut
its return.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from policysmith.common.stages import Stage
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import Arm, episode_seeds
from policysmith.evaluation.rollouts import MakeEnvironment, roll_out
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference

Curve: TypeAlias = tuple[list[float], list[float]]
"""Environment steps, and the returns at them."""


@dataclass
class ReturnsResult:
    """What an arm came to; one entry per run.

    `curves`: environment steps, and the mean return of the training episodes finished last at each; empty
    for a run that finished none or that learnt from data alone.
    """

    arm: Arm
    played: list[Float[np.ndarray, "episode"]] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    @property
    def returns(self) -> Float[np.ndarray, "run episode"]:
        """Of every evaluation episode of every run."""
        return np.stack(self.played)

    @property
    def mean(self) -> Interval:
        """The mean return, with its interval over runs."""
        return mean_interval(self.returns.mean(1))

    def minus(self, other: ReturnsResult) -> Interval:
        """Difference of the mean returns, paired by run seed and episode."""
        return paired_difference(self.returns, other.returns)


def compare_returns(
    arms: Sequence[Arm],
    inputs: tuple[Any, ...],
    fingerprint: str,
    make_environment: MakeEnvironment,
    *,
    seeds: Sequence[int],
    evaluate: int,
    folder: Path,
    checkpoint_every: int = 500,
    log_every: int = 10,
) -> Generator[Stage, None, list[ReturnsResult]]:
    """Train (or take from `folder`) each arm for each seed, and play `evaluate` episodes with each.

    `inputs` are what every arm's entry is called with, `fingerprint` what tells them from others. Checkpoints
    and lines of metrics are written as often as an arm's settings say, or else as often as told here.
    """
    results = [ReturnsResult(arm) for arm in arms]
    starts = episode_seeds(0, evaluate)
    for seed in seeds:
        for result in results:
            arm = result.arm
            run = CachedRun(arm.module, inputs, fingerprint, arm.config, seed, folder)
            progress = run.train(
                checkpoint_every=getattr(arm.config, "checkpoint_every", checkpoint_every),
                log_every=getattr(arm.config, "log_every", log_every),
            )
            for now in progress:
                yield Stage(f"train {arm.label}, seed {seed}", now.step, now.total, now.metrics.get("return"))
            result.curves.append(training_returns(run.directory.metrics()))
            yield Stage(f"play {arm.label}, seed {seed}", 0, 1)
            rollouts = roll_out(
                run.policy(), make_environment, seeds=starts, seed=seed, stop_on_success=False
            )
            result.played.append(rollouts.returns)
            yield Stage(f"play {arm.label}, seed {seed}", 1, 1)
    return results


def training_returns(lines: Sequence[dict[str, Any]]) -> Curve:
    """(environment steps, returns) of a run's metrics, from where the first training episode has ended."""
    told = [line for line in lines if "return" in line and "environment_steps" in line]
    return [line["environment_steps"] for line in told], [line["return"] for line in told]

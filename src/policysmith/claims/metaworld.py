"""Meta-World's protocol at work: its own scripted experts, measured by it as any policy is.

Every task comes with an expert that solves it, so that a protocol which sees anything near the right thing
finds nearly all of their episodes successful: by the mean, nine in ten at least. A protocol that calls
everything a success would pass that test too; the ablation measures random actions beside the experts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from policysmith.common.rng import numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.playing import MakeExpert
from policysmith.evaluation.statistics import Interval
from policysmith.evaluation.suites import SuiteResult, mt_evaluate
from policysmith.evaluation.task_plots import success_by_task
from policysmith.worlds.metaworld import MetaWorldExpert
from policysmith.worlds.metaworld_suites import make_suite

LEAST = 0.9
"""Mean success of the experts that the protocol has to find."""

ALL, THRESHOLD = "all tasks", "what is asked for"
EXPERTS, RANDOM = "success of the experts", "success of random actions"


class RandomActions:
    """Uniformly random actions, whatever is seen, in the place of an expert."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._rng = numpy_generator(0, "random actions")

    def reset(self, seed: int | None = None) -> None:
        """Go on drawing: every episode has its own actions."""

    def act(self, observation: Any) -> np.ndarray:
        """Four numbers between -1 and 1."""
        return self._rng.uniform(-1, 1, 4).astype(np.float32)


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 10, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Play MT50 with its experts: `evaluate` goals per task, drawn once per seed.

    With `ablations`, uniformly random actions play the same goals.
    """
    began = time.perf_counter()
    players: Mapping[str, MakeExpert] = {EXPERTS: MetaWorldExpert} | (
        {RANDOM: RandomActions} if ablations else {}
    )
    measured: dict[str, list[SuiteResult]] = {name: [] for name in players}
    for seed in seeds:
        suite = make_suite("MT50", seed)
        for name, player in players.items():
            measured[name].append((yield from mt_evaluate(player, suite, goals=evaluate, parallel=1)))
    experts = pooled(measured[EXPERTS])
    mean = experts.rate_over_tasks
    return claim.build_claim(
        "metaworld",
        paper_claim="each of the fifty tasks can be solved on its own; the package scripts a policy for each",
        question="these scripted policies by the multi-task protocol: a mean success of 0.9 or more, by the "
        "wider of two intervals, one over goals and one that lets the tasks vary too",
        arms=[
            _arm(ALL, measured, seeds, task=None),
            *(_arm(task, measured, seeds, task=task) for task in experts.tasks),
            claim.Arm(THRESHOLD, {}, [], {EXPERTS: Interval(LEAST, LEAST, LEAST)}),
        ],
        comparisons=[
            claim.Comparison(
                "mean success of the experts less what is asked for",
                ALL,
                THRESHOLD,
                EXPERTS,
                Interval(mean.value - LEAST, mean.low - LEAST, mean.high - LEAST),
                0.0,
                "not_lower",
            )
        ],
        seeds=seeds,
        settings={
            "suite": "MT50",
            "goals_per_task_and_seed": evaluate,
            "horizon": experts.horizon,
            "reward_version": experts.reward_version,
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Success at every task, of the experts and, where they were measured, of random actions."""
    tasks = {arm.name: arm.summary for arm in found.arms if arm.name not in (ALL, THRESHOLD)}
    rates = {
        metric.removeprefix("success of "): {
            task.removesuffix("-v3"): summary[metric] for task, summary in tasks.items()
        }
        for metric in (EXPERTS, RANDOM)
        if all(metric in summary for summary in tasks.values())
    }
    return "Success at each of the fifty tasks, with 95 % intervals over goals", success_by_task(rates)


def pooled(results: Sequence[SuiteResult]) -> SuiteResult:
    """The results of several draws of goals as one; neither experts nor chance differ between draws."""
    success, returns, exploration = (
        np.concatenate([getattr(result, name) for result in results], axis=1)
        for name in ("success", "returns", "exploration")
    )
    return replace(results[0], success=success, returns=returns, exploration=exploration)


def _arm(
    name: str, measured: Mapping[str, Sequence[SuiteResult]], seeds: Sequence[int], *, task: str | None
) -> claim.Arm:
    """One task, or all of them where `task` is None: success per draw of goals, and over all draws."""

    def rate(result: SuiteResult) -> Interval:
        return result.rate_over_tasks if task is None else result.task_rate(task)

    runs = [
        claim.Run(seed, {metric: rate(results[i]).value for metric, results in measured.items()})
        for i, seed in enumerate(seeds)
    ]
    return claim.Arm(name, {}, runs, {metric: rate(pooled(results)) for metric, results in measured.items()})

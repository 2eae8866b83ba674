"""Meta-World's protocol at work: its own scripted experts, measured by it as any policy is.

Every task comes with an expert that solves it, so that a protocol which sees anything near the right thing
finds nearly all of their episodes successful: by the mean, nine in ten at least. Random actions are measured
beside them, because a protocol that calls everything a success would pass that test too.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.statistics import Interval
from policysmith.evaluation.suites import SuiteResult, mt_evaluate
from policysmith.evaluation.task_plots import success_by_task
from policysmith.policies.protocol import Policy
from policysmith.worlds.metaworld import MetaWorldExpert
from policysmith.worlds.metaworld_suites import make_suite

LEAST = 0.9
"""Mean success of the experts that the protocol has to find."""

ALL, THRESHOLD = "all tasks", "what is asked for"
EXPERTS, RANDOM = "success of the experts", "success of random actions"


class RandomActions(Policy):
    """Uniformly random actions, whatever is seen."""

    observation_size, action_size = 39, 4

    def act(self, observation: Any, state: TensorDict, *, rng: torch.Generator) -> tuple[Tensor, TensorDict]:
        """Four numbers between -1 and 1 per row."""
        self.check_batch(observation, state)
        return 2 * torch.rand(len(observation), 1, 4, generator=rng) - 1, state


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 10, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Play MT50 with experts and with random actions: `evaluate` goals per task, drawn once per seed."""
    began = time.perf_counter()
    experts, random = [], []
    for seed in seeds:
        suite = make_suite("MT50", seed)
        experts.append((yield from mt_evaluate(MetaWorldExpert, suite, goals=evaluate, parallel=1)))
        random.append((yield from mt_evaluate(RandomActions(), suite, goals=evaluate, seed=seed, parallel=4)))
    mean = pooled(experts).rate_over_tasks
    return claim.build_claim(
        "metaworld",
        paper_claim="each of the fifty tasks can be solved on its own; the package scripts a policy for each",
        question="these scripted policies by the multi-task protocol: a mean success of 0.9 or more, by the "
        "wider of two intervals, one over goals and one that lets the tasks vary too",
        arms=[
            _arm(ALL, experts, random, seeds, task=None),
            *(_arm(task, experts, random, seeds, task=task) for task in experts[0].tasks),
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
            "horizon": experts[0].horizon,
            "reward_version": experts[0].reward_version,
            "random_actions": "uniform in [-1, 1]",
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Success at every task, of the experts and of random actions."""
    tasks = [arm for arm in found.arms if arm.name not in (ALL, THRESHOLD)]
    rates = {
        label: {arm.name.removesuffix("-v3"): arm.summary[metric] for arm in tasks}
        for label, metric in (("scripted experts", EXPERTS), ("random actions", RANDOM))
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
    name: str,
    experts: Sequence[SuiteResult],
    random: Sequence[SuiteResult],
    seeds: Sequence[int],
    *,
    task: str | None,
) -> claim.Arm:
    """One task, or all of them where `task` is None: success per draw of goals, and over all draws."""
    which = slice(None) if task is None else experts[0].tasks.index(task)
    runs = [
        claim.Run(
            seed,
            {EXPERTS: float(ours.success[which].mean()), RANDOM: float(chance.success[which].mean())},
        )
        for seed, ours, chance in zip(seeds, experts, random, strict=True)
    ]
    summary = {
        metric: pooled(results).rate_over_tasks if task is None else pooled(results).task_rate(task)
        for metric, results in ((EXPERTS, experts), (RANDOM, random))
    }
    return claim.Arm(name, {}, runs, summary)

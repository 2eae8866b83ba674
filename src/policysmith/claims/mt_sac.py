"""Meta-World's finding at small scale: tasks that are learnt one by one are learnt less well together.

Five of its tasks under their dense rewards, actions held for four of the simulator's steps. Soft actor-critic
learns each on its own; multi-task SAC, with one output or one for each task, learns all five from as many
steps and gradient steps of each. Success is the mean over the tasks, in the same episodes for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.playing import Rollouts
from policysmith.evaluation.rollouts import roll_out
from policysmith.evaluation.statistics import mean_of_rates, paired_difference, success_interval
from policysmith.evaluation.task_plots import success_by_task
from policysmith.policies.protocol import Policy
from policysmith.systems import mt_sac, mtmh_sac, sac
from policysmith.worlds import registry
from policysmith.worlds.metaworld_suites import OneHot

TASKS = ("reach-v3", "drawer-close-v3", "button-press-topdown-v3", "window-open-v3", "drawer-open-v3")
OPTIONS: dict[str, Any] = {"hold": 4, "horizon": 150}
BUDGET: dict[str, Any] = {
    "environment_steps": 4000,
    "random_steps": 200,
    "hidden": (128, 128),
    "batch_size": 64,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "temperature_learning_rate": 1e-3,
    "discount": 0.97,
    "initial_temperature": 0.1,
    "replay_capacity": 10_000,
}
"""Of every task, whoever learns it."""
ALONE, TOGETHER, HEADS = "one by one", "together (MT-SAC)", "together, heads apart (MTMH-SAC)"
CLEARLY = 0.15

MakeTask = Callable[[], gymnasium.Env]


@dataclass(frozen=True)
class Run:
    """One training run: what learns which tasks."""

    module: ModuleType
    config: Any
    tasks: tuple[int, ...]

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What the system's entry is called with."""
        makers = [make_task(TASKS[task]) for task in self.tasks]
        return (makers[0],) if self.module is sac else (makers,)

    def seen(self, task: int) -> MakeTask:
        """The environment of a task as this run's policy sees it."""
        make = make_task(TASKS[task])
        return make if self.module is sac else partial(_told, make, task)


def make_task(name: str) -> MakeTask:
    """A function that makes one of the tasks."""
    return partial(registry.make, f"metaworld/{name}", **OPTIONS)


def arms() -> dict[str, list[Run]]:
    """The runs of each side."""
    every = tuple(range(len(TASKS)))
    single = replace(sac.PRESETS["bench"], **BUDGET)
    return {
        ALONE: [Run(sac, single, (task,)) for task in every],
        **{
            label: [Run(module, replace(module.PRESETS["bench"], environments=len(TASKS), **BUDGET), every)]
            for label, module in ((TOGETHER, mt_sac), (HEADS, mtmh_sac))
        },
    }


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 20, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment, `evaluate` episodes per task; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    success: dict[str, np.ndarray] = {}
    for label, runs in arms().items():
        outcomes = np.zeros((len(seeds), len(TASKS), evaluate))
        for number, seed in enumerate(seeds):
            for run in runs:
                policy = yield from _trained(label, run, seed, folder)
                for task in run.tasks:
                    outcomes[number, task] = _play(policy, run.seen(task), evaluate).success
        success[label] = outcomes
    return claim.build_claim(
        "mt-sac",
        paper_claim="of ten tasks that can each be learnt alone, multi-task SAC learns 39.5 % together, and "
        "with an output layer per task 88 % (as remembered from the paper's table)",
        question=f"{len(TASKS)} tasks, equal steps of each: mean success one by one at least 15 points above "
        "MT-SAC, and MTMH-SAC between the two",
        arms=[_arm(label, outcomes, seeds) for label, outcomes in success.items()],
        comparisons=_comparisons(success),
        seeds=seeds,
        settings={
            "tasks": list(TASKS),
            **OPTIONS,
            "reward_version": "v2",
            "episodes_per_task": evaluate,
            "of_every_task": config_to_json(arms()[ALONE][0].config),
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Success at every task, one by one and together."""
    rates = {
        arm.name: {task.removesuffix("-v3"): arm.summary[f"success at {task}"] for task in TASKS}
        for arm in found.arms
    }
    return "Success at each task, with 95 % intervals over runs and episodes", success_by_task(rates)


def _trained(label: str, run: Run, seed: int, folder: Path) -> Generator[Stage, None, Policy]:
    tasks = " ".join(TASKS[task] for task in run.tasks)
    cached = CachedRun(run.module, run.inputs, f"{tasks} {OPTIONS}", run.config, seed, folder)
    for now in cached.train(checkpoint_every=10**9, log_every=50):
        yield Stage(f"train {label}, seed {seed}", now.step, now.total, now.metrics.get("success"))
    return cached.policy()


def _play(policy: Policy, make: MakeTask, evaluate: int) -> Rollouts:
    return roll_out(policy, make, seeds=episode_seeds(0, evaluate))


def _told(make: MakeTask, task: int) -> gymnasium.Env:
    return OneHot(make(), task, len(TASKS))


def _arm(label: str, success: np.ndarray, seeds: Sequence[int]) -> claim.Arm:
    """`success` is [run, task, episode]."""
    by_task = {f"success at {task}": success_interval(success[:, i]) for i, task in enumerate(TASKS)}
    runs = [
        claim.Run(
            seed,
            {"success": float(one.mean())}
            | {f"success at {task}": float(one[i].mean()) for i, task in enumerate(TASKS)},
        )
        for seed, one in zip(seeds, success, strict=True)
    ]
    return claim.Arm(label, {}, runs, {"success": mean_of_rates(list(by_task.values())), **by_task})


def _comparisons(success: dict[str, np.ndarray]) -> list[claim.Comparison]:
    flat = {label: outcomes.reshape(len(outcomes), -1) for label, outcomes in success.items()}

    def compared(name: str, arm: str, baseline: str, margin: float) -> claim.Comparison:
        difference = paired_difference(flat[arm], flat[baseline])
        return claim.Comparison(name, arm, baseline, "success", difference, margin, "higher")

    return [
        compared("one by one less together", ALONE, TOGETHER, CLEARLY),
        compared("heads apart less one output", HEADS, TOGETHER, 0.0),
        compared("one by one less heads apart", ALONE, HEADS, 0.0),
    ]

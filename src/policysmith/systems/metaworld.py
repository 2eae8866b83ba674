"""Meta-World: how a policy does on fifty arm tasks, several at once, or on goals and tasks it never saw.

Fifty tasks for one simulated arm share one observation (39 numbers) and one action (4). The suites ask two
questions of them. Multi-task (MT1, MT10, MT25, MT50): can one policy do them all?

    success = mean over tasks and their 50 goals of [the success flag was up at any of 500 steps]

Meta (ML1, ML10, ML45): does a policy find out, in ten episodes, what a new goal or a new task wants? The goal
is not shown, and the three episodes after the ten are what counts. The rules are in `evaluation/suites.py`,
the tasks and their goals in `worlds/metaworld_suites.py`; any policy of the library can be measured.

Yu, Quillen, He, Julian, Narayan, Shively, Adithya, Hausman, Finn and Levine, "Meta-World: A Benchmark and
Evaluation for Multi-Task and Meta Reinforcement Learning", CoRL 2019, arXiv:1910.10897.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from policysmith.common.stages import Stage
from policysmith.evaluation.findings import Findings
from policysmith.evaluation.playing import MakeExpert
from policysmith.evaluation.suites import meta_evaluate, mt_evaluate, suite_findings
from policysmith.policies.protocol import Policy
from policysmith.worlds.metaworld import RewardVersion
from policysmith.worlds.metaworld_suites import GOALS, TEST_GOALS, make_suite


@dataclass(frozen=True)
class Config:
    """The protocol's numbers, as the paper's section 4 and version 3 of the package have them."""

    suite: str = "MT10"
    """MT1, MT10, MT25, MT50, ML1, ML10 or ML45"""
    task: str = ""
    """the task of MT1 or ML1, such as reach-v3"""
    goals: int | None = None
    """goals per task; by default 50 (multi-task) or 40 (meta)"""
    suite_seed: int = 0
    """seed that the goals are drawn from"""
    horizon: int = 500
    """steps of an episode"""
    adaptation_steps: int = 1
    """how often a policy adapts in a trial (meta)"""
    adaptation_episodes: int = 10
    """episodes of exploration before each adaptation (meta)"""
    evaluation_episodes: int = 3
    """episodes that count in a trial (meta)"""
    meta_batch: int = 20
    """trials played at a time, a multiple of the number of test tasks (meta)"""
    parallel: int = 10
    """episodes played at a time (multi-task)"""
    reward_version: RewardVersion = "v2"
    """rewards of the tasks: v2, 0 to 10, or the older v1, which cannot be compared with it"""
    seed: int = 0
    """seed of what the policy draws"""


PRESETS = {"paper": Config(), "tiny": Config("MT1", "reach-v3", goals=2, horizon=10)}


def evaluate(policy: Policy | MakeExpert, *, config: Config = Config()) -> Generator[Stage, None, Findings]:
    """Measure a policy (or the experts that a function gives for each environment) on a suite."""
    suite = make_suite(
        config.suite,
        config.suite_seed,
        task=config.task,
        horizon=config.horizon,
        reward_version=config.reward_version,
    )
    if suite.multi_task:
        goals = GOALS if config.goals is None else config.goals
        result = yield from mt_evaluate(
            policy, suite, goals=goals, seed=config.seed, parallel=config.parallel
        )
    else:
        result = yield from meta_evaluate(
            policy,
            suite,
            goals=TEST_GOALS if config.goals is None else config.goals,
            adaptation_steps=config.adaptation_steps,
            adaptation_episodes=config.adaptation_episodes,
            evaluation_episodes=config.evaluation_episodes,
            batch=config.meta_batch,
            seed=config.seed,
        )
    return suite_findings(f"Meta-World, {suite.name}", {"policy": result})

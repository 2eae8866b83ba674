"""Measuring on suites of tasks as Meta-World's protocol says, for any policy and for scripted experts.

- *Multi-task*: one episode for each goal of each training task; a success is the flag at any step.
- *Meta*: for each goal of each test task a trial: `adaptation_steps` times `adaptation_episodes` episodes of
  exploration, then `evaluation_episodes` that count. A policy learns within a trial by what it keeps in
  `Policy.new_episode`, by its `adapt`, or by both; one that does neither simply plays.

The headline is the mean success over tasks. What a policy is shown beyond the 39 numbers of a task follows
from its `observation_size`: the task as a one-hot vector, or (meta) the last action and its reward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Float

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.common.rng import derive
from policysmith.common.stages import Stage
from policysmith.evaluation.findings import Findings, Table
from policysmith.evaluation.playing import MakeExpert, Rollouts, Start, Trial, play
from policysmith.evaluation.statistics import Interval, mean_interval, mean_of_rates, success_interval
from policysmith.evaluation.task_plots import success_by_task
from policysmith.policies.protocol import Policy
from policysmith.worlds.metaworld_suites import (
    FEEDBACK,
    GOALS,
    OBSERVATION,
    TEST_GOALS,
    Split,
    Suite,
    check_goals,
)


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """What a policy came to on a suite; the arrays are [task, goal, episode].

    `success` and `returns` are of the episodes that count, `exploration` is the success of those before.
    """

    suite: str
    split: Split
    seed: int
    horizon: int
    reward_version: str
    protocol: str
    tasks: tuple[str, ...]
    success: Bool[np.ndarray, "task goal episode"]
    returns: Float[np.ndarray, "task goal episode"]
    exploration: Bool[np.ndarray, "task goal exploration"]

    def task_rate(self, task: str) -> Interval:
        """Success at one task, with an interval over its goals."""
        flags = self.success[self.tasks.index(task)].astype(float)
        # Episodes of one goal are alike: goals are what varies, unless each has one episode.
        return success_interval(flags if flags.shape[1] > 1 else flags.T)

    @property
    def task_rates(self) -> dict[str, Interval]:
        """Success at every task."""
        return {task: self.task_rate(task) for task in self.tasks}

    @property
    def rate(self) -> Interval:
        """Mean success over the tasks, with an interval over goals; the tasks are what they are."""
        return mean_of_rates(list(self.task_rates.values()))

    @property
    def rate_over_tasks(self) -> Interval:
        """The same mean, with an interval that lets the tasks vary too, as if they were drawn from many."""
        goals, tasks = self.rate, mean_interval(self.success.mean(axis=(1, 2)))
        low, high = min(goals.low, tasks.low), max(goals.high, tasks.high)
        return Interval(goals.value, max(0.0, low), min(1.0, high))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in plain.items()} | {
            "tasks": list(self.tasks)
        }


def mt_evaluate(
    policy: Policy | MakeExpert, suite: Suite, *, goals: int = GOALS, seed: int = 0, parallel: int = 10
) -> Generator[Stage, None, SuiteResult]:
    """Play one episode for each of the first `goals` goals of every task of a multi-task suite.

    The protocol wants a policy that acts deterministically: give one that does. An episode ends at its first
    success. `seed` starts whatever the policy draws; the goals are the suite's. Raises `SettingError` for a
    suite that hides its goals, `ShapeError` for a policy of another observation size.
    Source: Yu et al. 2019, section 4.3.
    """
    if not suite.multi_task:
        raise SettingError(f"{suite.name} is a meta-learning suite", cure="measure on it by meta_evaluate")
    check_goals(goals, suite)
    maker = _makers(policy, suite, "train")
    played: list[Rollouts] = []
    for number, task in enumerate(suite.train_names):
        yield Stage(f"play {task}", number, len(suite.train_names))
        trials = [Trial(maker(task), (Start(options={"goal": goal}),)) for goal in range(goals)]
        played.append(play(policy, trials, seed=derive(seed, task), parallel=parallel))
    yield Stage(f"play {suite.name}", len(played), len(played))
    success = np.stack([one.success for one in played])[..., None]
    returns = np.stack([one.returns for one in played])[..., None]
    return _result(suite, "train", "one episode per goal", success, returns, explored=0)


def meta_evaluate(
    policy: Policy | MakeExpert,
    suite: Suite,
    *,
    goals: int = TEST_GOALS,
    adaptation_steps: int = 1,
    adaptation_episodes: int = 10,
    evaluation_episodes: int = 3,
    batch: int = 20,
    split: Split = "test",
    seed: int = 0,
) -> Generator[Stage, None, SuiteResult]:
    """Play a trial for each of the first `goals` goals of every test task (or, by `split`, training task).

    Trials are played `batch` at a time, equally many of every task. Raises `SettingError` where that does not
    work out, where an episode count is too low or the suite shows its goals, and `ShapeError` for a policy of
    another observation size.
    Source: Yu et al. 2019, section 4.3; version 3 of the package for the numbers of episodes.
    """
    if suite.multi_task:
        raise SettingError(f"{suite.name} is a multi-task suite", cure="measure on it by mt_evaluate")
    if adaptation_steps < 0 or adaptation_episodes < 1 or evaluation_episodes < 1:
        raise SettingError(
            f"{adaptation_steps} x {adaptation_episodes} episodes of exploration, then {evaluation_episodes}",
            expected="0 or more steps of 1 or more episodes, then 1 or more",
        )
    rounds = suite.rounds(split, batch=batch, goals=goals)
    maker, names = _makers(policy, suite, split), suite.names(split)
    explore = adaptation_steps * adaptation_episodes
    episodes = explore + evaluation_episodes
    success = np.zeros((len(names), goals, episodes), bool)
    returns = np.zeros(success.shape)
    for number, pairs in enumerate(rounds):
        yield Stage(f"trials of {suite.name}", number, len(rounds))
        trials = [
            Trial(maker(task), [Start(options={"goal": goal})] * episodes, explore, adaptation_episodes)
            for task, goal in pairs
        ]
        played = play(policy, trials, seed=derive(seed, "round", number), parallel=len(trials))
        place = [names.index(task) for task, _ in pairs], [goal for _, goal in pairs]
        success[place] = played.success.reshape(len(pairs), episodes)
        returns[place] = played.returns.reshape(len(pairs), episodes)
    yield Stage(f"trials of {suite.name}", len(rounds), len(rounds))
    protocol = f"{adaptation_steps} x {adaptation_episodes} episodes to explore, then {evaluation_episodes}"
    return _result(suite, split, protocol, success, returns, explored=explore)


def suite_findings(title: str, results: Mapping[str, SuiteResult]) -> Findings:
    """The report of one policy's result, or of several policies' on the same suite, by their names.

    Raises `DataError` where the results cannot stand beside each other: other reward versions, suites, goals
    or protocols.
    """
    if not results:
        raise DataError("there are no results to report")
    check_alike(list(results.values()))
    first = next(iter(results.values()))
    several = len(results) > 1
    summary: dict[str, float | int | str] = {}
    for name, result in results.items():
        suffix = f", {name}" if several else ""
        summary[f"success{suffix}"] = result.rate.value
        summary[f"over goals{suffix}"] = str(result.rate)
        if len(result.tasks) > 1:
            summary[f"over tasks{suffix}"] = str(result.rate_over_tasks)
    summary |= {
        "suite": f"{first.suite}, goals of seed {first.seed}",
        "tasks": f"{len(first.tasks)}, {first.split} split",
        "protocol": f"{first.protocol}; {first.success.shape[1]} goals per task, horizon {first.horizon}",
        "reward version": first.reward_version,
    }
    return Findings(
        title,
        summary,
        tables=_tables(results),
        figures=[
            (
                "Success at every task, with 95 % intervals over its goals",
                success_by_task({name: result.task_rates for name, result in results.items()}),
            )
        ],
        notices=["Success is what the protocol compares; returns are rewards up to the first success."],
        data={"results": {name: result.to_json() for name, result in results.items()}},
    )


def check_alike(results: Sequence[SuiteResult]) -> None:
    """Raise `DataError` where results are not of the same suite, goals, protocol and reward version."""
    first = results[0]
    names = {
        "reward_version": "reward versions",
        "suite": "suites",
        "split": "splits",
        "seed": "seeds of the goals",
        "tasks": "tasks",
        "horizon": "horizons",
        "protocol": "protocols",
    }
    for result in results[1:]:
        for name, words in names.items():
            here, there = getattr(first, name), getattr(result, name)
            if here != there:
                raise DataError(
                    f"results of different {words} in one report: {here} and {there}",
                    cure="measure them alike, or report them apart",
                )
        if first.success.shape != result.success.shape:
            raise DataError("results of different numbers of goals in one report")


# ---- parts -------------------------------------------------------------------------------------------


def _makers(
    policy: Policy | MakeExpert, suite: Suite, split: Split
) -> Callable[[str], Callable[[], gymnasium.Env]]:
    """From a task to what makes its environment, as the policy wants to see it; the same for each call."""
    count = len(suite.names(split))
    options: dict[int, dict[str, bool]] = {OBSERVATION: {}}
    if suite.multi_task:
        options[OBSERVATION + count] = {"one_hot": True}
    else:
        options[OBSERVATION + FEEDBACK] = {"feedback": True}
    size = policy.observation_size if isinstance(policy, Policy) else OBSERVATION
    if size not in options:
        more = f"the task of {suite.name}" if suite.multi_task else "the last action, its reward and end"
        raise ShapeError(
            f"the policy reads observations of width {size}",
            expected=f"{OBSERVATION}, or {max(options)} with {more}",
            cure="train it on the environments of this suite",
        )

    @functools.cache
    def maker(task: str) -> Callable[[], gymnasium.Env]:
        return lambda: suite.environment(task, split=split, **options[size])

    return maker


def _result(
    suite: Suite,
    split: Split,
    protocol: str,
    success: Bool[np.ndarray, "task goal episode"],
    returns: Float[np.ndarray, "task goal episode"],
    *,
    explored: int,
) -> SuiteResult:
    return SuiteResult(
        suite.name,
        split,
        suite.seed,
        suite.horizon,
        suite.reward_version,
        protocol,
        suite.names(split),
        success[..., explored:],
        returns[..., explored:],
        success[..., :explored],
    )


def _tables(results: Mapping[str, SuiteResult]) -> list[Table]:
    first = next(iter(results.values()))
    columns = ["task"]
    for name in results:
        columns += [f"{what}, {name}" if len(results) > 1 else what for what in ("success", "mean return")]
    rows: list[list[object]] = []
    for number, task in enumerate(first.tasks):
        row: list[object] = [task]
        for result in results.values():
            row += [str(result.task_rate(task)), float(result.returns[number].mean())]
        rows.append(row)
    tables = [Table("Success at every task, with 95 % intervals over its goals", columns, rows)]
    if first.exploration.shape[2]:
        episodes = np.arange(first.exploration.shape[2] + first.success.shape[2])
        along = {
            name: np.concatenate([result.exploration, result.success], axis=2).mean(axis=(0, 1))
            for name, result in results.items()
        }
        rows = [[int(i) + 1, *(float(rates[i]) for rates in along.values())] for i in episodes]
        names = list(results) if len(results) > 1 else ["success"]
        tables.append(Table("Success along a trial, exploration first", ["episode", *names], rows))
    return tables

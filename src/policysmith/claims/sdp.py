"""SDP's claim at small scale: Diffusion Policy's success for a fraction of its network calls.

Two Meta-World tasks, the same network, demonstrations, updates and episodes for every arm. The streaming
policy is tried with chunks of four actions (3 chunks in the buffer) and of one (15 chunks); Diffusion Policy
acts the same chunks with all its levels, and with strided DDIM at the streaming policy's own number of calls.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.claims.common.imitation import DRAWER_OPEN, PUSH
from policysmith.common.config import config_to_json
from policysmith.common.rng import numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.comparison import Arm, ArmResult, compare
from policysmith.evaluation.statistics import Interval, paired_difference, success_interval
from policysmith.policies.diffusion import DiffusionPolicy
from policysmith.systems import diffusion_policy, sdp

TASKS = (DRAWER_OPEN, PUSH)
BUDGET: dict[str, Any] = {"steps": 2000, "batch_size": 128}
MARGIN = 0.10
"""Success may be this much lower than Diffusion Policy's and still count as preserved."""
MOST_CALLS = {4: 0.40, 1: 0.10}
"""Chunk length -> share of Diffusion Policy's network calls that the claim allows."""
OUT_OF_PROPORTION = 0.10
"""The share of time may be this much above the share of calls and still count as in proportion."""


def arms(action_steps: int, *, ablations: bool) -> list[Arm]:
    """The arms of one chunk length; Diffusion Policy is trained once for all chunk lengths."""
    base = replace(diffusion_policy.PRESETS["bench"], **BUDGET)
    streaming = replace(sdp.PRESETS["bench"], action_steps=action_steps, **BUDGET)
    chunks = (streaming.horizon - streaming.observation_steps + 1) // action_steps
    calls = -(-streaming.noise_levels // chunks)

    def plain(policy: Any) -> DiffusionPolicy:
        return DiffusionPolicy(policy.model, action_steps=action_steps)

    def strided(policy: Any) -> DiffusionPolicy:
        return DiffusionPolicy(policy.model, action_steps=action_steps, sampling_steps=calls)

    found = [
        Arm(f"Diffusion Policy, Ta {action_steps}", diffusion_policy, base, plain),
        Arm(f"Diffusion Policy, DDIM {calls}, Ta {action_steps}", diffusion_policy, base, strided),
        Arm(f"SDP, Ta {action_steps}", sdp, streaming),
    ]
    if ablations:
        for name, regimes in (
            ("chunk-wise only", (0.0, 0.0, 0.0, 1.0)),
            ("constant only", (1.0, 0.0, 0.0, 0.0)),
        ):
            label = f"SDP, Ta {action_steps}, {name}"
            found.append(Arm(label, sdp, replace(streaming, regimes=regimes)))
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 50, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    by_task: list[list[ArmResult]] = []
    wanted = [*arms(4, ablations=ablations), *arms(1, ablations=False)]
    for task in TASKS:
        episodes = yield from task.episodes(folder)
        results = yield from compare(
            wanted, episodes, task.make, seeds=seeds, evaluate=evaluate, folder=folder, limit=task.limit
        )
        by_task.append(results)
    # Arms over all tasks: each a list of its results, one per task.
    over_tasks = [list(results) for results in zip(*by_task, strict=True)]
    # Arms that share settings share their training, which counts once.
    trained = {
        (task, str(result.arm.config)): sum(result.train_seconds)
        for results in over_tasks
        for task, result in enumerate(results)
    }
    return claim.build_claim(
        "sdp",
        paper_claim="prediction is sped up by about the number of chunks in the buffer, with the success of "
        "Diffusion Policy preserved and without distillation",
        question="on two simulated arm tasks: success not more than 10 points below Diffusion Policy's at no "
        "more than 40 % (four actions a chunk) and 10 % (one) of its network calls, time in proportion",
        arms=[_arm(results, seeds) for results in over_tasks],
        comparisons=[*_comparisons(4, over_tasks), *_comparisons(1, over_tasks)],
        seeds=seeds,
        settings={
            "tasks": [task.demonstrations.description | {"evaluation_limit": task.limit} for task in TASKS],
            "episodes_per_run_and_task": evaluate,
            "network": "U-Net over time, widths 64-128, about 1.1 M weights, horizon 16, 2 observation steps",
            "noise_levels": 50,
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, sum(trained.values())), 1),
        recipe_version=1,
    )


def _arm(results: list[ArmResult], seeds: Sequence[int]) -> claim.Arm:
    """One arm over all tasks: per run its success (over all, and per task), calls and time per action."""
    success = _success(results)
    runs = []
    for i, seed in enumerate(seeds):
        metrics = {"success": float(success[i].mean())}
        for task, result in zip(TASKS, results, strict=True):
            metrics[f"success, {task.name.rpartition('/')[2]}"] = float(result.success[i].mean())
        metrics["network calls per action"] = float(_calls(results)[i])
        runs.append(claim.Run(seed, metrics))
    summary = claim.summarise(runs)
    summary["success"] = success_interval(success)
    for task, result in zip(TASKS, results, strict=True):
        summary[f"success, {task.name.rpartition('/')[2]}"] = success_interval(result.success.astype(float))
    times = np.concatenate([result.timing.action_ms for result in results if result.timing is not None])
    summary["milliseconds per action, median"] = _bootstrap(times, lambda draw: float(np.median(draw)))
    return claim.Arm(results[0].arm.label, config_to_json(results[0].arm.config), runs, summary)


def _comparisons(action_steps: int, over_tasks: list[list[ArmResult]]) -> list[claim.Comparison]:
    """SDP against Diffusion Policy at one chunk length: success, network calls, time."""
    named = {results[0].arm.label: results for results in over_tasks}
    baseline, arm = f"Diffusion Policy, Ta {action_steps}", f"SDP, Ta {action_steps}"
    theirs, ours = named[baseline], named[arm]
    calls = _calls(ours) / _calls(theirs)
    share = float(calls.mean())
    spread = Interval(share - 1, float(calls.min()) - 1, float(calls.max()) - 1)
    slower = _time_share(ours, theirs)
    excess = Interval(slower.value - share, slower.low - share, slower.high - share)
    return [
        claim.Comparison(
            f"success, Ta {action_steps}", arm, baseline, "success",
            paired_difference(_success(ours), _success(theirs)), MARGIN, "not_lower",
        ),
        claim.Comparison(
            f"share of the network calls less one, Ta {action_steps}", arm, baseline,
            "network calls per action", spread, 1 - MOST_CALLS[action_steps], "lower",
        ),
        claim.Comparison(
            f"share of the time less share of the calls, Ta {action_steps}", arm, baseline,
            "milliseconds per action, median", excess, OUT_OF_PROPORTION, "not_higher",
        ),
    ]  # fmt: skip


def _success(results: list[ArmResult]) -> np.ndarray:
    """[run, episode] over the episodes of all tasks."""
    return np.concatenate([result.success for result in results], axis=1).astype(float)


def _calls(results: list[ArmResult]) -> np.ndarray:
    """[run]: network calls per action, the mean of the tasks."""
    return np.mean([result.calls_per_action for result in results], axis=0)


def _time_share(ours: list[ArmResult], theirs: list[ArmResult]) -> Interval:
    """Median time per action of ours over theirs, bootstrapped over decisions."""
    mine, other = (
        np.concatenate([result.timing.action_ms for result in results if result.timing is not None])
        for results in (ours, theirs)
    )
    rng = numpy_generator(0, "time share")
    draws = [
        np.median(rng.choice(mine, len(mine))) / np.median(rng.choice(other, len(other))) for _ in range(1000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(np.median(mine) / np.median(other)), float(low), float(high))


def _bootstrap(values: np.ndarray, statistic: Any) -> Interval:
    rng = numpy_generator(0, "bootstrap")
    draws = [statistic(rng.choice(values, len(values))) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(statistic(values), float(low), float(high))

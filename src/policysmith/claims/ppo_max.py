"""What keeps PPO on a learnt reward from collapsing, one trick at a time.

A small decoder that writes reviews learns by PPO from a reward model, which has the start's own words and is
wrong on a good part of held-out pairs. A program that no training sees says how good reviews really are.
Vanilla PPO has no penalty, rewards as they come and an unclipped critic that begins at nothing; each trick is
put to it alone, and PPO-max has them all. All have as many answers, steps and rates, and the same prompts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common.language import Arm, ArmResult, compare, difference, trained_seconds
from policysmith.claims.common.measurements import by_reward
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    begun,
    held_out,
    measuring,
    review_arm,
)
from policysmith.claims.common.review_ppo import (
    BUDGET,
    EVERY,
    PROXY,
    WITHOUT,
    accuracy,
    learnt_reward,
)
from policysmith.claims.common.reviews import prompts
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import Interval, mean_interval
from policysmith.systems import ppo_max

LOST, KEPT = "share of the best gold that is lost again", "proxy after less before"
FALL, HOLD = 0.2, 0.05
"""Vanilla PPO is to lose more of its best gold than the one, PPO-max no more than the other."""
TRICKS: dict[str, dict[str, Any]] = {
    "penalty": {"kl": 0.05},
    "rewards normalised and clipped": {"rescale": "normalise", "reward_clip": 0.8},
    "critic's moves clipped": {"value_low": 0.2, "value_high": 0.2},
    "critic learns alone first": {"critic_warmup": 10},
}
VANILLA, ALL, PENALTY = "vanilla PPO", "PPO-max", "with penalty"


def arms(critic: str) -> list[Arm]:
    """Vanilla PPO, each trick alone, and all of them; the critic of PPO-max begins as the reward model."""

    def arm(label: str, **settings: Any) -> Arm:
        return Arm(label, ppo_max, ppo_max.Config(**{**BUDGET, **WITHOUT, **settings}))

    every = {name: value for trick in TRICKS.values() for name, value in trick.items()}
    return [
        arm(VANILLA),
        *(arm(f"with {name}", **trick) for name, trick in TRICKS.items()),
        arm("with critic from the reward model", critic=critic),
        arm(ALL, **every, critic=critic),
    ]


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 150, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out records; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    start = yield from begun(folder)
    proxy = yield from learnt_reward(start, folder)
    asked = start.asked(prompts(4000, 5), proxy.model, proxy.name)
    how = measuring(start, every=EVERY, further={PROXY: by_reward(proxy.model)})
    found = arms(str(proxy.path))
    if not ablations:
        found = [one for one in found if one.label in (VANILLA, PENALTY, ALL)]
    tests = held_out(evaluate)
    results = yield from compare(found, asked, seeds=seeds, tests=tests, measuring=how, folder=folder)
    right = yield from accuracy(start, proxy.model, folder)
    return claim.build_claim(
        "ppo-max",
        paper_claim="vanilla PPO on a learnt reward collapses while its reward rises; the penalty per "
        "token is the one lasting cure, and the whole recipe stays stable",
        question=f"does vanilla PPO lose more than {FALL:.0%} of its best gold reward again while the proxy "
        f"rises, does PPO-max lose at most {HOLD:.0%} and end higher",
        arms=[
            review_arm(result, seeds, further=[PROXY], extra={LOST: lost(result), KEPT: risen(result)})
            for result in results.values()
        ],
        comparisons=comparisons(results),
        seeds=seeds,
        settings={
            "task": f"reviews, {evaluate} held-out records, 2 answers each",
            "proxy_right_on_held_out_pairs": right,
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def lost(result: ArmResult) -> list[float]:
    """Per run, how much of the best gold on the way is gone at the end, as a share of it."""
    shares = []
    for _, values in result.curve(HELD_OUT):
        best = max(values)
        shares.append((best - values[-1]) / best if best > 0 else 1.0)
    return shares


def risen(result: ArmResult) -> list[float]:
    """Per run, the proxy's reward at the end less that at its first measurement."""
    return [values[-1] - values[0] for _, values in result.curve(HELD_OUT, PROXY)]


def comparisons(results: dict[str, ArmResult]) -> list[claim.Comparison]:
    """Collapse without, none with all, and the proxy rises meanwhile."""
    metric = f"{HELD_OUT}: {GOLD}"
    higher = difference(results[ALL], results[VANILLA], HELD_OUT)

    def alone(name: str, arm: str, what: str, values: Sequence[float], bound: float, way: Any) -> Any:
        interval: Interval = mean_interval(np.array(values))
        return claim.Comparison(name, arm, arm, what, interval, bound, way)

    return [
        alone("vanilla PPO collapses", VANILLA, LOST, lost(results[VANILLA]), FALL, "higher"),
        alone("while its proxy rises", VANILLA, KEPT, risen(results[VANILLA]), 0.0, "higher"),
        alone("PPO-max stays", ALL, LOST, lost(results[ALL]), HOLD, "not_higher"),
        claim.Comparison("PPO-max ends higher", ALL, VANILLA, metric, higher, 0.0, "higher"),
    ]


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gold of every arm at the end."""
    bars = {arm.name: arm.summary[f"{HELD_OUT}: {GOLD}"] for arm in found.arms}
    return "Gold reward at the end of PPO on a learnt reward", plots.bars_with_intervals(bars, "gold reward")

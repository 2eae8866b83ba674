"""BESO's claim at small scale: three denoising steps, several ways kept apart, a goal that can be turned up.

Play in a maze in which every goal can be reached by two ways. The same transformer is trained on it as a
score model (plain, and with goals left out at times), as regression and over bins of actions. Every sampler,
number of steps and strength of guidance then acts with the same weights. Success is over random pairs of
start and goal; the way taken is watched from one corner to the opposite one, both ways being equally long.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from policysmith.claims.common import goal_cloning
from policysmith.claims.common.imitation import Task
from policysmith.common.config import config_to_json
from policysmith.common.observations import stack, state_of
from policysmith.common.rng import generator, numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.comparison import Arm, ArmResult, compare
from policysmith.evaluation.drawing import Style
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference, success_interval
from policysmith.experience.demonstrations import Demonstrations
from policysmith.policies.acting import Actor
from policysmith.policies.protocol import Policy
from policysmith.policies.score import resampled
from policysmith.systems import beso
from policysmith.training.learners.goals import GoalSettings
from policysmith.worlds import registry

PLAY = Task(
    Demonstrations(
        "point-maze-pillar-play", episodes=300, action_noise=0.3, limit=200, only_successful=False
    ),
    limit=200,
)
MAZE = "point-maze-pillar"
BUDGET: dict[str, Any] = {
    "width": 64,
    "attention_dropout": 0.0,
    "steps": 1500,
    "batch_size": 64,
    "learning_rate": 5e-4,
}
WIDE = 5.0
"""Largest noise of one more arm: at the others' 1, noisy actions still show which way they went."""
WITHIN = 0.03
"""Three steps may succeed this much less often than fifty."""
CLEARLY = 0.2
"""Bits by which the entropy of ways has to be above regression's."""
FEWER_CELLS, MORE_STANDING = 2.0, 0.1
"""Without a goal, so many fewer cells may be visited, and so much more of the time be stood still."""
ROLLOUTS = 30
WATCHED = (
    "BESO, 3 DDIM",
    "BESO, noise to 5, 3 DDIM",
    "GC-BC",
    "C-BeT style",
    "CFG-BESO, 0",
    "CFG-BESO, 1",
)
CORNERS = {"reset_cell": np.array([1, 1]), "goal_cell": np.array([5, 5])}
STANDING = 0.25
"""Speed, in cells per second, below which a step counts as standing; the play moves at up to 5."""


def make(**options: Any) -> gymnasium.Env:
    """A fresh maze, with the goal apart."""
    return registry.make(MAZE, goal=True, **options)


def arms(*, ablations: bool) -> list[Arm]:
    """Score policies first, then what they are compared with; arms of one training share it."""
    plain = replace(beso.PRESETS["bench"], goal_dimensions=(0, 1), **BUDGET)
    dropping = replace(plain, goal_dropping=0.1)
    shared = {field.name: getattr(plain, field.name) for field in fields(GoalSettings)}

    def sampled(label: str, config: beso.Config = plain, **changes: Any) -> Arm:
        return Arm(label, beso, config, lambda policy: resampled(policy, **changes))

    found = [
        *(sampled(f"BESO, {steps} DDIM", sampling_steps=steps) for steps in (3, 1, 2, 5, 20, 50)),
        sampled("BESO, 3 ancestral", sampler="euler_ancestral"),
        sampled("BESO, 3 Heun", sampler="heun"),
        Arm("GC-BC", goal_cloning, goal_cloning.Config(**shared)),
        Arm("C-BeT style", goal_cloning, goal_cloning.Config(**shared, bins=16)),
        *(
            sampled(f"CFG-BESO, {strength:g}", dropping, guidance=strength)
            for strength in (0, 0.5, 1, 1.5, 2)
        ),
        sampled(f"BESO, noise to {WIDE:g}, 3 DDIM", replace(plain, sigma_max=WIDE)),
    ]
    if ablations:
        found += [
            sampled("BESO, 3 linear", schedule="linear"),
            sampled("BESO, 3 Karras", schedule="karras"),
            sampled("BESO, 3, kept actions", keep_last_actions=True),
            sampled("CFG-BESO by element, 1.5", replace(dropping, drop_elements=True), guidance=1.5),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 60, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    episodes = yield from PLAY.episodes(folder)
    results = yield from compare(
        arms(ablations=ablations), episodes, make, seeds=seeds, evaluate=evaluate, folder=folder, parallel=60
    )
    named = {result.arm.label: result for result in results}
    ways = {}
    for done, label in enumerate(WATCHED):
        yield Stage("watch the ways taken", done, len(WATCHED))
        pairs = zip(named[label].policies, seeds, strict=True)
        ways[label] = [watch(policy, seed=seed) for policy, seed in pairs]
    # Arms that share settings share their training, which counts once.
    trained = {str(result.arm.config): sum(result.train_seconds) for result in results}
    return claim.build_claim(
        "beso",
        paper_claim="a score-based policy learns from unlabelled play to reach goals, better than "
        "goal-conditioned baselines and with 3 denoising steps; guidance composes it with what is done "
        "without a goal",
        question="in a maze with two ways to every goal: success with 3 steps at most 3 points below 50 and "
        "above regression's, the entropy of ways above regression's, success that rises with guidance from "
        "0, where the point keeps moving",
        arms=[_arm(result, ways.get(label, []), seeds) for label, result in named.items()],
        comparisons=_comparisons(named, ways),
        seeds=seeds,
        settings={
            "play": asdict(PLAY.demonstrations),
            "environment": MAZE,
            "pairs_of_start_and_goal": evaluate,
            "rollouts_from_corner_to_corner": ROLLOUTS,
            "network": "causal transformer, 3 layers, window 4, one goal state",
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, sum(trained.values())), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The success of every arm, coloured by what was trained."""
    families = ("BESO, noise", "BESO", "GC-BC", "C-BeT", "CFG-BESO")
    colours = {
        arm.name: Style(next(i for i, family in enumerate(families) if arm.name.startswith(family)))
        for arm in found.arms
    }
    success = {arm.name: arm.summary["success"] for arm in found.arms}
    return "Success over random pairs of start and goal", bars_with_intervals(
        success, "success rate", palette=colours
    )


# ---- the ways taken ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ways:
    """What rollouts from one corner to the opposite one were like."""

    entropy: float
    """of the way taken, in bits"""
    cells: float
    """different cells visited, on average"""
    standing: float
    """share of the steps in which the point stood still"""


def watch(policy: Policy, *, seed: int, rollouts: int = ROLLOUTS, steps: int = 200) -> Ways:
    """Play from one corner to the opposite one, always from the same two points, without stopping there."""
    environments = [make(radius=0.0, horizon=steps + 1) for _ in range(rollouts)]
    actor = Actor(policy, rollouts, rng=generator(seed, "ways"))
    seen = [env.reset(seed=0, options=CORNERS)[0] for env in environments]
    states = []
    for _ in range(steps):
        actions = np.clip(actor.act(stack(seen)), -1.0, 1.0)
        seen = [env.step(action)[0] for env, action in zip(environments, actions, strict=True)]
        states.append(np.stack([np.asarray(state_of(one)) for one in seen]))
    maze: Any = environments[0].unwrapped.maze  # type: ignore[attr-defined]
    for env in environments:
        env.close()
    path = np.stack(states, axis=1)
    cells = [[tuple(maze.cell_xy_to_rowcol(place)) for place in one] for one in path[..., :2]]
    speed = np.linalg.norm(path[..., 2:4], axis=-1)
    return Ways(
        route_entropy(cells),
        float(np.mean([len(set(one)) for one in cells])),
        float((speed < STANDING).mean()),
    )


def route_entropy(
    cells: Sequence[Sequence[tuple[int, int]]],
    *,
    corners: tuple[tuple[int, int], tuple[int, int]] = ((1, 5), (5, 1)),
) -> float:
    """Entropy in bits of which of two cells is visited first; rollouts that visit neither do not count."""
    first = [next((cell for cell in one if cell in corners), None) for one in cells]
    taken = [cell for cell in first if cell is not None]
    shares = [taken.count(corner) / len(taken) for corner in corners] if taken else []
    return float(-sum(share * np.log2(share) for share in shares if share > 0)) + 0.0


# ---- the record --------------------------------------------------------------------------------------


def _arm(result: ArmResult, ways: Sequence[Ways], seeds: Sequence[int]) -> claim.Arm:
    """Per run its success, what its ways were like where they were watched, calls and time per action."""
    assert result.timing is not None
    runs = []
    for i, seed in enumerate(seeds):
        metrics = {"success": float(result.success[i].mean())}
        if ways:
            metrics["route entropy (bits)"] = ways[i].entropy
            metrics["cells visited"] = ways[i].cells
            metrics["share of steps standing"] = ways[i].standing
        metrics["network calls per action"] = float(result.calls_per_action[i])
        runs.append(claim.Run(seed, metrics))
    summary = claim.summarise(runs)
    summary["success"] = success_interval(result.success.astype(float))
    summary["milliseconds per action, median"] = _median(result.timing.action_ms)
    return claim.Arm(result.arm.label, config_to_json(result.arm.config), runs, summary)


def _comparisons(results: dict[str, ArmResult], ways: dict[str, list[Ways]]) -> list[claim.Comparison]:
    def success(arm: str, baseline: str) -> Interval:
        return paired_difference(*(results[name].success.astype(float) for name in (arm, baseline)))

    def of_ways(measure: str, arm: str, baseline: str) -> Interval:
        pairs = zip(ways[arm], ways[baseline], strict=True)
        return mean_interval([getattr(a, measure) - getattr(b, measure) for a, b in pairs])

    ours, many, mean = "BESO, 3 DDIM", "BESO, 50 DDIM", "GC-BC"
    without, with_goal = "CFG-BESO, 0", "CFG-BESO, 1"
    return [
        claim.Comparison(
            "3 steps as good as 50", ours, many, "success", success(ours, many), WITHIN, "not_lower"
        ),
        claim.Comparison("above regression", ours, mean, "success", success(ours, mean), 0.0, "higher"),
        claim.Comparison(
            "more ways than regression", ours, mean, "route entropy (bits)",
            of_ways("entropy", ours, mean), CLEARLY, "higher",
        ),
        claim.Comparison(
            "success rises with guidance from 0", with_goal, without, "success",
            success(with_goal, without), 0.0, "higher",
        ),
        claim.Comparison(
            "without a goal, cells are visited", without, with_goal, "cells visited",
            of_ways("cells", without, with_goal), FEWER_CELLS, "not_lower",
        ),
        claim.Comparison(
            "without a goal, it does not stand still", without, with_goal, "share of steps standing",
            of_ways("standing", without, with_goal), MORE_STANDING, "not_higher",
        ),
    ]  # fmt: skip


def _median(values: Float[np.ndarray, "decision"]) -> Interval:
    """The median with its interval, bootstrapped over decisions."""
    rng = numpy_generator(0, "bootstrap")
    draws = [float(np.median(rng.choice(values, len(values)))) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(np.median(values)), float(low), float(high))

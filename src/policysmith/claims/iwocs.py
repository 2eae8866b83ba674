"""IWOCS's claim at small scale: the worst case of a policy that was trained in its own worst worlds.

Two halves. The windy walk is solved exactly: 25 winds, one of them unknown, the search against robust value
iteration and against the policies for no wind and for the mean of the winds. And a pole is balanced on a
cart (InvertedPendulum-v5) whose masses lie in the published box: IWOCS against SAC in worlds drawn at random
and SAC in the nominal world, with as many steps of the environment in all, every policy played in a grid of a
hundred worlds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

from policysmith.common.config import config_to_json
from policysmith.common.rng import derive
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.drawing import LIGHT, blank_figure, draw_grid, draw_legend, dress, palette
from policysmith.evaluation.robustness import GridResult, over_grid
from policysmith.evaluation.statistics import Interval, paired_difference
from policysmith.objectives.tabular import optimal_q, policy_value, robust_q
from policysmith.objectives.worst_case import incremental_worst_case_search
from policysmith.systems import iwocs, sac
from policysmith.worlds import registry
from policysmith.worlds.physics import RandomPhysics, robust_box, with_physics
from policysmith.worlds.windy_walk import DISCOUNT, STRENGTHS, windy_walk

TASK = "InvertedPendulum-v5"
CONFIG = iwocs.PRESETS["bench"]
LONGEST = 200
"""Steps of an episode, eight seconds; the task itself allows 1000."""
GRID = 10
"""Values of each mass in the grid that every policy is played on."""
WALK = "windy walk, "
SEARCH, NOMINAL, MEAN, ROBUST = (
    WALK + name for name in ("IWOCS", "no wind", "mean of the winds", "robust value iteration")
)
WORST_VALUE, MEAN_VALUE, SOLVED = "worst value", "mean value", "models solved"
WORST, AVERAGE = "worst-case return", "average return"
ROUNDING = 1e-6
"""Values may differ by so much and be the same."""
MOST_SOLVED = 2
"""So many of the 25 winds the search may solve."""
MARGIN = 0.05
"""IWOCS's worst case may be lower than that of random worlds by this share of the longest episode."""
IN_TURN, AT_RANDOM, PLAIN = "IWOCS", "SAC, worlds at random", "SAC, nominal world"


@dataclass(frozen=True)
class Pendulum:
    """One arm of the second half: a system with its settings, and the worlds that it is trained in."""

    name: str
    module: ModuleType
    config: Any
    make: Callable[[], gymnasium.Env]

    def run(self, seed: int, folder: Path) -> CachedRun:
        """The training run."""
        return CachedRun(self.module, (self.make,), f"{TASK}, {self.name}", self.config, seed, folder)


def make() -> gymnasium.Env:
    """The task in its nominal world."""
    return registry.make(TASK, max_episode_steps=LONGEST)


def make_in(parameters: Mapping[str, float]) -> gymnasium.Env:
    """The task in another world."""
    return with_physics(make(), parameters)


def make_at_random() -> gymnasium.Env:
    """The task in worlds drawn from the box."""
    return RandomPhysics(make(), robust_box(TASK))


def arms() -> list[Pendulum]:
    """The arms, with as many steps of the environment each."""
    steps = CONFIG.default_steps + CONFIG.worlds * CONFIG.steps_per_world
    shared = config_to_json(CONFIG.sac) | {"environment_steps": steps, "hidden": CONFIG.sac.hidden}
    baseline = sac.Config(**shared)
    return [
        Pendulum(IN_TURN, iwocs, CONFIG, make),
        Pendulum(AT_RANDOM, sac, baseline, make_at_random),
        Pendulum(PLAIN, sac, baseline, make),
    ]


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 3, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run both halves; finished training runs are taken from `folder`.

    `evaluate` episodes are played in each world of the grid. With `ablations`, IWOCS's default policy is
    played alone too.
    """
    began = time.perf_counter()
    walked = walk_arms()
    played: dict[str, list[GridResult]] = {}
    trained = 0.0
    for seed in seeds:
        for arm in arms():
            run = arm.run(seed, folder)
            for now in run.train(checkpoint_every=2000):
                yield Stage(f"train {arm.name}, seed {seed}", now.step, now.total, now.metrics.get("return"))
            trained += seconds_of(run)
            policies = {arm.name: run.policy()}
            if ablations and arm.module is iwocs:
                policies["IWOCS, default alone"] = policies[arm.name].default
            for name, policy in policies.items():
                yield Stage(f"play {name}, seed {seed}", 0, 1)
                played.setdefault(name, []).append(on_the_grid(policy, evaluate))
                yield Stage(f"play {name}, seed {seed}", 1, 1)
    comparisons = [*walk_comparisons(walked), *pendulum_comparisons(played)]
    return claim.build_claim(
        "iwocs",
        paper_claim="alternating ordinary reinforcement learning with a search for the worst static world "
        "finds robust policies: the exact robust value on the windy walk after two iterations, and the best "
        "worst-case score on 7 of 11 MuJoCo tasks, far above domain randomisation",
        question=f"the windy walk is solved exactly with at most {MOST_SOLVED} of its 25 models; and on "
        f"{TASK} with unknown masses, the lowest mean return over a grid of {GRID} x {GRID} worlds is for "
        f"IWOCS not more than {MARGIN:.0%} of the longest episode below that of SAC in worlds at random, "
        "and above that of SAC in the nominal world, after as many steps; so is that of SAC at random",
        arms=[*walked, *(pendulum_arm(name, results, seeds) for name, results in played.items())],
        comparisons=comparisons,
        seeds=seeds,
        settings={
            "windy_walk": {"discount": DISCOUNT, "winds": len(STRENGTHS), "map": "6 x 6, ours"},
            "task": TASK,
            "longest_episode": LONGEST,
            "box": [asdict(parameter) for parameter in robust_box(TASK).parameters],
            "grid": f"{GRID} values per mass, {evaluate} episodes in each world, from the same seeds",
            "iwocs": config_to_json(CONFIG),
            "baseline_environment_steps": arms()[1].config.environment_steps,
        },
        seconds=round(max(time.perf_counter() - began, trained), 1),
        recipe_version=1,
    )


# ---- the windy walk ----------------------------------------------------------------------------------


def walk_policies() -> dict[str, tuple[torch.Tensor, int]]:
    """Arm -> its policy [state], and how many models it solved for it."""
    walk = windy_walk()
    found = incremental_worst_case_search(walk.transition, walk.reward, DISCOUNT, start=walk.start)
    mean = walk.transition.mean(0)
    return {
        SEARCH: (found.policy, len(found.solved)),
        NOMINAL: (optimal_q(walk.transition[0], walk.reward, DISCOUNT).argmax(-1), 1),
        MEAN: (optimal_q(mean, walk.reward, DISCOUNT).argmax(-1), 1),
        ROBUST: (robust_q(walk.transition, walk.reward, DISCOUNT).argmax(-1), len(STRENGTHS)),
    }


def walk_values(policy: torch.Tensor) -> np.ndarray:
    """What a policy gets from the start in each wind."""
    walk = windy_walk()
    return (policy_value(policy, walk.transition, walk.reward, DISCOUNT) @ walk.start).numpy()


def walk_arms() -> list[claim.Arm]:
    """The exact half: no runs, and intervals of width zero, since nothing is drawn."""
    found = []
    for name, (policy, solved) in walk_policies().items():
        values = walk_values(policy)
        numbers = {WORST_VALUE: values.min(), MEAN_VALUE: values.mean(), SOLVED: solved}
        summary = {metric: _exactly(float(number)) for metric, number in numbers.items()}
        found.append(claim.Arm(name, {"exact": True}, [], summary))
    return found


def walk_comparisons(walked: Sequence[claim.Arm]) -> list[claim.Comparison]:
    """The search against robust value iteration: its value, and how many models it solved for it."""
    named = {arm.name: arm.summary for arm in walked}

    def difference(metric: str) -> Interval:
        return _exactly(named[SEARCH][metric].value - named[ROBUST][metric].value)

    return [
        claim.Comparison(
            "windy walk: worst value less the robust value", SEARCH, ROBUST, WORST_VALUE,
            difference(WORST_VALUE), ROUNDING, "not_lower",
        ),
        claim.Comparison(
            "windy walk: models solved less all of them", SEARCH, ROBUST, SOLVED,
            difference(SOLVED), len(STRENGTHS) - MOST_SOLVED - 0.5, "lower",
        ),
    ]  # fmt: skip


def _exactly(number: float) -> Interval:
    return Interval(number, number, number)


# ---- the pendulum ------------------------------------------------------------------------------------


def on_the_grid(policy: Any, episodes: int) -> GridResult:
    """A policy in every world of the grid."""
    box = robust_box(TASK)
    worlds = [box.named(point) for point in box.grid(GRID)]
    starts = [derive(0, "evaluation", i) for i in range(episodes)]
    return over_grid(policy, make_in, worlds, seeds=starts)


def pendulum_arm(name: str, results: Sequence[GridResult], seeds: Sequence[int]) -> claim.Arm:
    """Worst and average over the grid per run, and in which world the worst was."""
    runs = [
        claim.Run(seed, {WORST: result.worst, AVERAGE: result.average})
        for seed, result in zip(seeds, results, strict=True)
    ]
    worlds = [{key: round(value, 2) for key, value in result.worst_point.items()} for result in results]
    return claim.Arm(name, {"worst_worlds": worlds}, runs, claim.summarise(runs))


def pendulum_comparisons(played: Mapping[str, Sequence[GridResult]]) -> list[claim.Comparison]:
    """IWOCS against worlds at random, and both against the nominal world, in the worst case."""

    def difference(arm: str, baseline: str) -> Interval:
        mine, theirs = ([[result.worst] for result in played[name]] for name in (arm, baseline))
        return paired_difference(mine, theirs)

    return [
        claim.Comparison(
            f"worst case, {IN_TURN} less {AT_RANDOM}", IN_TURN, AT_RANDOM, WORST,
            difference(IN_TURN, AT_RANDOM), MARGIN * LONGEST, "not_lower",
        ),
        claim.Comparison(
            f"worst case, {IN_TURN} less {PLAIN}", IN_TURN, PLAIN, WORST,
            difference(IN_TURN, PLAIN), 0.0, "higher",
        ),
        claim.Comparison(
            f"worst case, {AT_RANDOM} less {PLAIN}", AT_RANDOM, PLAIN, WORST,
            difference(AT_RANDOM, PLAIN), 0.0, "higher",
        ),
    ]  # fmt: skip


def seconds_of(run: CachedRun) -> float:
    """Seconds that a run spent, from its log."""
    lines = run.directory.metrics()
    per_step = [line["seconds/collect"] + line["seconds/update"] for line in lines]
    return float(np.mean(per_step) * lines[-1]["step"])


# ---- the plot ----------------------------------------------------------------------------------------


def plot(record: claim.Claim) -> tuple[str, Figure]:
    """Caption and figure: the walk's policies in every wind, and worst case and average on the pendulum."""
    figure = blank_figure(LIGHT, height=3.6)
    left, right = figure.subplots(1, 2)
    policies = walk_policies()
    shown = {name: policies[name][0] for name in (SEARCH, NOMINAL, MEAN)}
    styles = palette(list(shown))
    entries = []
    for name, policy in shown.items():
        (line,) = left.plot(STRENGTHS, walk_values(policy), color=styles[name].colour(LIGHT))
        entries.append((line, name.removeprefix(WALK)))
    left.set_xlabel("strength of the wind")
    left.set_ylabel("value from the start")
    deep = [arm for arm in record.arms if WORST in arm.summary]
    for place, arm in enumerate(deep):
        for shift, metric, marker in ((-0.12, WORST, "o"), (0.12, AVERAGE, "s")):
            one = arm.summary[metric]
            ends = np.array([[one.value - max(one.low, 0)], [one.high - one.value]])
            right.errorbar(
                place + shift, one.value, yerr=np.where(np.isfinite(ends), ends, 0), fmt=marker,
                color=LIGHT.colours[3 if metric == WORST else 4], markersize=5, linewidth=1,
            )  # fmt: skip
    right.set_xticks(range(len(deep)), [arm.name.replace(", ", ",\n") for arm in deep], fontsize=7)
    right.set_ylabel("return: worst case (dot), average (square)")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        dress(axes, LIGHT)
        draw_grid(axes, LIGHT, "y")
    right.tick_params(axis="x", labelsize=7)
    draw_legend(figure, LIGHT, entries)
    return (
        "Left: the windy walk, value of three policies in every wind. Right: the pendulum, over a grid of a "
        "hundred worlds, with 95 % intervals over runs",
        figure,
    )

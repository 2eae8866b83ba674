"""C-MORL's claim at small scale: extending the front finds policies that no fixed weights would.

On the concave map of Deep Sea Treasure a submarine chooses among ten treasures, the farther the richer, and
pays for every step. Only the nearest and the farthest are the best for some weights of treasure and time; the
eight between them lie inside the hull. Three arms take the same number of environment steps, and evaluate
after every update:

- C-MORL: a first stage of three weight vectors, then extensions from the emptiest places;
- its first stage alone, the same three weight vectors with all the steps;
- C-MORL with the policies that are extended picked at random.

The measure is the hypervolume of the archive; that of the whole front is known exactly.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import training_seconds
from policysmith.evaluation.drawing import LIGHT, blank_axes, draw_grid, draw_legend, palette
from policysmith.evaluation.statistics import Direction, Interval, paired_difference
from policysmith.objectives.pareto import hypervolume
from policysmith.systems import c_morl

DEEP_SEA = "mo_gymnasium:deep-sea-treasure-concave-v0"
TREASURES = ((1, 1), (2, 3), (3, 5), (5, 7), (8, 8), (16, 9), (24, 13), (50, 14), (74, 17), (124, 19))
"""The value of each treasure and the fewest steps to it."""
HOPPER = "mo_gymnasium:mo-hopper-2obj-v5"
EXTENDED, ALONE, RANDOM = "C-MORL", "first stage alone", "extended at random"
VOLUME, UTILITY, SPARSITY, MEMBERS = "hypervolume", "expected utility", "sparsity", "policies kept"
PLAYED = "environment steps of evaluation"
FOUND = "treasures reached by a shortest way"
FRONT = "front of the first seed"

CLAIMED: tuple[tuple[str, str, Direction], ...] = (
    ("larger than the first stage alone", ALONE, "higher"),
    ("not smaller than with random picks", RANDOM, "not_lower"),
)


@dataclass(frozen=True)
class World:
    """An environment, and the settings under which its arms are compared."""

    label: str
    environment: str
    config: c_morl.Config


WORLDS = (
    World("deep sea", DEEP_SEA, c_morl.PRESETS["deep-sea-treasure"]),
    World("hopper", HOPPER, c_morl.PRESETS["hopper"]),
)
"""The first decides; the second, which is continuous, is played with the ablations."""


@dataclass
class ArmResult:
    """The runs of one arm in one world."""

    world: World
    name: str
    config: c_morl.Config
    metrics: list[dict[str, float]] = field(default_factory=list)
    fronts: list[list[list[float]]] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, metric: str) -> np.ndarray:
        """[seed, 1]: one number per run."""
        return np.array([[one[metric]] for one in self.metrics])


def arms(world: World) -> list[ArmResult]:
    """The three arms, of as many environment steps."""
    config = world.config
    alone = replace(config, initial_steps=config.environment_steps)
    return [
        ArmResult(world, EXTENDED, config),
        ArmResult(world, ALONE, alone),
        ArmResult(world, RANDOM, replace(config, selection="random")),
    ]


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 1, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`.

    Every policy is evaluated on `evaluate` episodes; in Deep Sea Treasure, where nothing is random, one says
    all. With `ablations`, the hopper is trained too.
    """
    began = time.perf_counter()
    results: list[ArmResult] = []
    for world in WORLDS if ablations else WORLDS[:1]:
        config = replace(world.config, episodes=max(evaluate, world.config.episodes))
        for result in arms(replace(world, config=config)):
            yield from _train(result, seeds, folder)
            results.append(result)
    deep = {result.name: result for result in results if result.world.environment == DEEP_SEA}
    comparisons = compared(deep)
    return claim.build_claim(
        "c-morl",
        paper_claim="extending the front from its emptiest places under constraints covers it better than "
        "fixed weights do, by up to 35 % of the hypervolume against the best baseline, and better than "
        "extending policies picked at random",
        question="on the concave map of Deep Sea Treasure, at equal environment steps: a larger hypervolume "
        "than the first stage alone, and none smaller than with random picks",
        arms=[_arm(result, seeds) for result in results],
        comparisons=comparisons,
        reason=_reason(deep, comparisons),
        seeds=seeds,
        settings={
            "environments": [world.environment for world in (WORLDS if ablations else WORLDS[:1])],
            "exact front": [[round(value, 3) for value in point] for point in exact_front()],
            "hypervolume of the exact front": round(volume_of(exact_front()), 2),
            "hypervolume of its two ends": round(volume_of([exact_front()[0], exact_front()[-1]]), 2),
        },
        seconds=round(max(time.perf_counter() - began, sum(result.seconds for result in results)), 1),
        recipe_version=1,
    )


def exact_front(discount: float = WORLDS[0].config.evaluation_discount) -> list[tuple[float, float]]:
    """The discounted returns of the ten shortest ways: treasure, and minus the time."""
    return [
        (value * discount ** (steps - 1), -(1 - discount**steps) / (1 - discount))
        for value, steps in TREASURES
    ]


def volume_of(points: Sequence[Sequence[float]]) -> float:
    """Hypervolume of points above the reference of the deep sea."""
    reference = torch.tensor(WORLDS[0].config.reference)
    return float(hypervolume(torch.tensor([list(point) for point in points]), reference=reference))


def reached(points: Float[Tensor, "point objective"]) -> int:
    """How many points of the exact front are among `points`."""
    exact = torch.tensor(exact_front(), dtype=torch.double)
    return int(((points.double()[:, None] - exact).abs().amax(-1) < 0.01).any(0).sum())


def compared(deep: dict[str, ArmResult]) -> list[claim.Comparison]:
    """What the claim says of the deep sea, part by part; runs are paired by their seeds."""

    def gap(other: str) -> Interval:
        return paired_difference(deep[EXTENDED].of(VOLUME), deep[other].of(VOLUME))

    names = {name: _label(result) for name, result in deep.items()}
    return [
        claim.Comparison(what, names[EXTENDED], names[other], VOLUME, gap(other), 0.0, direction)
        for what, other, direction in CLAIMED
    ]


def plot(record: claim.Claim) -> tuple[str, Figure]:
    """The fronts of the first seed beside the exact one."""
    chosen = [arm for arm in record.arms if arm.name.startswith(WORLDS[0].label)]
    styles = palette([arm.name for arm in chosen])
    figure, axes = blank_axes(LIGHT, height=3.6)
    exact = np.array(record.settings["exact front"])
    (line,) = axes.plot(exact[:, 1], exact[:, 0], "o-", color=LIGHT.muted, markersize=3, linewidth=0.8)
    entries: list[Any] = [(line, "exact front")]
    for size, arm in zip((9, 7, 5), chosen, strict=False):
        points = np.array(arm.settings[FRONT])
        colour = styles[arm.name].colour(LIGHT)
        (marks,) = axes.plot(
            points[:, 1], points[:, 0], "o",
            color=colour, markersize=size, fillstyle="none", markeredgewidth=1.6,
        )  # fmt: skip
        entries.append((marks, arm.name.removeprefix(f"{WORLDS[0].label}: ")))
    axes.set_xlabel("discounted time, negative")
    axes.set_ylabel("discounted treasure")
    draw_grid(axes, LIGHT, "both")
    draw_legend(figure, LIGHT, entries)
    return f"What the policies of seed {record.seeds[0]} achieve on the concave map", figure


# ---- parts -------------------------------------------------------------------------------------------


def _train(result: ArmResult, seeds: Sequence[int], folder: Path) -> Generator[Stage, None, None]:
    world = result.world
    for seed in seeds:
        run = CachedRun(c_morl, (world.environment,), world.environment, result.config, seed, folder)
        for now in run.train(checkpoint_every=50, log_every=1):
            yield Stage(
                f"train {_label(result)}, seed {seed}", now.step, now.total, now.metrics["hypervolume"]
            )
        policy, last = run.policy(), run.directory.metrics()[-1]
        measured = {
            VOLUME: policy.hypervolume(result.config.reference),
            UTILITY: policy.expected_utility(result.config.utility_parts),
            SPARSITY: policy.sparsity(),
            MEMBERS: float(len(policy)),
            PLAYED: last["evaluation_steps"],
        }
        if world.environment == DEEP_SEA:
            measured[FOUND] = float(reached(policy.returns))
        result.metrics.append(measured)
        order = policy.returns[policy.returns[:, 0].argsort()]
        result.fronts.append([[round(value, 2) for value in row] for row in order.tolist()])
        result.seconds += training_seconds(run)


def _label(result: ArmResult) -> str:
    return f"{result.world.label}: {result.name}"


def _arm(result: ArmResult, seeds: Sequence[int]) -> claim.Arm:
    runs = [claim.Run(seed, metrics) for seed, metrics in zip(seeds, result.metrics, strict=True)]
    settings = {"config": config_to_json(result.config), FRONT: result.fronts[0]}
    return claim.Arm(_label(result), settings, runs, claim.summarise(runs))


def _reason(deep: dict[str, ArmResult], comparisons: Sequence[claim.Comparison]) -> str:
    parts = [f"{one.name}: {one.difference}, {one.verdict}" for one in comparisons]
    ours, theirs = (deep[name].of(VOLUME)[:, 0] for name in (EXTENDED, ALONE))
    volumes = "; ".join(
        f"{name} {', '.join(f'{value:.0f}' for value in result.of(VOLUME)[:, 0])}"
        for name, result in deep.items()
    )
    return (
        "; ".join(parts)
        + f". Hypervolumes by seed: {volumes}; of the exact front {volume_of(exact_front()):.0f}. "
        f"Larger than the first stage alone on {int((ours > theirs).sum())} of {len(ours)} seeds"
    )

"""SERL's claim at small scale: a drawer is opened from ten demonstrations and a reward of success alone.

Meta-World's drawer, the reward 1 at success and 0 before it, actions held for four of the simulator's steps
(20 decisions per second). The demonstrator is imprecise, as people are: noise is added to what the scripted
expert does. RLPD learns from 2,000 decisions; beside it, each of its parts is taken away in turn, and the
demonstrations are cloned. Everything is measured in the same fifty episodes, which no run has seen.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common.imitation import Task
from policysmith.common.saving import load_json, save_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.plots import learning_curves
from policysmith.evaluation.rollouts import roll_out
from policysmith.evaluation.statistics import Interval, paired_difference, success_interval
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.systems import behaviour_cloning, serl

DRAWER = Task(
    Demonstrations(
        "metaworld/drawer-open-v3",
        episodes=10,
        action_noise=0.5,
        options={"sparse": True, "hold": 4, "horizon": 100},
    ),
    limit=25,
)
RLPD, ALONE, CLONING = "RLPD", "without demonstrations", "behaviour cloning"
ENOUGH, LITTLE, CLEARLY = 0.9, 0.2, 0.15
"""RLPD has to succeed so often, SAC without demonstrations less than so, and cloning by so much less."""
EVERY, WATCHED = 500, 20
"""Decisions between two looks at a run in training, and the episodes of a look."""


@dataclass(frozen=True)
class Arm:
    """One side of the experiment: which system, with which settings."""

    label: str
    module: ModuleType
    config: Any


def arms(*, ablations: bool) -> list[Arm]:
    """RLPD, the same without its parts, and cloning; as ablations fewer critics and a learned reward."""
    rlpd = serl.PRESETS["bench"]
    found = [
        Arm(RLPD, serl, rlpd),
        Arm(ALONE, serl, replace(rlpd, demonstration_share=0.0)),
        Arm("without LayerNorm", serl, replace(rlpd, layer_norm=False)),
        Arm("1 update per step", serl, replace(rlpd, updates=1, policy_every=1)),
        Arm(CLONING, behaviour_cloning, replace(behaviour_cloning.PRESETS["bench"], hidden=(64, 64))),
    ]
    if ablations:
        found.append(Arm("2 critics", serl, replace(rlpd, members=2)))
        found.append(Arm("reward of a classifier", serl, replace(rlpd, reward="classifier")))
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 50, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    episodes = yield from DRAWER.episodes(folder)
    sides = arms(ablations=ablations)
    success: dict[str, np.ndarray] = {}
    curves: dict[str, list[dict[str, float]]] = {}
    for side in sides:
        outcomes, looks = [], []
        for seed in seeds:
            flags, look = yield from _measure(side, episodes, seed, folder, evaluate)
            outcomes.append(flags)
            looks.append(look)
        success[side.label], curves[side.label] = np.stack(outcomes).astype(float), looks
    return claim.build_claim(
        "serl",
        paper_claim="from about twenty demonstrations and a reward of success alone, RLPD learns to insert, "
        "route and move real objects to (near) perfect success in 25 to 50 minutes",
        question=f"a drawer from {len(episodes)} demonstrations and 8,000 simulator steps: success of RLPD "
        "at least 90 %, that of SAC without demonstrations below 20 %, and RLPD at least 15 points above "
        "cloning",
        arms=[
            *(_arm(side, success[side.label], curves[side.label], seeds) for side in sides),
            *(claim.Arm(f"{level:.0%}", {}, [], {"success": _at(level)}) for level in (ENOUGH, LITTLE)),
        ],
        comparisons=_comparisons(success),
        seeds=seeds,
        settings={
            "demonstrations": asdict(DRAWER.demonstrations),
            "decisions": serl.PRESETS["bench"].environment_steps,
            "simulator_steps_per_decision": 4,
            "network": "two layers of 64, observations at the demonstrations' scale",
            "batch": serl.PRESETS["bench"].batch_size,
            "episodes": evaluate,
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Success during training against decisions, of every arm that learns by trying."""
    curves = {}
    for arm in found.arms:
        looks = [_look_of(run.metrics) for run in arm.runs]
        if looks and looks[0][0]:
            curves[arm.name] = looks
    return "Success while learning, the band from the lowest run to the highest", learning_curves(
        curves, "success rate", xlabel="decisions"
    )


# ---- one run -------------------------------------------------------------------------------------------


def _measure(
    side: Arm, episodes: Episodes, seed: int, folder: Path, evaluate: int
) -> Generator[Stage, None, tuple[np.ndarray, dict[str, float]]]:
    """Train, looking at the policy now and then; the outcomes of the last one's episodes, and the looks."""
    inputs = (DRAWER.make, episodes) if side.module is serl else (episodes,)
    run = CachedRun(side.module, inputs, episodes.fingerprint, side.config, seed, folder)
    kept = run.path / "looks.json"
    look: dict[str, float] = load_json(kept) if kept.is_file() else {}
    for now in run.train(checkpoint_every=10**9, log_every=50):
        if side.module is serl and now.step % EVERY == 0:
            rate = roll_out(now.state.policy(), DRAWER.make, seeds=episode_seeds(1, WATCHED)).success.mean()
            look[f"success after {now.step}"] = float(rate)
            save_json(kept, look)
        yield Stage(f"train {side.label}, seed {seed}", now.step, now.total, now.metrics.get("success"))
    yield Stage(f"play {side.label}, seed {seed}", 0, 1)
    return roll_out(run.policy(), DRAWER.make, seeds=episode_seeds(0, evaluate)).success, look


def _arm(
    side: Arm, success: np.ndarray, looks: Sequence[dict[str, float]], seeds: Sequence[int]
) -> claim.Arm:
    runs = [
        claim.Run(seed, {"success": float(flags.mean()), **look})
        for seed, flags, look in zip(seeds, success, looks, strict=True)
    ]
    return claim.Arm(side.label, {}, runs, {"success": success_interval(success)})


def _comparisons(success: dict[str, np.ndarray]) -> list[claim.Comparison]:
    rlpd, alone = success_interval(success[RLPD]), success_interval(success[ALONE])
    return [
        claim.Comparison(
            "success of RLPD less 90 %",
            RLPD,
            f"{ENOUGH:.0%}",
            "success",
            Interval(rlpd.value - ENOUGH, rlpd.low - ENOUGH, rlpd.high - ENOUGH),
            0.0,
            "not_lower",
        ),
        claim.Comparison(
            "success of SAC without demonstrations less 20 %",
            ALONE,
            f"{LITTLE:.0%}",
            "success",
            Interval(alone.value - LITTLE, alone.low - LITTLE, alone.high - LITTLE),
            0.0,
            "lower",
        ),
        claim.Comparison(
            "success of RLPD less that of cloning",
            RLPD,
            CLONING,
            "success",
            paired_difference(success[RLPD], success[CLONING]),
            CLEARLY,
            "higher",
        ),
    ]


def _at(level: float) -> Interval:
    return Interval(level, level, level)


def _look_of(metrics: Any) -> tuple[list[float], list[float]]:
    """Steps and success rates of one run's looks."""
    steps = sorted(int(name.split()[-1]) for name in metrics if name.startswith("success after"))
    return [float(step) for step in steps], [metrics[f"success after {step}"] for step in steps]

"""T-PPO's claim at small scale: the same accuracy for fewer decoding steps, since nothing waits.

A small model that knows sums of a few terms was then taught by a teacher who slips. Each arm has
equally many answers under way. PPO is the same recipe with a window as long as the longest answer: then
every answer is written to its end and nothing is cut. One more arm takes each cut for a failure. The clock is
decoding steps: one for each time that the model is asked for the next token of all answers under way, however
many of the slots stand idle, and one for reading what there is before the first of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common import reasoning
from policysmith.claims.common.arithmetic import Level, Mixture, careless_examples, right
from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    Measuring,
    claim_arm,
    compare,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.plots import learning_curves
from policysmith.evaluation.statistics import Interval, mean_interval
from policysmith.policies.language.sampling import Sampling
from policysmith.systems import grpo, t_ppo
from policysmith.training.learners.supervised import SupervisedSettings

MIXTURE = Mixture(((Level(2, 1), 8.0), (Level(3, 1), 5.0), (Level(4, 1), 4.0), (Level(6, 1), 3.0)))
"""What is asked; right answers take 9 to 42 tokens."""
SPOILT = Mixture(((Level(2, 1), 1), (Level(3, 1), 1), (Level(4, 1), 2), (Level(6, 1), 2)))
SPOILING = SupervisedSettings(steps=600, batch_size=16, learning_rate=2e-3, warmup_steps=20)
SLIPS = 0.3
"""The start can do sums, and has then been taught by solutions with so many of the steps wrong."""
SLOTS, LIMIT, WINDOW = 64, 54, 18
"""As in the port, the window is a third of the longest answer."""
WHOLE = 45
"""Decoding steps that a rollout of whole answers takes, about: those of its longest one."""
BUDGET, MEASURED, WARMING = 1620, 180, 180
"""Decoding steps of every arm, between two measurements, and in which the critic learns alone; about."""
TARGET = 0.45
"""The held-out accuracy that is to be reached."""
FEWER, WITHIN = 1.5, 0.02
"""PPO is to need so many times the decoding steps; the final accuracy may be so far below."""
TEST = "held out"
ACCURACY, CLOCK = f"{TEST}: accuracy", "ln decoding steps to the target"
OURS, PPO, FAILURE, GROUPS = "T-PPO", "PPO", "T-PPO, a cut is a failure", "GRPO"
TICKS = 6
"""Points of the clock at which the accuracy is kept in the record."""

SHARED: dict[str, Any] = {
    "answer_limit": LIMIT,
    "learning_rate": 2e-4,
    "weight_decay": 0.0,
    "warmup_steps": 0,
}


@dataclass(frozen=True)
class Side:
    """An arm, and how many of its steps lie between two measurements."""

    label: str
    module: ModuleType
    config: Any
    every: int


def sides(*, ablations: bool) -> list[Side]:
    """T-PPO, what it is compared with, and where asked other windows."""

    def windowed(label: str, window: int, **changes: Any) -> Side:
        takes = min(window, WHOLE)
        config = replace(
            t_ppo.PRESETS["bench"],
            **SHARED,
            prompts=SLOTS,
            window=window,
            steps=BUDGET // takes,
            critic_warmup=WARMING // takes,
            critic_learning_rate=1e-3,
            recompute_old=False,  # the sampler and the learner agree to rounding here
            **changes,
        )
        return Side(label, t_ppo, config, MEASURED // takes)

    answers = 8
    groups = grpo.Config(
        **SHARED,
        prompts=SLOTS // answers,
        group_size=answers,
        steps=BUDGET // WHOLE,
        optimizer_steps=2,
        beta=0.0,
    )
    found = [
        windowed(OURS, WINDOW),
        windowed(PPO, LIMIT, optimizer_steps=2),
        windowed(FAILURE, WINDOW, carry_value=False),
        Side(GROUPS, grpo, groups, MEASURED // WHOLE),
    ]
    if ablations:
        found += [windowed(f"{OURS}, window {window}", window) for window in (6, 30)]
    return found


def warm_start() -> WarmStart:
    """The model that all arms start from: it could do better than it does."""
    careless = careless_examples(SPOILT.questions(20_000, 5), SLIPS, 0)
    return WarmStart(careless, SPOILING, **reasoning.SIZES, first=reasoning.knowing())


def start(folder: Path) -> Generator[Stage, None, Start]:
    """The warm start, and what it is asked."""
    taught = warm_start()
    yield from taught.make(folder)
    path = taught.path(folder)
    return Start(path, path.name, MIXTURE.questions(4000, 1), right, "right")


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 256, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    begun = yield from start(folder)
    tests = {TEST: MIXTURE.questions(evaluate, 2, held_out=True)}
    results: dict[str, ArmResult] = {}
    for side in sides(ablations=ablations):
        results |= yield from compare(
            [Arm(side.label, side.module, side.config)],
            begun,
            seeds=seeds,
            tests=tests,
            measuring=measuring(side.every),
            folder=folder,
        )
    yield Stage("measure the start", 0, 1)
    before = measured_start(begun, tests, measuring(0))[TEST]
    return claim.build_claim(
        "t-ppo",
        paper_claim="windows of fixed length, with an advantage for answers that have not ended, train up to "
        "2.5 times as efficiently as PPO on whole answers, at no loss",
        question=f"sums of 2 to 6 terms, {SLOTS} answers under way: an accuracy of {TARGET:.0%} for at most "
        f"1/{FEWER} of PPO's decoding steps, a final one at most {100 * WITHIN:.0f} points below, and above "
        "that of taking cuts for failures",
        arms=[_arm(result, before, seeds) for result in results.values()],
        comparisons=comparisons(results, before),
        seeds=seeds,
        settings={
            "asked": [f"{level}, share {share:g}" for level, share in MIXTURE.shares],
            "start": begun.model_name,
            "accuracy_of_the_start": round(before.numbers["rate"], 4),
            "questions": evaluate,
            "slots": SLOTS,
            "limit_of_an_answer": LIMIT,
            "window": WINDOW,
            "target": TARGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def measuring(every: int) -> Measuring:
    """One answer to each question, drawn as in training."""
    return Measuring(right, Sampling(limit=LIMIT), every=every)


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Accuracy against the clock."""
    curves = {}
    for arm in found.arms:
        ticks = [name for name in arm.summary if name.startswith("accuracy after ")]
        clock = [float(name.split()[2]) for name in ticks]
        curves[arm.name] = [(clock, [run.metrics[name] for name in ticks]) for run in arm.runs]
    return (
        "Accuracy on questions that nobody was taught, by decoding steps",
        learning_curves(curves, "accuracy", xlabel="decoding steps"),
    )


# ---- the clock ---------------------------------------------------------------------------------------


def clocks(result: ArmResult) -> list[dict[float, float]]:
    """Per run, the decoding steps that had been made at the end of each training step, 0 at none."""
    found = []
    for steps, made in result.logged("decoding_steps"):
        passed = np.cumsum(np.array(made) + 1)  # the first token comes of reading the prompt
        found.append({0.0: 0.0, **dict(zip(steps, passed.tolist(), strict=True))})
    return found


def timed_curves(result: ArmResult, before: Measured) -> list[tuple[list[float], list[float]]]:
    """Per run, decoding steps and the accuracy there, from the start on."""
    found = []
    for clock, (steps, rates) in zip(clocks(result), result.curve(TEST), strict=True):
        found.append(([clock[step] for step in (0.0, *steps)], [before.numbers["rate"], *rates]))
    return found


def reached(clock: Sequence[float], rates: Sequence[float], target: float) -> float | None:
    """When the mean of a measurement and its neighbours first is `target`, between the two around it.

    None where it never is.
    """
    padded = np.pad(np.asarray(rates, dtype=float), 1, mode="edge")
    smooth = np.convolve(padded, np.ones(3) / 3, mode="valid")
    above = np.flatnonzero(smooth >= target)
    if not len(above):
        return None
    last = int(above[0])
    if last == 0:
        return float(clock[0])
    share = (target - smooth[last - 1]) / (smooth[last] - smooth[last - 1])
    return float(clock[last - 1] + share * (clock[last] - clock[last - 1]))


def occupancy(result: ArmResult) -> list[float]:
    """Per run, the share of slots that were written in, over all decoding steps."""
    found = []
    for i in range(len(result.metrics)):
        lines = result.metrics[i]
        made = sum(line["decoding_steps"] + 1 for line in lines)
        if "occupancy" in lines[0]:
            found.append(sum(line["occupancy"] * (line["decoding_steps"] + 1) for line in lines) / made)
        else:
            found.append(sum(line["answer_tokens"] for line in lines) / made)
    return found


# ---- the record --------------------------------------------------------------------------------------


def to_target(result: ArmResult, before: Measured) -> list[tuple[float, bool]]:
    """Per run, the decoding steps to the target, or all there were, and whether it was reached."""
    found = []
    for clock, rates in timed_curves(result, before):
        when = reached(clock, rates, TARGET)
        found.append((max(1.0, clock[-1] if when is None else when), when is not None))
    return found


def _arm(result: ArmResult, before: Measured, seeds: Sequence[int]) -> claim.Arm:
    times = to_target(result, before)
    curves = timed_curves(result, before)
    shortest = min(clock[-1] for clock, _ in curves)
    extra: dict[str, list[float]] = {
        "decoding steps to the target": [when for when, _ in times],
        CLOCK: [math.log(when) for when, _ in times],
        "target reached": [float(there) for _, there in times],
        "decoding steps": [clock[-1] for clock, _ in curves],
        "slots in use": occupancy(result),
        "seconds of training": list(result.seconds),
    }
    if "boundary" in result.metrics[0][-1]:
        extra["jump of the value at a cut"] = result.final("boundary")
    for tick in np.linspace(0, BUDGET, TICKS).round():
        if tick <= shortest:
            extra[f"accuracy after {tick:.0f} steps"] = [
                float(np.interp(tick, clock, rates)) for clock, rates in curves
            ]
    return claim_arm(result, seeds, tests=[TEST], extra=extra)


def comparisons(results: Mapping[str, ArmResult], before: Measured) -> list[claim.Comparison]:
    """What decides the verdict."""
    ours, whole, failing = (results[name] for name in (OURS, PPO, FAILURE))
    pairs = zip(to_target(ours, before), to_target(whole, before), strict=True)
    faster: Interval = mean_interval([math.log(a / b) for (a, _), (b, _) in pairs])
    return [
        claim.Comparison(
            "fewer decoding steps to the target", OURS, PPO, CLOCK, faster, math.log(FEWER), "lower"
        ),
        claim.Comparison(
            "as accurate in the end", OURS, PPO, ACCURACY, difference(ours, whole, TEST), WITHIN, "not_lower"
        ),
        claim.Comparison(
            "a cut is no failure", OURS, FAILURE, ACCURACY, difference(ours, failing, TEST), 0.0, "higher"
        ),
    ]

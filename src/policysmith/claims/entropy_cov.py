"""The entropy mechanism at small scale: what a step costs in entropy, and what sparing a few tokens keeps.

First the theory, on its own ground: a softmax over fifty actions takes one small step of exact policy
gradient in many random states, and the change of its entropy is set against minus the covariance that
predicts it. Then training: the same start learns sums by GRPO, with a bonus for entropy, with a higher clip,
by Clip-Cov and by KL-Cov, for the same rollouts. Of every arm the last policy's entropy, accuracy and pass@8
are measured on questions that nobody was taught, and the law R = -a exp(H) + b is fitted to its rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    claim_arm,
    compare,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.reasoning import (
    BUDGET,
    CLIP_HIGHER,
    GRPO_TOKEN_MEAN,
    LEVEL,
    MEASURING,
    held_out,
    start,
)
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.entropy_law import law_of_run
from policysmith.evaluation.plots import scatter_cost_success
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.objectives.divergences import entropy
from policysmith.objectives.entropy_covariance import entropy_change
from policysmith.systems import entropy_cov

TEST = "held out"
ACCURACY, PASS = f"{TEST}: accuracy", f"{TEST}: pass@{MEASURING.copies}"
ENTROPY, DOUBLINGS = f"{TEST}: token entropy (nats)", f"{TEST}: token entropy (log2 nats)"
LAW, CORRELATION, SLOPE = "R squared of the law", "correlation with theory", "slope's distance from 1"
START, THEORY, ASKED = "start", "one step in tabular states", "asked for"

BONUS = 0.01
"""Weight of the entropy bonus."""
WITHIN = 0.02
"""KL-Cov's accuracy may be this much below GRPO's and still count as not below."""
LEAST_EXPLAINED, LEAST_CORRELATION, LARGEST_ERROR = 0.8, 0.99, 0.05
STATES, ACTIONS, RATE = 200, 50, 0.01
"""Of the check of the theory: states, actions in each, and the size of the step."""

SMALL: dict[str, Any] = {
    **BUDGET,
    "filter_agreeing": False,
    "recompute_old": False,
    "held": 0.01,
    "dropped": 0.01,
    "low_quantile": 0.98,
}
"""Shares of a batch of some five hundred tokens; the paper's would be one token of it, and a tenth of one."""


def arms(*, ablations: bool) -> list[Arm]:
    """The baseline, what else is done about entropy, and the two methods."""
    plain, kl_cov = GRPO_TOKEN_MEAN.config, entropy_cov.Config(**SMALL)
    clip_cov = replace(kl_cov, method="clip-cov")
    found = [
        replace(GRPO_TOKEN_MEAN, label="GRPO"),
        replace(GRPO_TOKEN_MEAN, label="GRPO + entropy bonus", config=replace(plain, entropy_bonus=BONUS)),
        CLIP_HIGHER,
        Arm("Clip-Cov", entropy_cov, clip_cov),
        Arm("KL-Cov", entropy_cov, kl_cov),
    ]
    if ablations:
        found += [
            Arm("Clip-Cov, the paper's band", entropy_cov, replace(clip_cov, low_quantile=None)),
            Arm("KL-Cov, 0.2 % held", entropy_cov, replace(kl_cov, held=0.002)),
            Arm("KL-Cov, 5 % held", entropy_cov, replace(kl_cov, held=0.05)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 150, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    begun = yield from start(folder)
    tests = held_out(evaluate)
    results = yield from compare(
        arms(ablations=ablations), begun, seeds=seeds, tests=tests, measuring=MEASURING, folder=folder
    )
    yield Stage("measure the start", 0, 1)
    before = measured_start(begun, tests, MEASURING)[TEST]
    yield Stage("check the theory", 0, 1)
    theory = [theory_check(seed) for seed in seeds]
    return claim.build_claim(
        "entropy-cov",
        paper_claim="reward is bought with entropy, by R = -a exp(H) + b; entropy falls by the covariance "
        "of log-probability and advantage, which few tokens carry; sparing those keeps entropy and ends in a "
        "higher reward",
        question="sums for a small model: GRPO's entropy falls below a quarter, and its reward follows the "
        f"law (R squared above {LEAST_EXPLAINED}); KL-Cov ends with twice its entropy, an accuracy at most "
        f"{100 * WITHIN:.0f} points below and a higher pass@8; one step changes entropy as predicted",
        arms=[*_arms(results, before, seeds), *_theory_arms(theory, seeds)],
        comparisons=comparisons(results, before, theory),
        seeds=seeds,
        settings={
            "task": f"sums of {LEVEL}, worked out step by step",
            "questions": evaluate,
            "answers_to_a_question": MEASURING.copies,
            "start": begun.model_name,
            "states_and_actions_of_the_theory": [STATES, ACTIONS],
            "step_size_of_the_theory": RATE,
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Entropy at the end against pass@8."""
    points = {
        arm.name: (arm.summary[ENTROPY], arm.summary[PASS]) for arm in found.arms if ENTROPY in arm.summary
    }
    return (
        "What is left of the entropy at the end, and what several answers are good for",
        scatter_cost_success(points, xlabel="token entropy, nats", ylabel=f"pass@{MEASURING.copies}"),
    )


# ---- the theory --------------------------------------------------------------------------------------


def theory_check(seed: int) -> dict[str, float]:
    """How well minus the covariance predicts the change of entropy in one step, over random states."""
    rng = generator(seed, "states")
    logits = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
    reward = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
    p = logits.softmax(-1)
    advantage = reward - (p * reward).sum(-1, keepdim=True)
    step = RATE * p * advantage
    predicted, measured = entropy_change(logits, step), entropy(logits + step) - entropy(logits)
    slope = float((predicted * measured).sum() / predicted.square().sum())
    correlation = float(torch.corrcoef(torch.stack([predicted, measured]))[0, 1])
    return {CORRELATION: correlation, SLOPE: abs(slope - 1)}


# ---- the record --------------------------------------------------------------------------------------


def comparisons(
    results: Mapping[str, ArmResult], before: Measured, theory: Sequence[Mapping[str, float]]
) -> list[claim.Comparison]:
    """What the paper claims, of GRPO and of KL-Cov beside it."""
    plain, ours = results["GRPO"], results["KL-Cov"]
    start_at = _doublings(before.numbers["entropy"])

    def said(name: str, pair: tuple[str, str], metric: str, found: Interval, **of: Any) -> claim.Comparison:
        return claim.Comparison(name, *pair, metric, found, of.get("margin", 0.0), of["direction"])

    def beyond(values: Sequence[float], asked: float) -> Interval:
        return mean_interval([value - asked for value in values])

    both, trained = ("KL-Cov", "GRPO"), list(zip(_ended(ours), _ended(plain), strict=True))
    return [
        said("GRPO ends below a quarter of its entropy", ("GRPO", START), DOUBLINGS,
             beyond(_ended(plain), start_at), margin=2.0, direction="lower"),
        said("GRPO's reward follows the law", ("GRPO", ASKED), LAW,
             beyond(_explained(plain), LEAST_EXPLAINED), direction="higher"),
        said("KL-Cov keeps twice GRPO's entropy", both, DOUBLINGS,
             mean_interval([a - b for a, b in trained]), margin=1.0, direction="higher"),
        said("KL-Cov's accuracy is not below GRPO's", both, ACCURACY,
             difference(ours, plain, TEST), margin=WITHIN, direction="not_lower"),
        said("KL-Cov's pass@8 is above GRPO's", both, PASS,
             paired_difference(_solved(ours), _solved(plain)), direction="higher"),
        said("one step changes entropy as predicted", (THEORY, ASKED), CORRELATION,
             beyond([one[CORRELATION] for one in theory], LEAST_CORRELATION), direction="higher"),
        said("and by as much", (THEORY, ASKED), SLOPE,
             beyond([one[SLOPE] for one in theory], LARGEST_ERROR), direction="lower"),
    ]  # fmt: skip


def _arms(results: Mapping[str, ArmResult], before: Measured, seeds: Sequence[int]) -> list[claim.Arm]:
    numbers = before.numbers
    at_start = {
        ACCURACY: numbers["rate"],
        PASS: numbers["pass"],
        f"{TEST}: answer tokens": numbers["tokens"],
        ENTROPY: numbers["entropy"],
        DOUBLINGS: _doublings(numbers["entropy"]),
    }
    # One model, measured once: nothing varies.
    known = {name: Interval(value, value, value) for name, value in at_start.items()}
    found = [claim.Arm(START, {}, [], known)]
    for result in results.values():
        extra = {
            ENTROPY: result.mean(TEST, "entropy"),
            DOUBLINGS: _ended(result),
            LAW: _explained(result),
            "ceiling by the law": [law_of_run(lines).ceiling for lines in result.metrics],
        }
        found.append(claim_arm(result, seeds, tests=[TEST], extra=extra))
    return found


def _theory_arms(theory: Sequence[Mapping[str, float]], seeds: Sequence[int]) -> list[claim.Arm]:
    runs = [claim.Run(seed, one) for seed, one in zip(seeds, theory, strict=True)]
    asked = {LAW: LEAST_EXPLAINED, CORRELATION: LEAST_CORRELATION, SLOPE: LARGEST_ERROR}
    bars = {name: Interval(value, value, value) for name, value in asked.items()}
    return [claim.Arm(THEORY, {}, runs, claim.summarise(runs)), claim.Arm(ASKED, {}, [], bars)]


def _ended(result: ArmResult) -> list[float]:
    """Per run, the binary logarithm of the entropy at its end: one more is twice as much."""
    return [_doublings(value) for value in result.mean(TEST, "entropy")]


def _doublings(nats: float) -> float:
    return float(np.log2(max(nats, 1e-9)))


def _explained(result: ArmResult) -> list[float]:
    return [law_of_run(lines).r_squared for lines in result.metrics]


def _solved(result: ArmResult) -> Float[np.ndarray, "run prompt"]:
    """Whether any of a question's answers at the end of a run was right."""
    ends = [one[TEST][max(one[TEST])].score for one in result.measured]
    return np.stack([(score >= 1).any(1) for score in ends]).astype(float)

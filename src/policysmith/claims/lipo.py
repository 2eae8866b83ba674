"""LiPO's ranking losses on the same lists: whether lists with graded labels say more than pairs or points.

Each record gets eight reviews of a small decoder. Labels are the mean probability of a review to be preferred
to the others of its list, by Bradley and Terry on a program's judgement. Every loss learns from the same
lists in the same order, as many steps each, at two rates of learning: a loss is judged at the rate that does
best on other records. At the end fresh reviews are judged by the program. Each seed has lists of its own.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    by_seed,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    Begun,
    begun,
    best,
    measuring,
    review_arm,
    with_validation,
)
from policysmith.claims.common.rlhf import Lists
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.experience.preferences import Preferences
from policysmith.objectives.ranking import labels_from_pairwise
from policysmith.systems import lipo

LISTS, ANSWERS, SCALE = 800, 8, 5.0
BUDGET: dict[str, Any] = {"steps": 60, "batch_size": 16, "warmup_steps": 6, "beta": 0.05}
LEARNING_RATES = (1e-4, 3e-4)
LAMBDA = "lambda"
PAIRS, LISTWISE = "pair-logistic", "list-mle"
WEAK = ("softmax", "point-sigmoid", "point-mse")
KINDS = (LAMBDA, PAIRS, LISTWISE, *WEAK)


def called(kind: str, rate: float) -> str:
    """What the arm of a loss at a rate of learning is called."""
    return f"{kind}, rate {rate:g}"


def ranked(start: Begun, folder: Path, *, seed: int) -> Generator[Stage, None, Preferences]:
    """The seed's own lists, labelled by the mean probability to be preferred, in [0, 1]."""
    lists = yield from Lists(start.recipe, LISTS, ANSWERS, seed).make(folder)
    rows = []
    for row in lists:
        scores = torch.tensor(row.data["scores"]).double()
        wins = torch.sigmoid(SCALE * (scores[:, None] - scores[None]))
        rows.append(replace(row, labels=tuple(labels_from_pairwise(wins).tolist()), data={}))
    return Preferences(rows, provenance=lists.provenance)


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 300, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out records; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    start = yield from begun(folder)
    kinds = (*KINDS, "pair-hinge") if ablations else KINDS

    def arms(seed: int) -> Generator[Stage, None, list[Arm]]:
        lists = start.on((yield from ranked(start, folder, seed=seed)))
        return [
            Arm(called(kind, rate), lipo, lipo.Config(**BUDGET, learning_rate=rate, kind=kind), lists)  # type: ignore[arg-type]
            for kind in kinds
            for rate in LEARNING_RATES
        ]

    first = yield from ranked(start, folder, seed=seeds[0])
    tests, how = with_validation(evaluate), measuring(start)
    results = yield from by_seed(
        arms, start=start.on(first), seeds=seeds, tests=tests, measuring=how, folder=folder
    )
    before = measured_start(start.on(first), tests, how)[HELD_OUT].numbers
    return claim.build_claim(
        "lipo",
        paper_claim="of ranking losses on lists with graded labels the lambda loss is the best, a little "
        "above pairs and list-MLE; pointwise and softmax losses are far below",
        question="gold reward after the same steps on the same lists",
        arms=[review_arm(result, seeds) for result in results.values()],
        comparisons=comparisons(results),
        seeds=seeds,
        settings={
            "task": f"reviews, {LISTS} lists of {ANSWERS}, {evaluate} held-out records, 2 answers each",
            "start": before, "label_scale": SCALE, "learning_rates": list(LEARNING_RATES), **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )  # fmt: skip


def comparisons(results: dict[str, ArmResult]) -> list[claim.Comparison]:
    """Lambda against pairs and list-MLE, pairs against pointwise and softmax, each at its best rate."""
    metric = f"{HELD_OUT}: {GOLD}"
    chosen = {kind: best(results, [called(kind, rate) for rate in LEARNING_RATES]) for kind in KINDS}
    asked = [(LAMBDA, PAIRS), (LAMBDA, LISTWISE), *((PAIRS, weak) for weak in WEAK)]
    found = []
    for better, worse in asked:
        one, other = chosen[better], chosen[worse]
        gap = difference(results[one], results[other], HELD_OUT)
        found.append(claim.Comparison(f"{better} above {worse}", one, other, metric, gap, 0.0, "higher"))
    return found


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gold of each loss."""
    bars = {arm.name: arm.summary[f"{HELD_OUT}: {GOLD}"] for arm in found.arms}
    return "Gold reward after the same steps on the same lists", plots.bars_with_intervals(
        bars, "gold reward"
    )

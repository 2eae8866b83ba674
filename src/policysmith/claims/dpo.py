"""A league of the losses that learn from pairs, at three rates of wrong labels, all on the same pairs.

Reviews of a small decoder are labelled by a program's judgement (Bradley and Terry), a share of the labels is
turned round, and every loss learns from the same pairs in the same order with the same optimiser: as many
pairs, steps and tokens. Each seed has pairs, labels and mistakes of its own. At the end fresh reviews are
judged by the program, without noise.

All have one `beta`. It does not mean the same to each loss, so that the divergence from the start stands
beside the gold reward. Losses that agree in what they ask for can be told apart by their names alone: on
pairs, LiPO's logistic and list losses are DPO's.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from policysmith.claims.common.language import Arm, ArmResult, by_seed, difference, trained_seconds
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    Begun,
    begun,
    held_out,
    labelled,
    measuring,
    review_arm,
)
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.experience.preferences import Preferences
from policysmith.systems import copg, dpo, ipo, lipo, robust_dpo, slic

RATES = (0.0, 0.2, 0.4)
"""Shares of wrong labels."""
PAIRS = 3000
BUDGET: dict[str, Any] = {
    "steps": 100, "batch_size": 32, "learning_rate": 3e-4, "warmup_steps": 10, "weight_decay": 0.01,
    "decay": "constant", "lora_rank": 0, "answer_limit": 0,
}  # fmt: skip
BETA = 0.1
WITHIN = 0.03
"""Gold reward that DPO may be behind another loss and still count as its equal."""
DPO, IPO, SLIC, SMOOTHED, ROBUST = "DPO", "IPO", "SLiC", "cDPO", "rDPO"
CONTRASTIVE, POINT = "CoPG", "pointwise"
CORRECTED = (DPO, SMOOTHED, ROBUST)
"""What differs in how wrong labels are dealt with."""


def losses(rate: float) -> dict[str, tuple[ModuleType, Any]]:
    """The losses by name, those that correct for wrong labels told their rate; without any they are DPO."""
    found: dict[str, tuple[ModuleType, Any]] = {
        DPO: (dpo, dpo.Config(**BUDGET, beta=BETA)),
        IPO: (ipo, ipo.Config(**BUDGET, beta=BETA)),
        SLIC: (slic, slic.Config(**BUDGET, beta=BETA)),
        CONTRASTIVE: (copg, copg.Config(**BUDGET, beta=BETA)),
        POINT: (lipo, lipo.Config(**BUDGET, beta=BETA, kind="point-sigmoid")),
    }
    if rate:
        told = {**BUDGET, "beta": BETA, "rate": rate}
        found[SMOOTHED] = (robust_dpo, robust_dpo.Config(**told, correction="smoothed"))
        found[ROBUST] = (robust_dpo, robust_dpo.Config(**told))
    return found


def called(loss: str, rate: float) -> str:
    """What the arm of a loss at a rate is called."""
    return f"{loss}, {rate:g} wrong"


def compared(
    start: Begun, folder: Path, *, seeds: Sequence[int], evaluate: int, names: Sequence[str] | None = None
) -> Generator[Stage, None, dict[str, ArmResult]]:
    """Every loss (or those of `names`) at every rate; found again by whoever asks for some of them."""

    def arms(seed: int) -> Generator[Stage, None, list[Arm]]:
        found = []
        for rate in RATES:
            pairs = yield from labelled(start, folder, size=PAIRS, rate=rate, seed=seed)
            found += [
                Arm(called(name, rate), module, config, start.on(scoreless(pairs)))
                for name, (module, config) in losses(rate).items()
                if names is None or name in names
            ]
        return found

    first = yield from labelled(start, folder, size=PAIRS, rate=0.0, seed=seeds[0])
    return (
        yield from by_seed(
            arms,
            start=start.on(first),
            seeds=seeds,
            tests=held_out(evaluate),
            measuring=measuring(start),
            folder=folder,
        )
    )


def scoreless(pairs: Preferences) -> Preferences:
    """The pairs without what the program says of them: a loss that reads scores is to read labels."""
    return Preferences([replace(row, data={}) for row in pairs], provenance=pairs.provenance)


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 300, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the league on `evaluate` held-out records; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    start = yield from begun(folder)
    results = yield from compared(start, folder, seeds=seeds, evaluate=evaluate)
    return claim.build_claim(
        "dpo",
        paper_claim="a policy learns preferences by one classification loss of its own log-ratios, without a "
        "reward model; many other losses of the same margin have been proposed since",
        question="gold reward after the same steps on the same pairs: is DPO behind any other loss by more "
        f"than {WITHIN}, at any rate of wrong labels",
        arms=[review_arm(result, seeds) for result in results.values()],
        comparisons=comparisons(results),
        reason=told_apart(results),
        seeds=seeds,
        settings={
            "task": f"reviews, {PAIRS} pairs of the start's own, {evaluate} held-out records, 2 answers each",
            "beta": BETA, "rates": list(RATES), **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )  # fmt: skip


def comparisons(results: dict[str, ArmResult]) -> list[claim.Comparison]:
    """DPO against every other loss at every rate: not behind it by more than `WITHIN`."""
    metric = f"{HELD_OUT}: {GOLD}"
    found = []
    for rate in RATES:
        ours = called(DPO, rate)
        for name in losses(rate):
            if name == DPO:
                continue
            other = called(name, rate)
            gap = difference(results[ours], results[other], HELD_OUT)
            what = f"DPO not behind {name}, {rate:g} wrong"
            found.append(claim.Comparison(what, ours, other, metric, gap, WITHIN, "not_lower"))
    return found


def told_apart(results: dict[str, ArmResult]) -> str:
    """Which loss is above which, at each rate: those whose interval leaves out 0."""
    parts = []
    for rate in RATES:
        told = ", ".join(f"{better} above {worse}" for better, worse in order(results, rate))
        parts.append(f"{rate:g} wrong: {told or 'none from any other'}")
    return "told apart, " + "; ".join(parts)


def order(results: dict[str, ArmResult], rate: float) -> list[tuple[str, str]]:
    """Of every two losses at a rate that differ, (better, worse): their interval leaves out 0."""
    told = []
    for one, other in combinations(losses(rate), 2):
        gap = difference(results[called(one, rate)], results[called(other, rate)], HELD_OUT)
        if gap.low > 0:
            told.append((one, other))
        elif gap.high < 0:
            told.append((other, one))
    return told


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gold of each loss at each rate."""
    bars = {arm.name: arm.summary[f"{HELD_OUT}: {GOLD}"] for arm in found.arms}
    return "Gold reward after 100 steps on the same pairs", plots.bars_with_intervals(bars, "gold reward")

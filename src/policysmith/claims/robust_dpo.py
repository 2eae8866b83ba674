"""Wrong labels in a problem whose best policy is known: who finds it as pairs grow more.

Fifty contexts with twenty actions each, Gaussian features, a log-linear reward. Pairs are drawn evenly,
labelled by Bradley and Terry, and a share of the labels is turned round. Each loss is minimised to its end
over a bounded box with a little ridge, so that nothing depends on an optimiser's settings. Measured is how
much worse the policy is than the best one under the divergence penalty, beta KL(pi || pi*), exactly.

Then a small decoder that writes reviews, for the first few seeds: the runs are those of the league of losses
(`claims.dpo`), at the same rates of wrong labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.optimize import minimize
from torch import Tensor

from policysmith.claims import dpo as league
from policysmith.claims.common.language import ArmResult, difference, trained_seconds
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, begun, review_arm
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import mean_interval
from policysmith.objectives.preferences import dpo_loss, robust_loss, smoothed_loss

CONTEXTS, ACTIONS, FEATURES, NORM, BETA = 50, 20, 8, 3.0, 1.0
BOX, RIDGE = 6.0, 1e-3
SIZES, RATES = (500, 2000, 8000), (0.0, 0.2, 0.4)
DPO, SMOOTHED, ROBUST = "DPO", "cDPO (smoothed)", "rDPO"
WRONG = "rDPO told 0.2"
LANGUAGE_SEEDS = 3

Loss = Callable[[Tensor], Tensor]


def losses(rate: float) -> dict[str, Loss]:
    """The losses of a margin by name, told the rate of wrong labels."""
    return {
        DPO: partial(dpo_loss, beta=BETA),
        SMOOTHED: partial(smoothed_loss, dpo_loss, beta=BETA, rate=rate),
        ROBUST: partial(robust_loss, dpo_loss, beta=BETA, rate=rate),
        WRONG: partial(robust_loss, dpo_loss, beta=BETA, rate=0.2),
    }


@dataclass(frozen=True)
class Problem:
    """`features` [context, action, feature], and the weights that the reward has in them."""

    features: Float[Tensor, "context action feature"]
    truth: Float[Tensor, "feature"]

    @classmethod
    def draw(cls, seed: int) -> Problem:
        """A problem of its own for each seed."""
        rng = generator(seed, "problem")
        features = torch.randn(CONTEXTS, ACTIONS, FEATURES, generator=rng).double() / FEATURES**0.5
        truth = torch.randn(FEATURES, generator=rng).double()
        return cls(features, NORM * truth / truth.norm())

    def pairs(self, count: int, rate: float, seed: int) -> Float[Tensor, "pair feature"]:
        """Features of the labelled winner less those of the loser, from an even reference."""
        rng = generator(seed, "pairs", count)
        context = torch.randint(CONTEXTS, (count,), generator=rng)
        first = torch.randint(ACTIONS, (count,), generator=rng)
        second = (first + torch.randint(1, ACTIONS, (count,), generator=rng)) % ACTIONS
        apart = self.features[context, first] - self.features[context, second]
        wins = torch.rand(count, generator=rng).double() < torch.sigmoid(BETA * (apart @ self.truth))
        turned = torch.rand(count, generator=rng) < rate
        return torch.where((wins ^ turned)[:, None], apart, -apart)

    def gap(self, weights: Float[Tensor, "feature"]) -> float:
        """beta KL(pi || pi*), the mean over contexts."""
        found, best = ((self.features @ w).log_softmax(1) for w in (weights, self.truth))
        return float(BETA * (found.exp() * (found - best)).sum(1).mean())


def fit(loss: Loss, apart: Float[Tensor, "pair feature"]) -> Float[Tensor, "feature"]:
    """The weights within the box whose loss, with the ridge, is least."""

    def value(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(point).requires_grad_(True)
        total = loss(apart @ weights).mean() + RIDGE * weights.square().sum()
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), gradient.numpy()

    bounds = [(-BOX, BOX)] * apart.shape[1]
    found = minimize(value, np.zeros(apart.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    return torch.from_numpy(found.x)


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 300, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment: `seeds` are problems; with `ablations` also a wrongly known rate.

    The first few of them also train on reviews, asked for `evaluate` held-out records; none for 0.
    """
    began = time.perf_counter()
    names = [DPO, SMOOTHED, ROBUST, *([WRONG] if ablations else [])]
    gaps: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for number, seed in enumerate(seeds):
        yield Stage("problems", number, len(seeds))
        problem = Problem.draw(seed)
        for count in SIZES:
            for rate in RATES:
                apart = problem.pairs(count, rate, seed)
                for name in names:
                    found = problem.gap(fit(losses(rate)[name], apart))
                    gaps[name].setdefault(metric(count, rate), []).append(found)
    exact = time.perf_counter() - began
    results: dict[str, ArmResult] = {}
    if evaluate:
        start = yield from begun(folder)
        results = yield from league.compared(
            start, folder, seeds=seeds[:LANGUAGE_SEEDS], evaluate=evaluate, names=league.CORRECTED
        )
    return claim.build_claim(
        "robust-dpo",
        paper_claim="with a known rate of wrong labels the corrected loss is nearly as good as clean labels, "
        "with a gap that falls as pairs grow more, and better than DPO and label smoothing",
        question="how far each policy is from the best one, in a log-linear problem where that is known; and "
        "how good reviews are after equally many steps on the same pairs",
        arms=[
            *(_arm(name, by, seeds) for name, by in gaps.items()),
            *(review_arm(one, seeds[:LANGUAGE_SEEDS]) for one in results.values()),
        ],
        comparisons=_comparisons(gaps) + of_reviews(results),
        seeds=seeds,
        settings={
            "contexts": CONTEXTS, "actions": ACTIONS, "features": FEATURES, "norm": NORM, "beta": BETA,
            "box": BOX, "ridge": RIDGE,
            "reviews": {"pairs": league.PAIRS, "beta": league.BETA, **league.BUDGET},
        },
        seconds=round(exact + trained_seconds(results), 1),
        recipe_version=2,
    )  # fmt: skip


def of_reviews(results: dict[str, ArmResult]) -> list[claim.Comparison]:
    """The corrected loss against the others at the highest rate, by the program that judges reviews."""
    if not results:
        return []
    ours, metric = league.called(ROBUST, RATES[-1]), f"{HELD_OUT}: {GOLD}"
    parts = []
    for other in (league.DPO, league.SMOOTHED):
        theirs = league.called(other, RATES[-1])
        gap = difference(results[ours], results[theirs], HELD_OUT)
        what = f"better reviews than {other}, {RATES[-1]:g} wrong"
        parts.append(claim.Comparison(what, ours, theirs, metric, gap, 0.0, "higher"))
    return parts


def metric(count: int, rate: float) -> str:
    """What a gap is called."""
    return f"gap, {count} pairs, {rate:g} wrong"


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The gap over the number of pairs at the highest rate."""
    rate = RATES[-1]
    curves = {
        arm.name: [(list(SIZES), [run.metrics[metric(count, rate)] for count in SIZES]) for run in arm.runs]
        for arm in found.arms
        if metric(SIZES[0], rate) in arm.summary
    }
    figure = plots.learning_curves(curves, "gap to the best policy (nats)", log=True, xlabel="pairs")
    return f"How far from the best policy, with {rate:.0%} of the labels wrong", figure


def _arm(name: str, gaps: dict[str, list[float]], seeds: Sequence[int]) -> claim.Arm:
    runs = [
        claim.Run(seed, {what: values[i] for what, values in gaps.items()}) for i, seed in enumerate(seeds)
    ]
    return claim.Arm(name, {}, runs, claim.summarise(runs))


def _comparisons(gaps: dict[str, dict[str, list[float]]]) -> list[claim.Comparison]:
    most = SIZES[-1]

    def less(name: str, arm: str, baseline: str, what: str) -> claim.Comparison:
        difference = mean_interval(np.array(gaps[arm][what]) - np.array(gaps[baseline][what]))
        return claim.Comparison(name, arm, baseline, what, difference, 0.0, "lower")

    found = [
        less(f"nearer than {other}, {rate:g} wrong", ROBUST, other, metric(most, rate))
        for rate in RATES[1:]
        for other in (DPO, SMOOTHED)
    ]
    # Four times the pairs: a gap that is one over their number falls by log 4.
    fewer, last = (np.log(np.array(gaps[ROBUST][metric(count, RATES[-1])])) for count in SIZES[1:])
    falling = mean_interval(last - fewer)
    found.append(
        claim.Comparison(
            "its gap falls as pairs grow fourfold (log)", ROBUST, ROBUST, metric(most, RATES[-1]), falling,
            0.7, "lower",
        )
    )  # fmt: skip
    return found

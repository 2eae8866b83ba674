"""DNO's step in games that are known: what the regression finds, what a step gains, and where steps end.

For each seed a cycle of three outcomes of unequal strengths, and ten outcomes of random preferences. The
pair loss is minimised over all pairs and compared with the closed form; every step is checked for the gain
that it is promised, P(new better than old) >= 1/2 + eta KL(new, old); and after many steps the last policy
and the average of all are compared in what the best answer to them gains.

Then rounds of a small decoder beside a teacher (`common.taught_reviews`), for the first few seeds: whether
all clear pairs are better than those that the teacher wins, and these better than a teacher who is always
right, in wins against the teacher; and whether every round beats the one before.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize

from policysmith.claims.common import taught_reviews
from policysmith.claims.common.games import at_random, cycle, exact_arm
from policysmith.claims.common.language import trained_seconds
from policysmith.claims.common.taught_reviews import (
    DNO,
    OVER_BEFORE,
    OVER_TEACHER,
    RESTRICTIVE,
    ROUNDS,
    SPIN,
    Learnt,
    in_round,
)
from policysmith.common.config import config_to_json
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import mean_interval, paired_difference
from policysmith.objectives.preference_games import (
    Chances,
    Wins,
    divergence,
    exploitability,
    soft_policy_iteration,
    win_rate,
    win_rate_rewards,
)
from policysmith.objectives.preferences import soft_preference_loss

ETA, STEPS, WITHIN = 1.0, 2000, 0.01
START, LAST, AVERAGE = "start", "last policy", "average of the policies"
REGRESSED = "regression on all pairs"
EXPLOITED, SHORT, APART = (
    "what the best answer gains",
    "gain less than promised",
    "apart from the closed form",
)


def regressed(wins: Wins, policy: Chances, *, eta: float) -> Chances:
    """The policy of least loss over all pairs, whose targets are sigmoids of differences of win rates."""
    reward = win_rate_rewards(wins, policy)
    target = torch.sigmoid(reward[:, None] - reward[None])
    held = policy.log()

    def value(point: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.from_numpy(point).requires_grad_(True)
        ratio = logits.log_softmax(0) - held
        loss = soft_preference_loss(ratio[:, None] - ratio[None], target, beta=eta).mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        return float(loss.detach()), gradient.numpy()

    options = {"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-12}
    found = minimize(value, held.numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).softmax(0)


def played(wins: Wins, start: Chances) -> tuple[list[Chances], float]:
    """The policies of `STEPS` steps, and the most by which one gained less than promised; 0 for none."""
    policies, short = [start], 0.0
    for _ in range(STEPS):
        new = soft_policy_iteration(wins, policies[-1], eta=ETA)
        promised = 0.5 + ETA * divergence(new, policies[-1])
        short = max(short, promised - win_rate(wins, new, policies[-1]))
        policies.append(new)
    return policies, short


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 300, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment: `seeds` are games.

    The first few of them also train on reviews, asked for `evaluate` held-out records; none for 0.
    """
    began = time.perf_counter()
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (START, LAST, AVERAGE, REGRESSED)}
    for number, seed in enumerate(seeds):
        yield Stage("games", number, len(seeds))
        for kind, wins in {"cycle": cycle(seed), "random": at_random(seed, 10)}.items():
            rng = generator(seed, "start", kind)
            start = torch.softmax(torch.randn(len(wins), generator=rng).double(), 0)
            policies, short = played(wins, start)
            ends = {START: start, LAST: policies[-1], AVERAGE: torch.stack(policies).mean(0)}
            for name, policy in ends.items():
                found[name].setdefault(f"{EXPLOITED}, {kind}", []).append(exploitability(wins, policy))
            found[LAST].setdefault(f"{SHORT}, {kind}", []).append(short)
            closed = soft_policy_iteration(wins, start, eta=ETA)
            apart = float((regressed(wins, start, eta=ETA) - closed).abs().max())
            found[REGRESSED].setdefault(f"{APART}, {kind}", []).append(apart)
    exact, few = time.perf_counter() - began, seeds[: taught_reviews.SEEDS]
    learnt = None
    if evaluate:
        learnt = yield from taught_reviews.learnt(few, folder, evaluate, ablations=ablations)
    return claim.build_claim(
        "dno",
        paper_claim="a step of policy iteration towards the win rate against oneself is a regression on "
        "pairs; it gains what it is promised, and the average of its policies is one that none beats; "
        "in rounds beside a teacher all clear pairs are better than those that the teacher wins",
        question=f"what the regression finds, what each of {STEPS} steps gains, and where they end, in games "
        "that are known exactly; and who wins against the teacher after rounds of reviews",
        arms=[
            *(exact_arm(name, by, seeds) for name, by in found.items()),
            *(taught_reviews.taught_arms(learnt, few) if learnt else []),
        ],
        comparisons=comparisons(found) + (of_reviews(learnt) if learnt else []),
        seeds=seeds,
        settings={
            "eta": ETA,
            "steps": STEPS,
            "reviews": {
                "held_out_records": evaluate,
                "rounds": ROUNDS,
                "worst_quality_of_the_teacher": taught_reviews.QUALITY,
                **config_to_json(taught_reviews.BUDGET),
            },
        },
        seconds=round(exact + (trained_seconds(learnt.results) if learnt else 0), 1),
        recipe_version=2,
    )


def comparisons(found: dict[str, dict[str, list[float]]]) -> list[claim.Comparison]:
    """What the theory says, part by part."""
    parts = []
    for kind in ("cycle", "random"):
        at = {
            name: np.array(by[metric])
            for name, by in found.items()
            if (metric := f"{EXPLOITED}, {kind}") in by
        }
        for name, arm, what, bound in (
            ("the regression finds the closed form", REGRESSED, APART, 1e-4),
            ("each step gains what is promised", LAST, SHORT, 1e-9),
        ):
            value = mean_interval(found[arm][f"{what}, {kind}"])
            parts.append(
                claim.Comparison(f"{name}, {kind}", arm, arm, f"{what}, {kind}", value, bound, "not_higher")
            )
        metric = f"{EXPLOITED}, {kind}"
        average = mean_interval(at[AVERAGE])
        parts.append(
            claim.Comparison(
                f"none beats the average, {kind}", AVERAGE, AVERAGE, metric, average, WITHIN, "not_higher"
            )
        )
    gap = mean_interval(
        np.array(found[LAST][f"{EXPLOITED}, cycle"]) - np.array(found[AVERAGE][f"{EXPLOITED}, cycle"])
    )
    what = "in a cycle the last policy is beaten"
    parts.append(claim.Comparison(what, LAST, AVERAGE, f"{EXPLOITED}, cycle", gap, WITHIN, "higher"))
    return parts


def of_reviews(found: Learnt) -> list[claim.Comparison]:
    """All clear pairs above those that the teacher wins, these above SPIN; and each round above the last."""
    parts = []
    for better, worse in ((DNO, RESTRICTIVE), (RESTRICTIVE, SPIN)):
        gap = paired_difference(found.over_teacher(better), found.over_teacher(worse))
        name = f"{better} above {worse.removeprefix('reviews: ')}"
        parts.append(claim.Comparison(name, better, worse, OVER_TEACHER, gap, 0.0, "higher"))
    for number in range(1, ROUNDS + 1):
        won = found.over_before(DNO, number)
        gap = paired_difference(won, np.full_like(won, 0.5))
        name, metric = f"reviews: round {number} beats the one before", in_round(OVER_BEFORE, number)
        parts.append(claim.Comparison(name, DNO, DNO, metric, gap, 0.0, "higher"))
    return parts


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """What the best answer gains in the cycle."""
    metric = f"{EXPLOITED}, cycle"
    bars = {arm.name: arm.summary[metric] for arm in found.arms if metric in arm.summary}
    return "What the best answer gains, in a cycle of three", plots.bars_with_intervals(
        bars, "above one half"
    )

"""Nash-MD in games that are known: whether its last policy is the equilibrium, where others end up.

Two kinds of game for each seed: a cycle of three outcomes of unequal strengths, and twenty outcomes of random
preferences. Everything is exact, with the same number of steps for all that takes steps. Measured is the gap
of the last policy in the regularised game, which only its equilibrium has at 0; the rival from rewards is the
policy that is best, under the same penalty, for the Bradley-Terry reward that fits the preferences best.

Then a game of a small decoder, where nothing is exact: sentences in three styles that beat each other in a
circle (`common.styles`, `common.style_games`), for the first few seeds. Of the mixtures the one is judged
that is exploited least on prompts of their own (validation), by other prompts (held out).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import minimize

from policysmith.claims.common import style_games
from policysmith.claims.common.games import at_random, cycle, exact_arm
from policysmith.claims.common.language import ArmResult, trained_seconds
from policysmith.claims.common.review_learning import HELD_OUT, VALIDATION
from policysmith.claims.common.style_games import REPLY, RLHF, SELF, Pool
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import mean_interval, paired_difference
from policysmith.objectives.preference_games import (
    Chances,
    Wins,
    divergence,
    duality_gap,
    nash_md,
    regularised_nash,
    soft_policy_iteration,
)

TAU, STEPS, WITHIN = 0.1, 1000, 1e-3
CYCLE, RANDOM = "cycle of 3", "20 at random"
NASH_MD, CONSTANT = "Nash-MD", "Nash-MD, constant step"
SELF_PLAY, AVERAGE = "self-play", "self-play, average"
BEST_ANSWER, FITTED = "best answer to the start", "fitted reward"


def start_of(seed: int, outcomes: int) -> Chances:
    """The model at the start."""
    return torch.softmax(torch.randn(outcomes, generator=generator(seed, "start")).double(), 0)


def fitted_reward(wins: Wins, reference: Chances) -> Chances:
    """The Bradley-Terry rewards that are likeliest, for pairs that the reference writes."""
    weight = torch.outer(reference, reference) * wins

    def value(point: np.ndarray) -> tuple[float, np.ndarray]:
        reward = torch.from_numpy(point).requires_grad_(True)
        loss = -(weight * F.logsigmoid(reward[:, None] - reward[None])).sum()
        (gradient,) = torch.autograd.grad(loss, reward)
        return float(loss.detach()), gradient.numpy()

    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(value, np.zeros(len(wins)), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x)


def last_policies(wins: Wins, reference: Chances) -> dict[str, Chances]:
    """What each way comes to."""
    policies = [reference]
    for _ in range(STEPS):
        policies.append(soft_policy_iteration(wins, policies[-1], eta=1.0))
    held = reference.log()
    return {
        NASH_MD: nash_md(wins, reference, tau=TAU, steps=STEPS)[-1],
        CONSTANT: nash_md(wins, reference, tau=TAU, steps=STEPS, eta=0.1)[-1],
        SELF_PLAY: policies[-1],
        AVERAGE: torch.stack(policies).mean(0),
        BEST_ANSWER: torch.softmax(held + wins @ reference / TAU, 0),
        FITTED: torch.softmax(held + fitted_reward(wins, reference) / TAU, 0),
    }


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 200, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment: `seeds` are games.

    The first few of them also train on sentences, asked for `evaluate` held-out prompts; none for 0.
    """
    began = time.perf_counter()
    found: dict[str, dict[str, list[float]]] = {}
    for number, seed in enumerate(seeds):
        yield Stage("games", number, len(seeds))
        for kind, wins in {CYCLE: cycle(seed), RANDOM: at_random(seed, 20)}.items():
            reference = start_of(seed, len(wins))
            goal = regularised_nash(wins, reference, tau=TAU)
            for name, policy in last_policies(wins, reference).items():
                of = found.setdefault(name, {})
                of.setdefault(gap_in(kind), []).append(duality_gap(wins, reference, policy, tau=TAU))
                of.setdefault(f"KL of the equilibrium, {kind}", []).append(divergence(goal, policy))
    exact, few = time.perf_counter() - began, seeds[: style_games.SEEDS]
    results: dict[str, ArmResult] = {}
    pools: dict[str, list[Pool]] = {HELD_OUT: [], VALIDATION: []}
    if evaluate:
        results, pools = yield from style_games.played(few, folder, evaluate)
    return claim.build_claim(
        "nash-md",
        paper_claim="the last policy of Nash-MD converges to the equilibrium of the regularised game, "
        "without an average over policies; a reward cannot stand for preferences that go in a circle",
        question=f"the gap of the last policy after {STEPS} steps, in games whose equilibrium is known; and "
        "who is beaten least often by others, of writers in styles that beat each other in a circle",
        arms=[
            *(exact_arm(name, by, seeds) for name, by in found.items()),
            *style_games.style_arms(results, pools[HELD_OUT], few),
        ],
        comparisons=comparisons(found) + of_styles(pools[HELD_OUT], pools[VALIDATION]),
        seeds=seeds,
        settings={
            "tau": TAU, "steps": STEPS, "constant_eta": 0.1, "self_play_eta": 1.0,
            "styles": {
                "held_out_prompts": len(pools[HELD_OUT][0][SELF]) if evaluate else 0,
                "sentences": style_games.COPIES,
                "mixtures": list(style_games.MIXTURES), **style_games.BUDGET,
            },
        },
        seconds=round(exact + trained_seconds(results), 1),
        recipe_version=2,
    )  # fmt: skip


def gap_in(kind: str) -> str:
    """What the gap in a kind of game is called."""
    return f"gap, {kind}"


def comparisons(found: dict[str, dict[str, list[float]]]) -> list[claim.Comparison]:
    """Nash-MD's gap is below `WITHIN`, and others' are above it, by more than it is."""
    parts = []
    for kind in (CYCLE, RANDOM):
        metric = gap_in(kind)
        ours = np.array(found[NASH_MD][metric])
        what, gap = f"at the equilibrium, {kind}", mean_interval(ours)
        parts.append(claim.Comparison(what, NASH_MD, NASH_MD, metric, gap, WITHIN, "not_higher"))
        for other in (FITTED, BEST_ANSWER, SELF_PLAY):
            gap = mean_interval(ours - np.array(found[other][metric]))
            what = f"nearer than {other}, {kind}"
            parts.append(claim.Comparison(what, NASH_MD, other, metric, gap, WITHIN, "lower"))
    return parts


def of_styles(pools: Sequence[Pool], validation: Sequence[Pool]) -> list[claim.Comparison]:
    """The best mixture is exploited less than the others, and wins against those that play no game."""
    if not pools:
        return []
    ours = style_games.best_mixture(validation)
    exploited = {
        name: np.stack([style_games.exploited(pool, name) for pool in pools])
        for name in (ours, SELF, REPLY, RLHF)
    }
    parts = []
    for other in (SELF, REPLY, RLHF):
        gap = paired_difference(exploited[ours], exploited[other])
        what = f"less exploited than {other.removeprefix('styles: ')}"
        parts.append(claim.Comparison(what, ours, other, style_games.EXPLOITED, gap, 0.0, "lower"))
    for other in (REPLY, RLHF):
        won = np.stack([style_games.wins(pool[ours], pool[other]) for pool in pools])
        gap = paired_difference(won, np.full_like(won, 0.5))
        metric = style_games.wins_against(other)
        parts.append(claim.Comparison(f"beats {other}", ours, other, metric, gap, 0.0, "higher"))
    return parts


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gaps in the cycle."""
    metric = gap_in(CYCLE)
    bars = {arm.name: arm.summary[metric] for arm in found.arms if metric in arm.summary}
    return "Gap of the last policy in a cycle of three", plots.bars_with_intervals(bars, "gap")

"""PPO held to a soup of two supervised models, against PPO held to the one that it began as.

A small decoder that writes reviews is taught on twice, by other parts of the same better reviews in another
order. The policy begins as the first of the two and climbs a learnt reward; what differs is whether it is
held to that model or to the mean of both. Each seed has two models of its own, so that what is said of their
soup is not said of one pair of models alone.

The weight of the penalty is one at which the reward decides (0.05, with which PPO is compared elsewhere) and
one at which the penalty does (0.2: an answer goes a few nats from its start, which then costs about as much
as the reward model has to give). Each method is judged at the weight with most of the learnt reward on
validation prompts, which no gold is asked for. Far prompts are of rare items and have more aspects than any
that were shown.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    Measuring,
    add_runs,
    compare,
    difference,
    head_to_head,
    measured_policy,
    trained_seconds,
)
from policysmith.claims.common.measurements import by_reward, sequence_kl
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    KL,
    VALIDATION,
    Begun,
    begun,
    measuring,
    review_arm,
    with_validation,
)
from policysmith.claims.common.review_ppo import HELD, PROXY, LearntReward, accuracy, learnt_reward
from policysmith.claims.common.reviews import demonstrations, prompts
from policysmith.claims.common.rlhf import fine_tuned
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.experience.prompts import Prompts
from policysmith.networks.soup import soup
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.systems import salsa, token_ppo

BETAS = (0.05, 0.2)
STEPS = 100
FAR = "far"
FIRST, SECOND, SOUP = "first model", "second model", "their soup"
PPO, OURS = "PPO", "SALSA"
KL_SECOND, KL_SOUP = "KL to the second model", "KL to the soup"
LOSS, HIGHEST = "loss of held-out reviews", "highest loss between the models, above the worse one's"
AGAINST = "wins against PPO"
WITHIN, EVEN, CLEARLY = 0.03, 0.5, 0.02
"""Gold that the soup may be behind a parent; and by how much a share of wins is to be above one half, or may
be lower for far prompts."""


@dataclass(frozen=True)
class Parents:
    """Two models of one base, and their soup."""

    first: Begun
    second: Begun
    soup: LanguagePolicy


def called(method: str, beta: float) -> str:
    """What the arm of a method at a weight of the penalty is called."""
    return f"{method}, {beta:g}"


def parents(base: Begun, seed: int, folder: Path) -> Generator[Stage, None, Parents]:
    """The two models of a seed, made where they are not in the cache `folder` yet, and their soup."""
    first = yield from begun(folder, fine_tuned(2 * seed, first=base.recipe))
    second = yield from begun(folder, fine_tuned(2 * seed + 1, first=base.recipe))
    mixed = first.policy.frozen_copy()
    mixed.load_state_dict(soup([first.policy.state_dict(), second.policy.state_dict()]))
    return Parents(first, second, mixed)


def arms(second: Path, proxy: LearntReward, *, ablations: bool) -> list[Arm]:
    """Both methods at each weight, with as many answers; `ablations` are held to what else there is."""
    shared: dict[str, Any] = {**HELD, "steps": STEPS, "critic": str(proxy.path)}

    def ours(label: str, beta: float, **settings: Any) -> Arm:
        settings = {**shared, "second": str(second), "kl": beta, **settings}
        return Arm(called(label, beta), salsa, salsa.Config(**settings))

    found = []
    for beta in BETAS:
        found.append(Arm(called(PPO, beta), token_ppo, token_ppo.Config(**{**shared, "kl": beta})))
        found.append(ours(OURS, beta))
    if ablations:
        found.append(ours("held to the second model", BETAS[0], alpha=0.0))
        found.append(ours("begun as the soup", BETAS[0], begin_as_soup=True))
    return found


def asked(evaluate: int) -> dict[str, Prompts]:
    """Held-out records, others to choose by, and far ones."""
    return {**with_validation(evaluate), FAR: prompts(evaluate, 4, far=True)}


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 200, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out records and as many far ones; finished runs are in `folder`.

    Raises `CapabilityError` where the two models of a seed do not lie in one basin.
    """
    began = time.perf_counter()
    base = yield from begun(folder)
    proxy = yield from learnt_reward(base, folder)
    tests, shown = asked(evaluate), demonstrations(prompts(200, 19, held_out=True), 1, low=0.6)
    results: dict[str, ArmResult] = {}
    supervised: dict[str, list[dict[str, Measured]]] = {FIRST: [], SECOND: [], SOUP: []}
    losses = []
    for seed in seeds:
        both = yield from parents(base, seed, folder)
        how = measured_by(both, proxy)
        losses.append(salsa.check_basin(both.first.policy, both.second.policy, shown))
        start = both.first.asked(prompts(4000, 5), proxy.model, proxy.name)
        found = yield from compare(
            arms(both.second.folder, proxy, ablations=ablations), start,
            seeds=[seed], tests=tests, measuring=how, folder=folder, checkpoint_every=1000,
        )  # fmt: skip
        add_runs(results, found)
        yield Stage(f"measure the models of seed {seed}", 0, 1)
        near = {name: tests[name] for name in (HELD_OUT, FAR)}
        for name, policy in ((FIRST, both.first.policy), (SECOND, both.second.policy), (SOUP, both.soup)):
            supervised[name].append(measured_policy(policy, near, how))
    right = yield from accuracy(base, proxy.model, folder)
    return claim.build_claim(
        "salsa",
        paper_claim="a soup of two supervised models as the reference of PPO lets the policy go further and "
        "gives higher rewards and more wins than its own start as reference, most of all out of distribution",
        question="is the soup no worse than either model; each method at the penalty with most of the learnt "
        "reward on validation prompts: is SALSA's gold reward higher, does it win more than 52 % against "
        "PPO, no less on far prompts, and is it further from where both began",
        arms=[
            *supervised_arms(supervised, losses, seeds),
            *(_arm(result, results, seeds) for result in results.values()),
        ],
        comparisons=comparisons(results, supervised),
        seeds=seeds,
        settings={
            "task": f"reviews, {evaluate} held-out and {evaluate} far records, 2 answers each",
            "betas": list(BETAS),
            "chosen": {method: chosen(results, method) for method in (PPO, OURS)},
            "proxy_right_on_held_out_pairs": right,
            "base": base.name,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def measured_by(both: Parents, proxy: LearntReward) -> Measuring:
    """Gold, the learnt reward, and the divergences from both models and from their soup."""
    further = {
        PROXY: by_reward(proxy.model),
        KL_SECOND: sequence_kl(both.second.policy),
        KL_SOUP: sequence_kl(both.soup),
    }
    return measuring(both.first, further=further)


def chosen(results: Mapping[str, ArmResult], method: str) -> str:
    """The arm of a method whose learnt reward is highest on the validation prompts, over all seeds."""
    labels = [called(method, beta) for beta in BETAS]
    return max(labels, key=lambda label: np.mean(results[label].mean(VALIDATION, PROXY)))


def comparisons(
    results: Mapping[str, ArmResult], supervised: Mapping[str, Sequence[Mapping[str, Measured]]]
) -> list[claim.Comparison]:
    """What the paper says of the soup, and of what is held to it: gold, wins, far prompts, and how far."""
    metric = f"{HELD_OUT}: {GOLD}"
    ppo, ours = chosen(results, PPO), chosen(results, OURS)
    scores = {
        name: np.stack([one[HELD_OUT].score.mean(1) for one in found]) for name, found in supervised.items()
    }
    found = [
        claim.Comparison(
            f"the soup not behind the {name}", SOUP, name, metric,
            paired_difference(scores[SOUP], scores[name]), WITHIN, "not_lower",
        )
        for name in (FIRST, SECOND)
    ]  # fmt: skip
    won = {test: head_to_head(results[ours], results[ppo], test) for test in (HELD_OUT, FAR)}
    above_even = paired_difference(won[HELD_OUT], np.full_like(won[HELD_OUT], EVEN))
    kept = mean_interval(won[FAR].mean(1) - won[HELD_OUT].mean(1))
    further = _apart(results[ours].mean(HELD_OUT, KL), results[ppo].mean(HELD_OUT, KL))
    gap = difference(results[ours], results[ppo], HELD_OUT)
    return [
        *found,
        claim.Comparison("more gold than PPO", ours, ppo, metric, gap, 0.0, "higher"),
        claim.Comparison(
            "more than 52 % of wins", ours, ppo, f"{HELD_OUT}: {AGAINST}", above_even, CLEARLY, "higher"
        ),
        claim.Comparison(
            "no fewer wins on far prompts", ours, ppo, f"{FAR}: {AGAINST}", kept, CLEARLY, "not_lower"
        ),
        claim.Comparison("further from the start", ours, ppo, f"{HELD_OUT}: {KL}", further, 0.0, "higher"),
    ]


def supervised_arms(
    found: Mapping[str, Sequence[Mapping[str, Measured]]],
    losses: Sequence[Sequence[float]],
    seeds: Sequence[int],
) -> list[claim.Arm]:
    """Both models and their soup: gold, the learnt reward, the loss of reviews like those that were shown."""
    places = {FIRST: 0, SOUP: len(losses[0]) // 2, SECOND: -1}
    made = []
    for name, place in places.items():
        runs = []
        for seed, one, line in zip(seeds, found[name], losses, strict=True):
            metrics = {f"{test}: {GOLD}": at.numbers["rate"] for test, at in one.items()}
            metrics |= {f"{test}: {PROXY}": at.numbers[PROXY] for test, at in one.items()}
            metrics[LOSS] = line[place]
            if name == SOUP:
                metrics[HIGHEST] = max(line) - max(line[0], line[-1])
            runs.append(claim.Run(seed, metrics))
        made.append(claim.Arm(name, {}, runs, claim.summarise(runs)))
    return made


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gold against the divergence from the start, of all arms that climbed the learnt reward."""
    far, good = f"{HELD_OUT}: {KL}", f"{HELD_OUT}: {GOLD}"
    points: dict[str, tuple[float | Interval, float | Interval]] = {
        arm.name: (arm.summary[far], arm.summary[good]) for arm in found.arms if far in arm.summary
    }
    figure = plots.scatter_cost_success(
        points, xlabel="KL to the start, nats per answer", ylabel="gold reward", log=False
    )
    return "Gold reward and how far from the start, by the weight of the penalty", figure


def _arm(result: ArmResult, results: Mapping[str, ArmResult], seeds: Sequence[int]) -> claim.Arm:
    ppo = results[chosen(results, PPO)]
    extra = {
        f"{test}: {AGAINST}": head_to_head(result, ppo, test).mean(1).tolist() for test in (HELD_OUT, FAR)
    }
    further = [PROXY, KL_SECOND, KL_SOUP]
    return review_arm(result, seeds, tests=[HELD_OUT, FAR, VALIDATION], further=further, extra=extra)


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    return mean_interval(np.array(ours) - np.array(theirs))

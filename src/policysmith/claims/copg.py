"""Bandits whose best policy is known: which losses of stored pairs of outcomes lead there.

Pairs of outcomes are drawn from two fixed policies that are not the one that learns, with the score of each;
losses of preferences see a label drawn by Bradley and Terry instead. Every loss is followed to its end on the
same pairs (whole batches, Adam), from a uniform policy, which is the reference. Regret is how much less than
the best policy it has of J = E[R] - beta KL(pi || pi_ref), exactly. There are two bandits: the paper's with
three outcomes, and one of twenty outcomes with rewards and writers of its own for each seed.

Then the same question of a small decoder, where nothing is exact: reviews with graded scores
(`common.graded_reviews`), for the first few seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.claims.common import graded_reviews
from policysmith.claims.common.language import ArmResult, difference, trained_seconds
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, begun, review_arm
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import mean_interval
from policysmith.objectives.contrastive import copg_loss, kl_optimum, off_policy_gradient_loss
from policysmith.objectives.preferences import dpo_loss, ipo_loss

BETA, PAIRS, STEPS, RATE = 0.5, 10_000, 5_000, 1e-2
REWARD, FIRST, SECOND = (2.5, 2.0, 1.0), (0.1, 0.2, 0.7), (0.05, 0.05, 0.9)
COPG, IPO, DPO = "CoPG", "IPO", "DPO"
PLAIN, VALUE = "policy gradient, no baseline", "policy gradient, baseline E_pi[R]"
SMALL, LARGE = "regret, 3 outcomes", "regret, 20 outcomes"

Ratios = Float[Tensor, "problem outcome"]
Loss = Callable[["Bandits", Ratios], Float[Tensor, ""]]


@dataclass(frozen=True)
class Bandits:
    """Several bandits side by side, from a uniform reference.

    `reward` [problem, outcome]; `drawn` [problem, outcome, outcome]: the share of the pairs that are (i, j),
    and `won` of these in which i was preferred.
    """

    reward: Ratios
    drawn: Float[Tensor, "problem outcome outcome"]
    won: Float[Tensor, "problem outcome outcome"]

    @classmethod
    def draw(cls, reward: Ratios, first: Ratios, second: Ratios, *, seeds: Sequence[int]) -> Bandits:
        """`PAIRS` pairs for each problem, one outcome by each writer, labelled by Bradley and Terry."""
        drawn, won = [], []
        for row, seed in enumerate(seeds):
            rng = generator(seed, "pairs", reward.shape[1])
            i, j = (
                torch.multinomial(writer[row], PAIRS, replacement=True, generator=rng)
                for writer in (first, second)
            )
            chance = torch.sigmoid(reward[row, i] - reward[row, j])
            wins = torch.rand(PAIRS, generator=rng).double() < chance
            counts = torch.zeros(reward.shape[1], reward.shape[1], dtype=torch.float64)
            ones = torch.full((PAIRS,), 1 / PAIRS, dtype=torch.float64)
            drawn.append(counts.index_put((i, j), ones, accumulate=True))
            won.append(counts.index_put((i, j), ones * wins, accumulate=True))
        return cls(reward, torch.stack(drawn), torch.stack(won))

    def regret(self, ratio: Ratios) -> Float[Tensor, "problem"]:
        """How much less J is than at the best policy."""
        reference = torch.full_like(self.reward, 1 / self.reward.shape[1])

        def gained(policy: Ratios) -> Float[Tensor, "problem"]:
            return (policy * (self.reward - BETA * (policy / reference).log())).sum(1)

        return gained(kl_optimum(reference, self.reward, beta=BETA)) - gained(ratio.exp() * reference)


def contrast(bandits: Bandits, ratio: Ratios) -> Float[Tensor, ""]:
    """CoPG's loss over all pairs."""
    return _over_pairs(bandits, ratio, partial(copg_loss, beta=BETA))


def plain(bandits: Bandits, ratio: Ratios, *, value: bool = False) -> Float[Tensor, ""]:
    """The off-policy policy gradient, with no baseline or the value of the policy."""
    level = torch.zeros(len(ratio), dtype=ratio.dtype)
    if value:
        level = (ratio.exp() / ratio.shape[1] * bandits.reward).sum(1).detach()
    each = level[:, None, None].expand_as(bandits.drawn).flatten()
    return _over_pairs(bandits, ratio, partial(off_policy_gradient_loss, beta=BETA, baseline=each))


def preferred(bandits: Bandits, ratio: Ratios, *, loss: Callable[..., Tensor]) -> Float[Tensor, ""]:
    """A loss of margins, of each pair as it was labelled."""
    margin = ratio[:, :, None] - ratio[:, None]
    lost = bandits.drawn - bandits.won
    return (bandits.won * loss(margin, beta=BETA) + lost * loss(-margin, beta=BETA)).sum()


LOSSES: dict[str, Loss] = {
    COPG: contrast,
    IPO: partial(preferred, loss=ipo_loss),
    DPO: partial(preferred, loss=dpo_loss),
    VALUE: partial(plain, value=True),
    PLAIN: plain,
}


def descend(loss: Loss, bandits: Bandits) -> Ratios:
    """Log-ratios to the reference where Adam comes to rest, from none."""
    logits = torch.zeros_like(bandits.reward, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=RATE)
    count = logits.shape[1]
    for _ in range(STEPS):
        ratio = logits.log_softmax(1) + math.log(count)
        optimizer.zero_grad()
        loss(bandits, ratio).backward()
        optimizer.step()
    return (logits.log_softmax(1) + math.log(count)).detach()


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 300, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment: `seeds` draw the pairs, and the large bandits themselves.

    The first few of them also train on reviews, asked for `evaluate` held-out records; none for 0.
    """
    began = time.perf_counter()
    problems = {SMALL: small(seeds), LARGE: large(seeds)}
    regrets: dict[str, dict[str, list[float]]] = {}
    for number, (name, loss) in enumerate(LOSSES.items()):
        yield Stage("losses", number, len(LOSSES))
        regrets[name] = {
            what: bandits.regret(descend(loss, bandits)).tolist() for what, bandits in problems.items()
        }
    uniform = {
        what: bandits.regret(torch.zeros_like(bandits.reward)).tolist() for what, bandits in problems.items()
    }
    exact = time.perf_counter() - began
    results: dict[str, ArmResult] = {}
    if evaluate:
        start = yield from begun(folder)
        few = seeds[: graded_reviews.SEEDS]
        results = yield from graded_reviews.learnt(start, folder, seeds=few, evaluate=evaluate)
    return claim.build_claim(
        "copg",
        paper_claim="on a bandit with off-policy pairs CoPG comes to the best policy; IPO and policy "
        "gradients with other baselines come to rest elsewhere",
        question="regret where each loss of the same stored pairs comes to rest, the best policy being "
        "known; and the graded score of reviews, each loss at its best weight",
        arms=[
            *(_arm(name, by, seeds) for name, by in {"before": uniform, **regrets}.items()),
            *(review_arm(one, seeds[: graded_reviews.SEEDS]) for one in results.values()),
        ],
        comparisons=[
            claim.Comparison(
                f"less regret than {other}, {what.removeprefix('regret, ')}", COPG, other, what,
                mean_interval(torch.tensor(regrets[COPG][what]) - torch.tensor(regrets[other][what])),
                0.0, "lower",
            )
            for what in problems
            for other in (IPO, PLAIN, VALUE)
        ]
        + of_reviews(results),
        seeds=seeds,
        settings={"beta": BETA, "pairs": PAIRS, "steps": STEPS, "learning_rate": RATE,
            "reward": REWARD, "first": FIRST, "second": SECOND,
            "reviews": {
                "pairs": graded_reviews.PAIRS, "betas": list(graded_reviews.BETAS), **graded_reviews.BUDGET,
            },
        },
        seconds=round(exact + trained_seconds(results), 1),
        recipe_version=2,
    )  # fmt: skip


def of_reviews(results: dict[str, ArmResult]) -> list[claim.Comparison]:
    """CoPG against IPO and DPO, each at its best weight of the divergence."""
    if not results:
        return []
    ours, metric = graded_reviews.best_of(results, COPG), f"{HELD_OUT}: {GOLD}"
    parts = []
    for other in (IPO, DPO):
        theirs = graded_reviews.best_of(results, other)
        gap = difference(results[ours], results[theirs], HELD_OUT)
        what = f"better reviews than {other}"
        parts.append(claim.Comparison(what, ours, theirs, metric, gap, 0.0, "higher"))
    return parts


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Regret on the paper's bandit."""
    bars = {arm.name: arm.summary[SMALL] for arm in found.arms if SMALL in arm.summary}
    return "Regret where each loss comes to rest, the paper's bandit", plots.bars_with_intervals(
        bars, "regret"
    )


def small(seeds: Sequence[int]) -> Bandits:
    """The paper's bandit, its pairs drawn anew for each seed."""
    rows = [torch.tensor(part).double().expand(len(seeds), 3) for part in (REWARD, FIRST, SECOND)]
    return Bandits.draw(*rows, seeds=seeds)


def large(seeds: Sequence[int], outcomes: int = 20) -> Bandits:
    """Bandits with rewards, and writers that know nothing of them, for each seed."""
    parts = []
    for seed in seeds:
        rng = generator(seed, "bandit")
        reward, first, second = torch.randn(3, outcomes, generator=rng).double().unbind(0)
        parts.append((reward, first.softmax(0), second.softmax(0)))
    reward, first, second = (torch.stack(part) for part in zip(*parts, strict=True))
    return Bandits.draw(reward, first, second, seeds=seeds)


def _over_pairs(bandits: Bandits, ratio: Ratios, loss: Callable[..., Tensor]) -> Float[Tensor, ""]:
    count = ratio.shape[1]
    pairs, scores = (
        torch.stack([x[:, :, None].expand(-1, -1, count), x[:, None].expand(-1, count, -1)], -1).reshape(
            -1, 2
        )
        for x in (ratio, bandits.reward)
    )
    values = loss(pairs, scores, torch.ones_like(scores, dtype=torch.bool))
    return (bandits.drawn.flatten() * values).sum()


def _arm(name: str, regrets: dict[str, list[float]], seeds: Sequence[int]) -> claim.Arm:
    runs = [claim.Run(seed, {what: one[i] for what, one in regrets.items()}) for i, seed in enumerate(seeds)]
    return claim.Arm(name, {}, runs, claim.summarise(runs))

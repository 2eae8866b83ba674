"""The game of styles, learnt by policies that are then set against each other.

All arms are Nash-MD's recipe with as many steps and answers, and differ in the opponent. RLHF is the same
gradient with a reward in place of the oracle, sigmoid(r(y) - r(y')) for y' of its own, fitted to pairs of the
start's sentences that the oracle compared. Policies of a seed, the start and writers of one style alone are a
pool, in which each meets each on the same prompts.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.claims.common.language import Arm, ArmResult, Measuring, by_seed
from policysmith.claims.common.measurements import between_copies, sequence_kl
from policysmith.claims.common.review_learning import HELD_OUT, KL, VALIDATION, Begun, begun
from policysmith.claims.common.rlhf import Proxy
from policysmith.claims.common.starts import Judged
from policysmith.claims.common.styles import (
    SAMPLING,
    STYLES,
    Marks,
    StylePairs,
    chance,
    judge,
    marks,
    prompts,
    pure,
    styles_start,
    well_formed,
)
from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.answers import answer
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.systems import nash_md
from policysmith.training.learners.reward_models import RewardModelSettings

SEEDS, COPIES, VALIDATING = 3, 4, 100
"""Runs, sentences to each prompt that is measured, and prompts to choose the mixture by."""
MIXTURES, AVERAGED = (0.125, 0.25, 0.5), 0.98
"""Shares of the start in the opponent; and so much of an average of the weights stays at a step."""
BUDGET: dict[str, Any] = {
    "steps": 300, "prompts": 64, "answer_limit": SAMPLING.limit, "learning_rate": 1e-3, "warmup_steps": 10,
    "divergence": 0.05,
}  # fmt: skip
REWARD_MODEL = RewardModelSettings(
    steps=200, batch_size=32, learning_rate=1e-3, warmup_steps=10, answer_limit=SAMPLING.limit
)
START, SELF, REPLY, EMA, RLHF = (
    f"styles: {name}"
    for name in ("start", "self-play", "best answer to the start", "Nash-EMA", "RLHF, fitted reward")
)
EXPLOITED, FORMED = "exploitability", "well formed"

Pool = Mapping[str, Marks]
"""What policies wrote, by their names: [prompt, copy, mark], the same prompts and copies of all."""


def mixed(mixture: float) -> str:
    """What the arm is called whose opponent has such a share of the start."""
    return f"styles: Nash-MD, mixture {mixture:g}"


def arms(start: Begun, reward: Any, reward_name: str) -> list[Arm]:
    """Every opponent before the oracle, and oneself before the reward."""
    asked = prompts()
    oracle = Judged(start.folder, start.name, asked, judge, "circle of styles")

    def arm(label: str, opponent: Any, mixture: float = 0.0, begun: Any = oracle) -> Arm:
        return Arm(label, nash_md, nash_md.Config(**BUDGET, opponent=opponent, mixture=mixture), begun)

    return [
        arm(SELF, "self"),
        *(arm(mixed(share), "mixture", share) for share in MIXTURES),
        arm(REPLY, "ref", 1.0),
        arm(EMA, "ema", AVERAGED),
        arm(RLHF, "self", begun=start.asked(asked, reward, reward_name)),
    ]


def played(
    seeds: Sequence[int], folder: Path, evaluate: int
) -> Generator[Stage, None, tuple[dict[str, ArmResult], dict[str, list[Pool]]]]:
    """Train every arm, and let all of a seed write: pools by seed, on held-out and on validation prompts."""
    start = yield from begun(folder, styles_start())

    def own(seed: int) -> Generator[Stage, None, list[Arm]]:
        proxy = Proxy(StylePairs(start.recipe, seed=seed), REWARD_MODEL, seed)
        return arms(start, (yield from proxy.make(folder)).requires_grad_(False), proxy.name)

    every = prompts(held_out=True)
    tests = {HELD_OUT: every[VALIDATING:][:evaluate], VALIDATION: every[:VALIDATING]}
    results = yield from by_seed(
        own,
        start=start.asked(every, well_formed, "form"),
        seeds=seeds,
        tests={HELD_OUT: tests[HELD_OUT]},
        measuring=Measuring(well_formed, SAMPLING, COPIES, further={KL: sequence_kl(start.policy)}),
        folder=folder,
    )
    pools: dict[str, list[Pool]] = {name: [] for name in tests}
    for number in range(len(seeds)):
        yield Stage("sentences", number, len(seeds))
        policies = {START: start.policy, **{name: one.runs[number].policy() for name, one in results.items()}}
        for name, asked in tests.items():
            pools[name].append(pool_of(policies, asked))
    return results, pools


# ---- who wins ----------------------------------------------------------------------------------------


def pool_of(policies: Mapping[str, LanguagePolicy], asked: Prompts) -> Pool:
    """What policies write, and who keeps to one style."""
    texts = {f"only {style}": pure(asked, place, copies=COPIES) for place, style in enumerate(STYLES)}
    for name, policy in policies.items():
        found = answer(policy, asked, well_formed, sampling=SAMPLING, copies=COPIES, seed=0)
        texts[name] = found.texts
    return {name: written(said, asked) for name, said in texts.items()}


def written(texts: Sequence[Sequence[str]], asked: Prompts) -> Marks:
    """The marks [prompt, copy, mark] of several sentences for each prompt."""
    return np.stack([marks(own, [prompt] * len(own)) for own, prompt in zip(texts, asked, strict=True)])


def wins(first: Marks, second: Marks) -> Float[np.ndarray, "prompt"]:
    """How likely a policy's sentence is better than another's, by prompt.

    Every sentence of one meets those of the other but the one in its own place; see `between_copies`.
    """
    return between_copies(chance(first[:, :, None], second[:, None]))


def strongest(pool: Pool, name: str) -> str:
    """Who of the pool wins most often against the policy `name`."""
    return max(pool, key=lambda other: float(wins(pool[other], pool[name]).mean()))


def exploited(pool: Pool, name: str) -> Float[np.ndarray, "prompt"]:
    """How much more often than half the time the strongest of the pool wins against a policy, by prompt."""
    return wins(pool[strongest(pool, name)], pool[name]) - 0.5


def best_mixture(validation: Sequence[Pool]) -> str:
    """The mixture whose policies are exploited least on the validation prompts, over all seeds."""
    labels = [mixed(share) for share in MIXTURES]
    return min(labels, key=lambda label: np.mean([exploited(pool, label) for pool in validation]))


# ---- the record --------------------------------------------------------------------------------------


def wins_against(other: str) -> str:
    """What the win rate against a policy is called."""
    return f"wins against {other.removeprefix('styles: ')}"


def style_arms(
    results: Mapping[str, ArmResult], pools: Sequence[Pool], seeds: Sequence[int]
) -> list[claim.Arm]:
    """The start and every arm: whom they beat and by whom they are beaten, what they write, how far they
    have gone from the start."""
    found = []
    for name in [START, *results] if results else []:
        settings, strayed = {}, [0.0] * len(seeds)
        if name in results:
            settings, strayed = config_to_json(results[name].arm.config), results[name].mean(HELD_OUT, KL)
        runs = [
            claim.Run(seed, {**_metrics(pool, name), KL: nats})
            for seed, pool, nats in zip(seeds, pools, strayed, strict=True)
        ]
        found.append(claim.Arm(name, settings, runs, claim.summarise(runs)))
    return found


def _metrics(pool: Pool, name: str) -> dict[str, float]:
    *shares, form = pool[name].mean((0, 1)).tolist()
    return {
        EXPLOITED: float(exploited(pool, name).mean()),
        FORMED: 2 * form,
        **{f"share of {style}": share for style, share in zip(STYLES, shares, strict=True)},
        **{wins_against(other): float(wins(pool[name], pool[other]).mean()) for other in pool},
    }

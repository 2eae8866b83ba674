"""DR-PO's claim at small scale: what nobody comes across can be learnt backwards from where it is reached.

Two parts: locks, which nothing but resets opens, and reviews (`claims.common.reset_reviews`), where PPO and
DPO get on without them.

The part `lock` is the claim at its sharpest. Twelve words of four have to be right together (`locks`); the
start guesses, so that it is right once in 17 million answers, and PPO has nothing to learn from. DR-PO has
200 prompts with their answers, and is paid for what it adds to the beginnings of these. PPO is the same
recipe without resets: as many answers to the same prompts, the same passes and rates.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measuring,
    add_runs,
    claim_arm,
    compare,
    difference,
    trained_seconds,
)
from policysmith.claims.common.locks import Lock, blind_start, chance, opened
from policysmith.claims.common.parts import Part, RunPart
from policysmith.claims.common.reset_reviews import WINS, reviews
from policysmith.claims.common.review_learning import HELD_OUT
from policysmith.claims.common.starts import Start
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import mean_interval
from policysmith.policies.language.sampling import Sampling
from policysmith.systems import drpo

LENGTH, SHOWN = 12, 200
"""Words of a lock, and prompts whose answers are known."""
SOLVED, NOTHING = 0.8, 0.01
"""A lock is solved above the one, and not at all below the other, in the share of right answers."""
TEST = "held out"
ACCURACY, UNAIDED = f"{TEST}: accuracy", "right, trained on"
OURS, PPO, GUESSING = "DR-PO", "PPO", "the start"

LOCK = drpo.Config(
    steps=120, prompts=128, optimizer_steps=4, answer_limit=LENGTH + 1, temperature=1.0, learning_rate=5e-4,
    critic_learning_rate=1e-3, reset_probability=0.75, epochs=2, decay=False, kl=0.01, whiten_rewards=False,
    missing_end=0.0,
)  # fmt: skip
"""A quarter of the answers is the policy's from the first word on, so that this one is learnt too."""


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 200, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run all parts; finished training runs are taken from `folder`. `evaluate` is in held-out prompts."""
    parts: dict[str, Part] = {}
    for name, run in PARTS.items():
        parts[name] = yield from run(seeds, folder, evaluate, ablations)
    return claim.build_claim(
        "drpo",
        paper_claim="rollouts that begin in the middle of preferred answers let RLHF explore: it competes "
        "with any policy that the data cover, and is better than PPO and DPO",
        question=f"combination locks of {LENGTH} words, {SHOWN} known answers: the share of right answers "
        f"to other prompts, {SOLVED:.0%} higher with resets than without, and without below {NOTHING:.0%}. "
        "Reviews, on a learnt reward: gold and wins against good reviews, higher than PPO's and DPO's",
        arms=[arm for part in parts.values() for arm in part.arms],
        comparisons=[one for part in parts.values() for one in part.comparisons],
        seeds=seeds,
        settings={name: dict(part.settings) for name, part in parts.items()},
        seconds=round(sum(part.seconds for part in parts.values()), 1),
        recipe_version=2,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The share of right answers of each arm before locks, and of wins of each before reviews."""
    metrics = (ACCURACY, f"{HELD_OUT}: {WINS}")
    values = {
        arm.name: arm.summary[metric] for metric in metrics for arm in found.arms if metric in arm.summary
    }
    return (
        "Right answers to prompts of locks that nobody showed, and wins of reviews against good ones",
        bars_with_intervals(values, "share of answers that are right, or win"),
    )


# ---- the lock ----------------------------------------------------------------------------------------


def lock_arms(*, ablations: bool) -> list[Arm]:
    """DR-PO and PPO, which differ in resets alone; with `ablations` other resets."""
    found = [Arm(OURS, drpo, LOCK), Arm(PPO, drpo, replace(LOCK, reset_probability=0.0))]
    if ablations:
        found += [Arm(f"{OURS}, b = {b:g}", drpo, replace(LOCK, reset_probability=b)) for b in (0.25, 1.0)]
        found.append(Arm("PPO++ (resets to the start's answers)", drpo, replace(LOCK, resets="start")))
    return found


def lock(seeds: Sequence[int], folder: Path, evaluate: int, ablations: bool) -> Generator[Stage, None, Part]:
    """A lock for each seed, and every arm before it."""
    began = time.perf_counter()
    recipe = blind_start(LENGTH)
    start = yield from recipe.make(folder)
    results: dict[str, ArmResult] = {}
    guessed = []
    for seed in seeds:
        known = Lock(seed, LENGTH)
        prompts, tests = known.prompts(SHOWN), known.prompts(evaluate, held_out=True)
        path = recipe.path(folder)
        begun = Start(path, path.name, prompts, opened, "opened")
        found = yield from compare(
            lock_arms(ablations=ablations),
            begun,
            seeds=[seed],
            tests={TEST: tests},
            measuring=Measuring(opened, Sampling(limit=LENGTH + 1)),
            folder=folder,
        )
        add_runs(results, found)
        guessed.append((chance(start, tests), chance(start, prompts)))
    arms = [_lock_arm(result, seeds, _exactly(result, seeds)) for result in results.values()]
    return Part(
        [*arms, _guessing(guessed, seeds)],
        lock_comparisons(results, [rate for rate, _ in guessed]),
        {
            "words_of_an_answer": LENGTH,
            "known_answers": SHOWN,
            "held_out_prompts": evaluate,
            "start": path.name,
            "right_by_guessing": max(rate for rate, _ in guessed),
        },
        max(time.perf_counter() - began, trained_seconds(results)),
    )


def lock_comparisons(results: Mapping[str, ArmResult], guessed: Sequence[float]) -> list[claim.Comparison]:
    """Solved with resets, and not without."""
    without = zip(results[PPO].mean(TEST, "rate"), guessed, strict=True)
    nothing = mean_interval([rate - chance for rate, chance in without])
    return [
        claim.Comparison(
            "locks are solved with resets", OURS, PPO, ACCURACY,
            difference(results[OURS], results[PPO], TEST), SOLVED, "higher",
        ),
        claim.Comparison(
            "nothing is learnt without", PPO, GUESSING, ACCURACY, nothing, NOTHING, "not_higher"
        ),
    ]  # fmt: skip


def _lock_arm(result: ArmResult, seeds: Sequence[int], right: Sequence[float]) -> claim.Arm:
    extra: dict[str, Sequence[float]] = {
        UNAIDED: right,
        "tokens given to an answer": result.final("given_tokens", last=10**6),
        "seconds of training": result.seconds,
    }
    return claim_arm(result, seeds, tests=[TEST], extra=extra)


def _exactly(result: ArmResult, seeds: Sequence[int]) -> list[float]:
    """Per run, how likely right answers are to the prompts that it was trained on."""
    return [
        chance(run.policy(), Lock(seed, LENGTH).prompts(SHOWN))
        for run, seed in zip(result.runs, seeds, strict=True)
    ]


def _guessing(guessed: Sequence[tuple[float, float]], seeds: Sequence[int]) -> claim.Arm:
    rows = zip(seeds, guessed, strict=True)
    runs = [claim.Run(seed, {ACCURACY: others, UNAIDED: shown}) for seed, (others, shown) in rows]
    return claim.Arm(GUESSING, {}, runs, claim.summarise(runs))


PARTS: dict[str, RunPart] = {"lock": lock, "reviews": reviews}
"""The experiments, by the names that their settings have in the record."""

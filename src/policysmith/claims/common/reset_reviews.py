"""DR-PO before reviews: what is known of good ones is begun with, or compared, or not used at all.

Each record comes with a pair: the best by gold of eight reviews from the grammar that the start was taught
(of a tenth of the records any of the eight), and another one of these. DR-PO and PPO learn from a reward
model, which has the start's own words and is often wrong; DR-PO begins answers with the better review of the
pair, PPO does not look at it. DPO learns from the pairs, and knows no reward. All have seen as many answers
after as many steps. Each seed has pairs of its own; the records and the reward model are the same.

That favours DPO: its pairs are the program's own judgement of good reviews, where the reward model was told
how a labeller who is often wrong ranks the start's.

Reviews are judged at the end by gold, and by how often they beat the better review of such a pair.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    by_seed,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.measurements import by_reward, wins
from policysmith.claims.common.parts import Part
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    begun,
    best,
    measuring,
    review_arm,
    with_validation,
)
from policysmith.claims.common.review_ppo import BUDGET, PROXY, learnt_reward
from policysmith.claims.common.reviews import best_demonstrations, best_pairs, gold, prompts
from policysmith.claims.common.rlhf import proxy_accuracy
from policysmith.claims.common.starts import Compared
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.statistics import paired_difference
from policysmith.experience.prompts import Prompts
from policysmith.systems import dpo, drpo

SEEDS = 3
"""Of the seeds that are given, so many of the first."""
PAIRS, CHOICE, SPOILT = 3000, 8, 0.1
STEPS, RATE = 100, 3e-4
PROBABILITIES = (0.25, 0.5, 1.0)
"""Of an answer to begin with a part of a good one; the best one is chosen by the validation prompts."""
WINS = "wins against good reviews"
PPO, DPO, SAMPLED = "reviews: PPO", "reviews: DPO", "reviews: PPO++ (resets to the start's answers)"

SHARED: dict[str, Any] = {name: value for name, value in BUDGET.items() if name != "text_weight"}
SHARED |= {"steps": STEPS, "learning_rate": RATE}
RECIPE = drpo.Config(**SHARED, temperature=1.0, epochs=1, decay=False)
"""PPO with this bench's budget, at a rate at which its gold keeps up; what is DR-PO's own as published."""
COMPARING = dpo.Config(
    steps=STEPS, batch_size=RECIPE.prompts, learning_rate=RATE, warmup_steps=10, weight_decay=0.01, beta=0.1
)
"""DPO as in the league of losses."""


def called(probability: float) -> str:
    """What the arm with that probability of a reset is called."""
    return f"reviews: DR-PO, b = {probability:g}"


def review_arms(ours: Compared, pairs: Compared, critic: str, *, ablations: bool) -> list[Arm]:
    """Those that learn from a reward start at `ours`, DPO at `pairs`; see the module.

    With `ablations` also resets to answers of the start's own (PPO++).
    """
    recipe = replace(RECIPE, critic=critic)
    found = [Arm(called(b), drpo, replace(recipe, reset_probability=b), ours) for b in PROBABILITIES]
    found.append(Arm(PPO, drpo, replace(recipe, reset_probability=0.0), ours))
    found.append(Arm(DPO, dpo, COMPARING, pairs))
    if ablations:
        found.append(Arm(SAMPLED, drpo, replace(recipe, reset_probability=0.5, resets="start"), ours))
    return found


def reviews(
    seeds: Sequence[int], folder: Path, evaluate: int, ablations: bool
) -> Generator[Stage, None, Part]:
    """Every arm for the first few seeds, on `evaluate` held-out records with two answers each."""
    began = time.perf_counter()
    seeds = seeds[:SEEDS]
    start = yield from begun(folder)
    proxy = yield from learnt_reward(start, folder)
    records, tests = prompts(PAIRS, 5), with_validation(evaluate)

    def arms(seed: int) -> Generator[Stage, None, list[Arm]]:
        yield Stage(f"good reviews, seed {seed}", 0, 1)
        pairs = best_pairs(records, seed, of=CHOICE, spoilt=SPOILT)
        ours = start.on(pairs, proxy.model, proxy.name)
        return review_arms(ours, start.on(pairs), str(proxy.path), ablations=ablations)

    how = measuring(start, further={PROXY: by_reward(proxy.model)})
    known = best_pairs(tests[HELD_OUT], 0, of=CHOICE, spoilt=SPOILT)
    results = yield from by_seed(
        arms, start=start.on(known), seeds=seeds, tests=tests, measuring=how, folder=folder
    )
    rival = worth(tests[HELD_OUT])
    before = measured_start(start.on(known), tests, how)[HELD_OUT]
    return Part(
        [_arm(result, seeds, rival) for result in results.values()],
        review_comparisons(results, rival),
        {
            "task": f"reviews, {evaluate} held-out records, 2 answers each",
            "seeds": list(seeds),
            "pairs": PAIRS,
            "good_reviews": f"the best of {CHOICE}, {SPOILT:.0%} of them any",
            "gold_of_good_reviews": float(rival.mean()),
            "proxy_right_on_held_out_pairs": proxy_accuracy(proxy.model, known),
            "start": {GOLD: before.numbers["rate"], PROXY: before.numbers[PROXY],
                      WINS: float(wins(before.score[None], rival).mean())},
        },
        max(time.perf_counter() - began, trained_seconds(results)),
    )  # fmt: skip


def worth(records: Prompts) -> Float[np.ndarray, "prompt"]:
    """Gold of the good review of each record, which others are to beat."""
    good = best_demonstrations(records, 0, of=CHOICE, spoilt=SPOILT)
    return np.array([gold(one.answer, record) for one, record in zip(good, records, strict=True)])


def review_comparisons(
    results: Mapping[str, ArmResult], rival: Float[np.ndarray, "prompt"]
) -> list[claim.Comparison]:
    """DR-PO, with the probability that is best on the validation records, above PPO and DPO."""
    ours = best(results, [called(b) for b in PROBABILITIES])
    found = []
    for name, other in (("PPO", PPO), ("DPO", DPO)):
        one, two = (wins(results[label].answers(HELD_OUT), rival) for label in (ours, other))
        gaps = {GOLD: difference(results[ours], results[other], HELD_OUT), WINS: paired_difference(one, two)}
        for what, gap in gaps.items():
            metric = f"{HELD_OUT}: {what}"
            found.append(
                claim.Comparison(f"reviews above {name}'s: {what}", ours, other, metric, gap, 0.0, "higher")
            )
    return found


def _arm(result: ArmResult, seeds: Sequence[int], rival: Float[np.ndarray, "prompt"]) -> claim.Arm:
    won = wins(result.answers(HELD_OUT), rival).mean(1).tolist()
    return review_arm(result, seeds, further=[PROXY], extra={f"{HELD_OUT}: {WINS}": won})

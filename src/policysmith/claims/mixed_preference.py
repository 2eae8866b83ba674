"""DPO on clear pairs and PPO on the prompts of the others, against each of the two alone.

A small decoder that writes reviews has 3000 pairs of its own answers, labelled by a noisy reader, so that
answers which are nearly as good as each other carry most of the wrong labels. A reward model, wrong on a good
part of them, splits the pairs. How often labels are wrong in either part is the premise of the method, and
stands in the record beside what is learnt from it.

All arms learn from as many answers: DPO alone from two each of 3200 pairs, PPO alone from 6400 of its own,
the method from two each of 1600 pairs and then 3200 of its own. PPO's updates are therefore twice those of
the method's second stage, which is to reach PPO's last gold reward. `ablations` take the parts of the method
apart; one of them splits by the program's own judgement, as a reward model without faults would.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from policysmith.claims import dpo as league
from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    by_seed,
    difference,
    head_to_head,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.measurements import by_reward
from policysmith.claims.common.review_learning import (
    GOLD,
    HELD_OUT,
    START,
    Begun,
    begun,
    held_out,
    labelled,
    measuring,
    review_arm,
    start_arm,
)
from policysmith.claims.common.review_ppo import EVERY, HELD, PROXY, LearntReward, accuracy, learnt_reward
from policysmith.claims.common.reviews import gold
from policysmith.claims.common.rlhf import misordered
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.statistics import mean_interval
from policysmith.experience.preferences import Preferences
from policysmith.systems import dpo, mixed_preference, token_ppo
from policysmith.systems.mixed_preference import parts

EASY_STEPS, PPO_STEPS = league.BUDGET["steps"] // 2, 100
OPTIMISER: dict[str, Any] = {name: league.BUDGET[name] for name in ("warmup_steps", "weight_decay")}
"""What both stages of the method share, and so all arms."""
PPO = token_ppo.Config(**{**HELD, **OPTIMISER, "steps": 2 * PPO_STEPS})
OURS = mixed_preference.Config(
    **{**HELD, **OPTIMISER, "steps": EASY_STEPS + PPO_STEPS},
    easy_steps=EASY_STEPS,
    easy_batch=league.BUDGET["batch_size"],
    easy_learning_rate=league.BUDGET["learning_rate"],
    beta=league.BETA,
)
DPO, DPO_EASY, DPO_DIFFICULT = "DPO on all pairs", "DPO on the easy pairs", "DPO on the difficult pairs"
PPO_ALL, PPO_DIFFICULT = "PPO on all prompts", "PPO on the difficult prompts"
MIXED, REVERSED = "mixed", "mixed, difficult prompts first"
HELD_TO_START, DPO_TOLD = "mixed, held to the start", "DPO on the pairs that are easy by gold"
WRONG, REACHED = "share of labels that are wrong", "updates to PPO's last gold, as a share of PPO's"
WITHIN, HALF = 0.03, 0.5
"""Gold reward that DPO on the easy pairs may be behind DPO on all; the updates that the method may need."""


def arms(start: Begun, pairs: Preferences, proxy: LearntReward, *, ablations: bool) -> list[Arm]:
    """All arms on one seed's pairs; PPO's critics begin as the reward model."""
    ours, critic = replace(OURS, critic=str(proxy.path)), str(proxy.path)
    easy, difficult = parts(pairs, proxy.model, ours)
    alone = dpo.Config(**league.BUDGET, beta=league.BETA)
    both = start.on(pairs, proxy.model, proxy.name)

    def ppo(label: str, asked: Preferences) -> Arm:
        config = replace(PPO, critic=critic)
        return Arm(label, token_ppo, config, start.asked(asked.prompts, proxy.model, proxy.name))

    found = [
        Arm(DPO, dpo, alone, start.on(pairs)),
        Arm(DPO_EASY, dpo, alone, start.on(easy)),
        Arm(DPO_DIFFICULT, dpo, alone, start.on(difficult)),
        ppo(PPO_ALL, pairs),
        Arm(MIXED, mixed_preference, ours, both),
        Arm(REVERSED, mixed_preference, replace(ours, difficult_first=True), both),
    ]
    if ablations:
        clear, _ = parts(pairs, gold, ours)
        found += [
            ppo(PPO_DIFFICULT, difficult),
            Arm(HELD_TO_START, mixed_preference, replace(ours, start_as_reference=True), both),
            Arm(DPO_TOLD, dpo, alone, start.on(clear)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 200, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out records; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    start = yield from begun(folder)
    proxy = yield from learnt_reward(start, folder)
    how = measuring(start, every=EVERY, further={PROXY: by_reward(proxy.model)})
    tests = held_out(evaluate)
    wrong: dict[str, list[float]] = {}

    def own(seed: int) -> Generator[Stage, None, list[Arm]]:
        pairs = yield from labelled(start, folder, size=league.PAIRS, rate=0.0, seed=seed)
        found = arms(start, pairs, proxy, ablations=ablations)
        for arm in found:
            if arm.module is dpo and arm.start is not None:
                wrong.setdefault(arm.label, []).append(misordered(arm.start.inputs[1]))
        return found

    first = yield from labelled(start, folder, size=league.PAIRS, rate=0.0, seed=seeds[0])
    results = yield from by_seed(
        own, start=start.on(first), seeds=seeds, tests=tests, measuring=how, folder=folder
    )
    before = measured_start(start.on(first), tests, how)
    right = yield from accuracy(start, proxy.model, folder)
    return claim.build_claim(
        "mixed-preference",
        paper_claim="DPO on the pairs with a clear reward gap, then PPO on the prompts of the others with "
        "the DPO model as start and reference, is better than DPO and than PPO, and needs fewer prompts",
        question="gold reward after learning from as many answers: is the method above DPO on all pairs, PPO "
        "on all prompts and its own reverse, does it reach PPO's gold in half of the updates, and do easy "
        "pairs teach DPO as well as all do, and all better than the difficult ones",
        arms=[
            start_arm(before, seeds, further=[PROXY]),
            *(
                review_arm(
                    result, seeds, further=[PROXY], extra=beside(result, results, before, wrong.get(label))
                )
                for label, result in results.items()
            ),
        ],
        comparisons=comparisons(results),
        seeds=seeds,
        settings={
            "task": f"reviews, {league.PAIRS} pairs, {evaluate} held-out records, 2 answers each",
            "proxy_right_on_held_out_pairs": right,
            "answers_learnt_from": PPO.steps * PPO.prompts,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def beside(
    result: ArmResult,
    results: Mapping[str, ArmResult],
    before: Mapping[str, Measured],
    wrong: Sequence[float] | None,
) -> dict[str, Sequence[float]]:
    """What a record says of an arm besides: how often it wins, and of what it learnt from."""
    rivals = {START: before, **{name: results[name] for name in (DPO, PPO_ALL)}}
    found: dict[str, Sequence[float]] = {
        f"wins against {name}": head_to_head(result, rival, HELD_OUT).mean(1).tolist()
        for name, rival in rivals.items()
    }
    if wrong is not None:
        found[WRONG] = wrong
    if result.arm.label in (PPO_ALL, MIXED):
        after = EASY_STEPS if result.arm.label == MIXED else 0
        found[REACHED] = reached(result, results[PPO_ALL], after=after)
    return found


def reached(result: ArmResult, ppo: ArmResult, *, after: int) -> list[float]:
    """Per run, the updates behind step `after` at which PPO's last gold is reached, as a share of PPO's.

    Looked at where the curve is measured; 1 where it is never reached.
    """
    shares = []
    pairs = zip(result.curve(HELD_OUT), ppo.curve(HELD_OUT), strict=True)
    for (steps, values), (all_steps, all_values) in pairs:
        there = [
            step - after
            for step, value in zip(steps, values, strict=True)
            if step >= after and value >= all_values[-1]
        ]
        shares.append(min(there[0] / all_steps[-1], 1.0) if there else 1.0)
    return shares


def comparisons(results: Mapping[str, ArmResult]) -> list[claim.Comparison]:
    """What the paper says of the pairs, of the method, of its pace and of its order."""
    metric = f"{HELD_OUT}: {GOLD}"

    def above(name: str, arm: str, other: str, margin: float = 0.0, way: Any = "higher") -> claim.Comparison:
        gap = difference(results[arm], results[other], HELD_OUT)
        return claim.Comparison(name, arm, other, metric, gap, margin, way)

    pace = mean_interval(reached(results[MIXED], results[PPO_ALL], after=EASY_STEPS))
    return [
        above("easy pairs teach no less than all", DPO_EASY, DPO, WITHIN, "not_lower"),
        above("all pairs teach more than the difficult", DPO, DPO_DIFFICULT),
        above("the method above DPO", MIXED, DPO),
        above("the method above PPO", MIXED, PPO_ALL),
        claim.Comparison("in half of PPO's updates", MIXED, MIXED, REACHED, pace, HALF, "not_higher"),
        above("the order matters", MIXED, REVERSED),
    ]


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Gold of every arm at the end."""
    bars = {arm.name: arm.summary[f"{HELD_OUT}: {GOLD}"] for arm in found.arms}
    return "Gold reward after learning from as many answers", plots.bars_with_intervals(bars, "gold reward")

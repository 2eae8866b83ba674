"""GHPO's claim at small scale: hints where all answers fail teach what plain GRPO does not reach.

A small model can do sums and takes no care: it gets short ones right about every other time and long ones
seldom. From there GRPO and GHPO train on short and long sums by halves. Both are measured without hints:
after as many steps, and GRPO also after as many tokens as GHPO has drawn.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from policysmith.claims.common import helped, reasoning
from policysmith.claims.common.arithmetic import careless_examples
from policysmith.claims.common.helped import (
    BUDGET,
    GRPO,
    GUIDED,
    LONG,
    MEASURING,
    SHORT,
    SIZES,
    STEPS,
    part,
    scores_at_steps,
    scores_at_tokens,
    share_over,
    tokens_drawn,
)
from policysmith.claims.common.language import Arm, ArmResult, claim_arm, compare, trained_seconds
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.systems import ghpo

OURS, HALF = "GHPO", "half of the solution, always"
AT_STEPS, AT_TOKENS = f"GRPO, {STEPS} steps", "GRPO, as many tokens as GHPO"
EARLY, LATE = "GHPO, its first steps", "GHPO, its last steps"
IDLE, HARD = "share of groups that agree", "share of groups all wrong unaided"
HINTED, LEAKED = "share of groups with a hint", "share of groups whose hint held the answer"
TESTS = ("short", "long")
BETTER, WITHIN = 0.05, 0.02
"""GHPO has to be so much better on long sums, and may be so much worse on short ones."""
SLIPS = 0.5
"""How likely each total is to be wrong in the solutions with slips that the start was taught last."""
EDGE = STEPS // 4
"""Steps at the beginning and at the end over which the use of hints is compared."""


def warm_start() -> WarmStart:
    """The recipe of the model that all arms start from: it can do sums, and slips at every other step."""
    careless = careless_examples(reasoning.TAUGHT.questions(20_000, 5), SLIPS, 0)
    return WarmStart(careless, reasoning.SLIPPING, **SIZES, first=reasoning.knowing())


def arms(begun: Start, *, ablations: bool) -> list[Arm]:
    """The baseline and hints where needed; hints for everybody, fewer of them, and later ones."""
    unguided = replace(GUIDED, hint_from=STEPS)
    found = [GRPO, Arm(OURS, ghpo, GUIDED)]
    if ablations:
        found += [
            Arm(HALF, ghpo, unguided, helped.with_half(begun)),
            Arm("GHPO, one stage of half", ghpo, replace(GUIDED, stages=(0.5,))),
            Arm("GHPO, hints from step 20", ghpo, replace(GUIDED, hint_from=20)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 100, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    begun = yield from helped.start(warm_start(), folder)
    results = yield from compare(
        arms(begun, ablations=ablations),
        begun,
        seeds=seeds,
        tests=helped.question_sets(evaluate),
        measuring=MEASURING,
        folder=folder,
    )
    return claim.build_claim(
        "ghpo",
        paper_claim="where all answers to a question fail, asking again with a part of the solution gives "
        "reinforcement learning something to learn from: better than GRPO, with fewer idle groups, and hints "
        "that are needed less and less",
        question=f"sums of {LONG}, without hints: GHPO at least {100 * BETTER:.0f} points above GRPO after "
        f"as many steps, sums of {SHORT} at most {100 * WITHIN:.0f} points below; half the share of groups "
        "that agree; fewer hints late than early (GRPO after as many tokens is shown beside it)",
        arms=record_arms(results, seeds),
        comparisons=comparisons(results),
        seeds=seeds,
        settings={
            "task": f"sums of {SHORT} and of {LONG} by halves, worked out step by step",
            "questions": evaluate,
            "answers_to_a_question": MEASURING.copies,
            "start": begun.model_name,
            "steps": STEPS,
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Accuracy on long sums, of every arm."""
    accuracy = {
        arm.name: arm.summary["long: accuracy"] for arm in found.arms if "long: accuracy" in arm.summary
    }
    return "Accuracy on long sums, asked without hints", bars_with_intervals(accuracy, "accuracy")


# ---- the record --------------------------------------------------------------------------------------


def record_arms(results: Mapping[str, ArmResult], seeds: Sequence[int]) -> list[claim.Arm]:
    """Each arm as it was trained, and parts of the runs: GRPO at GHPO's budgets, GHPO early and late."""
    ours, plain = results[OURS], results[GRPO.label]
    found = [_trained(result, seeds) for result in results.values()]
    budgets = tokens_drawn(ours)
    found += [
        part(AT_STEPS, seeds, {
            **{f"{test}: accuracy": scores_at_steps(plain, test, STEPS).mean(1) for test in TESTS},
            **_training(plain),
        }),
        part(AT_TOKENS, seeds, {
            f"{test}: accuracy": scores_at_tokens(plain, test, budgets).mean(1) for test in TESTS
        }),
        part(EARLY, seeds, {HINTED: share_over(ours, "hinted", 1, EDGE)}),
        part(LATE, seeds, {HINTED: share_over(ours, "hinted", STEPS - EDGE + 1, STEPS)}),
    ]  # fmt: skip
    return found


def comparisons(results: Mapping[str, ArmResult]) -> list[claim.Comparison]:
    """What the paper claims, after as many steps."""
    ours, plain = results[OURS], results[GRPO.label]

    def of_scores(test: str) -> Interval:
        return paired_difference(ours.scores(test), scores_at_steps(plain, test, STEPS))

    idle = zip(share_over(ours, "agreeing", 1, STEPS), share_over(plain, "agreeing", 1, STEPS), strict=True)
    hints = zip(
        share_over(ours, "hinted", STEPS - EDGE + 1, STEPS), share_over(ours, "hinted", 1, EDGE), strict=True
    )
    return [
        claim.Comparison(
            "better on long sums", OURS, AT_STEPS, "long: accuracy", of_scores("long"), BETTER, "higher"
        ),
        claim.Comparison(
            "no worse on short sums", OURS, AT_STEPS, "short: accuracy", of_scores("short"), WITHIN,
            "not_lower",
        ),
        claim.Comparison(
            "idle groups, against half of GRPO's", OURS, AT_STEPS, IDLE,
            mean_interval([mine - theirs / 2 for mine, theirs in idle]), 0.0, "not_higher",
        ),
        claim.Comparison(
            "fewer hints late than early", LATE, EARLY, HINTED,
            mean_interval([late - early for late, early in hints]), 0.0, "lower",
        ),
    ]  # fmt: skip


def _trained(result: ArmResult, seeds: Sequence[int]) -> claim.Arm:
    extra = _training(result) | {"thousand tokens drawn": [t / 1000 for t in tokens_drawn(result)]}
    return claim_arm(result, seeds, tests=TESTS, extra=extra)


def _training(result: ArmResult) -> dict[str, list[float]]:
    """Per run, what its first steps were like."""
    return {
        name: share_over(result, metric, 1, STEPS)
        for name, metric in {IDLE: "agreeing", HARD: "hard", HINTED: "hinted", LEAKED: "leaked"}.items()
    } | {"gradient norm": share_over(result, "grad_norm", 1, STEPS)}

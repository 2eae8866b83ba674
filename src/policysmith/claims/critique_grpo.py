"""Critique-GRPO's claim at small scale: refinements of failed answers teach what plain GRPO does not reach.

A small model can do sums and takes no care, but works longer ones out with care when it is told that it was
wrong. From there it trains by GRPO on eight answers to a question, or by Critique-GRPO on seven and a
refinement. Both are measured on bare questions: after as many steps, and, since refining draws more tokens,
GRPO also after as many tokens.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from policysmith.claims.common import helped, reasoning
from policysmith.claims.common.arithmetic import Level, Mixture, careless_examples, questions
from policysmith.claims.common.helped import (
    BUDGET,
    GRPO,
    MEASURING,
    SHORT,
    SIZES,
    STEPS,
    measured_at,
    part,
    scores_at_steps,
    scores_at_tokens,
    share_over,
    tokens_drawn,
)
from policysmith.claims.common.helped_arithmetic import REFINE, WORDING, corrected_examples
from policysmith.claims.common.language import Arm, ArmResult, claim_arm, compare, trained_seconds
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.experience.examples import Examples
from policysmith.systems import critique_grpo
from policysmith.training.learners.supervised import SupervisedSettings

OURS = "Critique-GRPO"
AT_STEPS, AT_TOKENS = f"GRPO, {STEPS} steps", "GRPO, as many tokens as Critique-GRPO"
SEEN, NEVER = "long, trained on", "share of trained long sums never solved"
TESTS = ("short", "long", SEEN)
BETTER = 0.05
"""It has to be so much better on long sums."""

LONG = Level(3, 1)
SLIPS = 0.5
"""How likely each total is to be wrong in the solutions that the start was taught last to give unasked."""
TEACHING = SupervisedSettings(steps=800, batch_size=16, learning_rate=1e-3, warmup_steps=20)

REFINING = critique_grpo.Config(
    **BUDGET, steps=STEPS, weight_decay=0.0, template=REFINE, wording=WORDING, critique="simple_gt"
)


def warm_start() -> WarmStart:
    """The recipe of the model that both arms start from: it slips at half the steps, and mends with care."""
    asked = Mixture(((SHORT, 1), (LONG, 1))).questions(10_000, 5)
    examples = [
        *careless_examples(asked, SLIPS, 0),
        *corrected_examples(questions(LONG, 15_000, 6), 0),
    ]
    return WarmStart(Examples(examples), TEACHING, **SIZES, first=reasoning.knowing())


def arms(*, ablations: bool) -> list[Arm]:
    """The baseline and the method; what else could be said, or taken of the refinements."""
    found = [GRPO, Arm(OURS, critique_grpo, REFINING)]
    if ablations:
        found += [
            Arm("without the truth", critique_grpo, replace(REFINING, critique="simple")),
            Arm("f(p) = p", critique_grpo, replace(REFINING, gamma=None)),
            Arm("right refinements only", critique_grpo, replace(REFINING, only_right=True)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 100, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    begun = yield from helped.start(warm_start(), folder, long=LONG)
    results = yield from compare(
        arms(ablations=ablations),
        begun,
        seeds=seeds,
        tests=helped.question_sets(evaluate, LONG),
        measuring=MEASURING,
        folder=folder,
    )
    return claim.build_claim(
        "critique-grpo",
        paper_claim="the model repairs, told in words what was wrong, what scores alone leave unsolved; "
        "learning from answers and refinements together is better than GRPO",
        question=f"sums of {LONG}, without critiques: Critique-GRPO at least {100 * BETTER:.0f} points above "
        "GRPO after as many steps, not below it after as many tokens, and fewer of the trained sums that "
        f"none of {MEASURING.copies} answers solves",
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
    accuracy = {arm.name: arm.summary["long: accuracy"] for arm in found.arms}
    return "Accuracy on long sums, asked without critiques", bars_with_intervals(accuracy, "accuracy")


# ---- the record --------------------------------------------------------------------------------------


def record_arms(results: Mapping[str, ArmResult], seeds: Sequence[int]) -> list[claim.Arm]:
    """Each arm as it was trained, and GRPO at Critique-GRPO's budgets."""
    found = []
    for result in results.values():
        extra = {
            NEVER: never_solved(result, result.arm.config.steps),
            "share of groups that agree": share_over(result, "agreeing", 1, STEPS),
            "thousand tokens drawn": [tokens / 1000 for tokens in tokens_drawn(result)],
        }
        if result.arm.module is critique_grpo:
            extra["share of refinements right"] = share_over(result, "refined_right", 1, STEPS)
            extra["reward of answers"] = share_over(result, "unaided_reward", 1, STEPS)
        found.append(claim_arm(result, seeds, tests=TESTS, extra=extra))
    plain, budgets = results[GRPO.label], tokens_drawn(results[OURS])
    at_steps = {f"{test}: accuracy": scores_at_steps(plain, test, STEPS).mean(1) for test in TESTS}
    at_tokens = {f"{test}: accuracy": scores_at_tokens(plain, test, budgets).mean(1) for test in TESTS}
    return [
        *found,
        part(AT_STEPS, seeds, {**at_steps, NEVER: never_solved(plain, STEPS)}),
        part(AT_TOKENS, seeds, at_tokens),
    ]


def comparisons(results: Mapping[str, ArmResult]) -> list[claim.Comparison]:
    """What the paper claims, at equal steps and at equal tokens."""
    ours, plain = results[OURS], results[GRPO.label]

    def above(theirs: Float[np.ndarray, "run prompt"]) -> Interval:
        return paired_difference(ours.scores("long"), theirs)

    never = zip(never_solved(ours, STEPS), never_solved(plain, STEPS), strict=True)
    return [
        claim.Comparison(
            "better after as many steps", OURS, AT_STEPS, "long: accuracy",
            above(scores_at_steps(plain, "long", STEPS)), BETTER, "higher",
        ),
        claim.Comparison(
            "not below after as many tokens", OURS, AT_TOKENS, "long: accuracy",
            above(scores_at_tokens(plain, "long", tokens_drawn(ours))), 0.0, "not_lower",
        ),
        claim.Comparison(
            "fewer sums that are never solved", OURS, AT_STEPS, NEVER,
            mean_interval([mine - theirs for mine, theirs in never]), 0.0, "lower",
        ),
    ]  # fmt: skip


def never_solved(result: ArmResult, steps: int) -> list[float]:
    """Per run, the share of the long questions of the training that no answer gets right after `steps`."""
    ends = [measured_at(result, run, SEEN, steps).score for run in range(len(result.measured))]
    return [float((score < 1).all(1).mean()) for score in ends]

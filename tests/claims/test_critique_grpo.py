"""The experiment of Critique-GRPO: what is compared, at which budgets, and what decides the verdict."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

from policysmith.claims import critique_grpo as experiment
from policysmith.claims.common.arithmetic import solution
from policysmith.claims.common.helped import BUDGET, GRPO, LONGER, STEPS, question_sets
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.critique_grpo import AT_STEPS, AT_TOKENS, LONG, NEVER, OURS, SEEN, arms
from policysmith.evaluation import claim

SEEDS = [0, 1, 2]


def test_baseline_and_method_have_the_same_budget():
    plain, ours = arms(ablations=False)
    assert plain is GRPO
    assert ours.config.steps == STEPS
    assert all(getattr(plain.config, name) == getattr(ours.config, name) for name in BUDGET)
    assert len({str(arm.config) for arm in arms(ablations=True)}) == 5


def test_nobody_is_taught_what_is_held_out():
    held_out = {prompt.text for name in ("short", "long") for prompt in question_sets(60, LONG)[name]}
    assert not held_out & {one.prompt.split("!")[0] for one in experiment.warm_start().examples}


def test_the_start_slips_unasked_and_mends_with_care():
    taught = experiment.warm_start().examples
    care = {True: [], False: []}
    for one in taught:
        question = one.prompt.split("!")[0]
        care["!" in one.prompt].append(one.answer == solution(question))
    assert all(care[True])
    assert 0.3 < sum(care[False]) / len(care[False]) < 0.45, "half of the short ones, a quarter of the long"


def result(arm, curve: dict[int, float], *, solved: float, tokens: float) -> ArmResult:
    """Three runs, with the accuracy on long sums by step, and a share of the trained ones solved."""
    found, steps = ArmResult(arm), arm.config.steps
    for _ in SEEDS:
        found.metrics.append(
            [
                {
                    "step": step, "agreeing": 0.4, "sampled_tokens": tokens, "refined_right": 0.6,
                    "unaided_reward": 0.3,
                }
                for step in range(1, steps + 1)
            ]
        )  # fmt: skip
        curves = {test: {at: scores(rate) for at, rate in curve.items()} for test in ("short", "long")}
        found.measured.append({**curves, SEEN: dict.fromkeys(curve, scores(solved))})
        found.seconds.append(1.0)
    return found


def scores(rate: float) -> Measured:
    score = np.zeros((100, 4))
    score[: round(100 * rate)] = 1.0
    return Measured(score, {"rate": rate, "pass": rate, "tokens": 20.0})


def made(ours: float = 0.8, plain: float = 0.5, later: float = 0.6, solved: float = 0.9):
    """The method's accuracy, GRPO's after as many steps and after twice as many, and the sums solved."""
    baseline, method = arms(ablations=False)
    return {
        baseline.label: result(baseline, {20: 0.2, STEPS: plain, LONGER: later}, solved=0.7, tokens=20.0),
        method.label: result(method, {20: 0.2, STEPS: ours}, solved=solved, tokens=40.0),
    }


def verdicts(**changes: float) -> dict[str, str]:
    return {one.name: one.verdict for one in experiment.comparisons(made(**changes))}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    found = verdicts()
    assert set(found.values()) == {"holds"}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"plain": 0.9, "later": 0.2}, "better after as many steps"),
        ({"later": 0.95}, "not below after as many tokens"),
        ({"solved": 0.4}, "fewer sums that are never solved"),
    ],
)
def test_each_part_of_the_claim_can_fail(changes, failing):
    found = verdicts(**changes)
    assert found.pop(failing) == "fails"
    assert set(found.values()) == {"holds"}


def test_a_record_is_made_of_the_runs_and_of_their_parts():
    results = made()
    found = claim.build_claim(
        "critique-grpo",
        paper_claim="p",
        question="q",
        arms=experiment.record_arms(results, SEEDS),
        comparisons=experiment.comparisons(results),
        seeds=SEEDS,
        settings={},
        seconds=1.0,
        recipe_version=1,
    )
    named = {arm.name: arm for arm in found.arms}
    assert list(named) == [f"GRPO, {LONGER} steps", OURS, AT_STEPS, AT_TOKENS]
    assert named[AT_STEPS].summary["long: accuracy"].value == pytest.approx(0.5)
    assert named[AT_TOKENS].summary["long: accuracy"].value == pytest.approx(0.6), "twice the tokens a step"
    assert named[OURS].summary[NEVER].value == pytest.approx(0.1)
    assert named[OURS].summary["share of refinements right"].value == pytest.approx(0.6)
    caption, figure = experiment.plot(found)
    assert "without critiques" in caption
    assert len(figure.axes[0].patches) == 4

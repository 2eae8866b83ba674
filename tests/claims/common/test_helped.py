"""What experiments with help share: fair questions, and budgets of steps and of tokens."""

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

from policysmith.claims.common import helped
from policysmith.claims.common.helped import (
    GRPO,
    GUIDED,
    LONG,
    LONGER,
    SHORT,
    STEPS,
    part,
    scores_at_steps,
    scores_at_tokens,
    share_over,
    tokens_drawn,
)
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.common.errors import DataError


def result_with(rates: dict[int, float], *, tokens: float) -> ArmResult:
    """One run of three steps in which two questions have so much at each of the steps."""
    found = ArmResult(GRPO)
    found.metrics = [[{"step": step, "sampled_tokens": tokens * step} for step in (1, 2, 3)]]
    curve = {step: Measured(np.array([[rate], [rate / 2]]), {"rate": rate}) for step, rate in rates.items()}
    found.measured = [{"long": curve}]
    return found


def test_the_baseline_is_the_method_without_hints():
    assert GRPO.config.hint_from == GRPO.config.steps == LONGER
    assert GUIDED.hint_from == 0
    plain = {"steps", "hint_from"}
    differing = {name for name in vars(GUIDED) if getattr(GUIDED, name) != getattr(GRPO.config, name)}
    assert differing == plain - ({"steps"} if STEPS == LONGER else set())


def test_questions_that_are_measured_with_are_held_out_and_those_trained_on_are_not():
    training = {prompt.text for prompt in helped.prompts()}
    asked = helped.question_sets(20)
    assert {name: len(prompts) for name, prompts in asked.items()} == {
        "short": 20,
        "long": 20,
        "long, trained on": 20,
    }
    assert not training & {prompt.text for name in ("short", "long") for prompt in asked[name]}
    assert all(p.text in training and p.data["level"] == LONG for p in asked["long, trained on"])
    levels = [prompt.data["level"] for prompt in helped.prompts()]
    assert levels.count(SHORT) == levels.count(LONG)


def test_every_row_of_a_step_counts_its_tokens():
    result = result_with({}, tokens=10.0)
    assert tokens_drawn(result) == [128 * 60.0]
    assert tokens_drawn(result, steps=2) == [128 * 30.0]


def test_scores_at_a_number_of_tokens_lie_on_the_line_between_two_measurements():
    result = result_with({1: 0.0, 3: 1.0}, tokens=10.0)
    after = [128 * tokens for tokens in (10.0, 35.0, 60.0, 999.0, 1.0)]
    found = [scores_at_tokens(result, "long", [budget])[0].tolist() for budget in after]
    assert found == [[0, 0], [0.5, 0.25], [1, 0.5], [1, 0.5], [0, 0]]


def test_a_run_that_was_not_measured_there_is_named():
    result = result_with({2: 0.5}, tokens=1.0)
    assert scores_at_steps(result, "long", 2).tolist() == [[0.5, 0.25]]
    with pytest.raises(DataError, match=r"(?s)after \[2\] steps, not after 3.*as many questions"):
        scores_at_steps(result, "long", 3)


def test_means_are_over_the_steps_that_are_asked_for():
    assert share_over(result_with({}, tokens=1.0), "sampled_tokens", 2, 3) == [2.5]


def test_a_part_of_other_runs_is_an_arm():
    found = part("early", [0, 1], {"rate": [0.25, 0.75]})
    assert [run.metrics for run in found.runs] == [{"rate": 0.25}, {"rate": 0.75}]
    assert found.summary["rate"].value == 0.5

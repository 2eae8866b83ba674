"""The experiment of GHPO: what is compared, at which budgets, and what decides the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

from policysmith.claims import ghpo as experiment
from policysmith.claims.common import helped
from policysmith.claims.common.helped import GRPO, GUIDED, LONGER, STEPS
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.common.starts import Start
from policysmith.claims.ghpo import AT_STEPS, AT_TOKENS, EARLY, LATE, OURS, arms
from policysmith.evaluation import claim
from policysmith.experience.guidance import with_hint
from policysmith.rewards.verifiers import exact

SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Start:
    return Start(tmp_path_factory.mktemp("model"), "model", helped.prompts(), exact(), "right")


def test_the_arms_differ_in_hints_alone(begun):
    plain, ours, half, *_ = arms(begun, ablations=True)
    assert ours.config == GUIDED
    assert replace(plain.config, steps=STEPS, hint_from=0) == GUIDED
    assert replace(half.config, hint_from=0) == GUIDED
    assert half.config.hint_from == STEPS
    assert half.start is not None
    for plain_prompt, hinted in zip(begun.prompts, half.start.prompts, strict=True):
        assert hinted.text == with_hint(plain_prompt, 0.5, template="{question}{hint}").text
    assert len(arms(begun, ablations=True)) == 5


def test_nobody_is_taught_what_is_held_out():
    held_out = {prompt.text for name in ("short", "long") for prompt in helped.question_sets(60)[name]}
    assert not held_out & {example.prompt for example in experiment.warm_start().examples}


def result(arm, *, rates: dict[str, float], agreeing: float, hinted: tuple[float, float], tokens: float):
    """Three runs whose hints fall evenly from one share to another; a hundred questions of four answers."""
    found, steps = ArmResult(arm), arm.config.steps
    for _ in SEEDS:
        first, last = hinted
        found.metrics.append(
            [
                {
                    "step": step, "agreeing": agreeing, "hard": 0.5, "leaked": 0.1, "grad_norm": 1.0,
                    "sampled_tokens": tokens, "hinted": first + (last - first) * step / steps,
                }
                for step in range(1, steps + 1)
            ]
        )  # fmt: skip
        curves = {}
        for test in ("short", "long", "long, trained on"):
            score = np.zeros((100, 4))
            score[: round(100 * rates.get(test, 0.5))] = 1.0
            numbers = {"rate": float(score.mean()), "pass": float(score.mean()), "tokens": 20.0}
            curves[test] = {at: Measured(score, numbers) for at in range(20, steps + 1, 20)}
        found.measured.append(curves)
        found.seconds.append(1.0)
    return found


def made(begun: Start, **changes) -> dict[str, ArmResult]:
    """All that the paper says, but for the changes."""
    said = {
        "long": 0.8, "short": 0.9, "agreeing": 0.2, "hinted": (0.6, 0.1), "plain": 0.5, **changes,
    }  # fmt: skip
    plain, ours = arms(begun, ablations=False)
    rates = {"long": said["long"], "short": said["short"]}
    return {
        plain.label: result(
            plain, rates={"long": said["plain"], "short": 0.9}, agreeing=0.6, hinted=(0, 0), tokens=20.0
        ),
        ours.label: result(ours, rates=rates, agreeing=said["agreeing"], hinted=said["hinted"], tokens=40.0),
    }


def verdicts(begun: Start, **changes) -> dict[str, str]:
    return {one.name: one.verdict for one in experiment.comparisons(made(begun, **changes))}


def test_the_claim_holds_where_all_that_it_says_is_seen(begun):
    found = verdicts(begun)
    assert set(found.values()) == {"holds"}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"long": 0.4}, "better on long sums"),
        ({"short": 0.5}, "no worse on short sums"),
        ({"agreeing": 0.4}, "idle groups, against half of GRPO's"),
        ({"hinted": (0.3, 0.6)}, "fewer hints late than early"),
    ],
)
def test_each_part_of_the_claim_can_fail(begun, changes, failing):
    found = verdicts(begun, **changes)
    assert found.pop(failing) == "fails"
    assert set(found.values()) == {"holds"}


def test_a_record_is_made_of_the_runs_and_of_their_parts(begun):
    results = made(begun)
    found = claim.build_claim(
        "ghpo",
        paper_claim="p",
        question="q",
        arms=experiment.record_arms(results, SEEDS),
        comparisons=experiment.comparisons(results),
        seeds=SEEDS,
        settings={},
        seconds=1.0,
        recipe_version=1,
    )
    assert [arm.name for arm in found.arms] == [
        f"GRPO, {LONGER} steps", OURS, AT_STEPS, AT_TOKENS, EARLY, LATE,
    ]  # fmt: skip
    named = {arm.name: arm for arm in found.arms}
    assert named[OURS].runs[0].metrics["thousand tokens drawn"] == pytest.approx(128 * 40 * STEPS / 1000)
    assert named[GRPO.label].runs[0].metrics["thousand tokens drawn"] == pytest.approx(
        128 * 20 * LONGER / 1000
    )
    early, late = (named[name].summary[experiment.HINTED].value for name in (EARLY, LATE))
    assert early > 0.5 > 0.2 > late
    caption, figure = experiment.plot(found)
    assert "without hints" in caption
    assert len(figure.axes[0].patches) == 4

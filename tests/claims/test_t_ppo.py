"""The experiment of T-PPO: equal budgets of decoding steps, when a target is reached, what decides."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("reasoning_gym")

from policysmith.claims import t_ppo as experiment
from policysmith.claims.common.language import Arm, ArmResult, Measured
from policysmith.claims.t_ppo import (
    BUDGET,
    FAILURE,
    GROUPS,
    LIMIT,
    OURS,
    PPO,
    TEST,
    WHOLE,
    WINDOW,
    clocks,
    comparisons,
    occupancy,
    reached,
    sides,
)
from policysmith.common.stages import result_of
from policysmith.policies.language.small import small_decoder

START = Measured(np.zeros((4, 1)), {"rate": 0.2})


def test_all_arms_have_the_same_slots_and_the_same_budget_of_decoding_steps():
    for side in sides(ablations=True):
        config = side.config
        assert config.prompts * config.group_size == experiment.SLOTS
        assert config.steps * min(getattr(config, "window", LIMIT), WHOLE) == BUDGET
        assert config.answer_limit == LIMIT
        assert config.steps % side.every == 0


def test_ppo_differs_in_its_window_alone():
    ours, whole, failing = (side.config for side in sides(ablations=False)[:3])
    assert (ours.window, whole.window) == (WINDOW, LIMIT)
    same = {
        "learning_rate",
        "critic_learning_rate",
        "lam",
        "clip_low",
        "clip_high",
        "value_low",
        "ignore_tail",
    }
    assert all(getattr(ours, name) == getattr(whole, name) for name in same)
    assert ours.critic_warmup * WINDOW == whole.critic_warmup * WHOLE
    assert {name for name, value in vars(ours).items() if getattr(failing, name) != value} == {"carry_value"}


def test_a_target_is_reached_between_the_measurements_around_it():
    clock = [0.0, 10.0, 20.0, 30.0]
    assert reached(clock, [0.0, 0.0, 0.6, 0.9], 0.35) == pytest.approx(10 + 10 * (0.35 - 0.2) / (0.5 - 0.2))
    assert reached(clock, [0.5] * 4, 0.5) == 0.0
    assert reached(clock, [0.0, 0.1, 0.2, 0.2], 0.5) is None


def test_a_single_lucky_measurement_does_not_reach_a_target():
    assert reached([0.0, 1.0, 2.0, 3.0], [0.1, 0.7, 0.1, 0.1], 0.6) is None


def made(label: str, *, per_step: float, rates: list[float], score: float) -> ArmResult:
    """Three runs of ten steps, measured after each, that get so large a share of 400 questions right."""
    side = next(side for side in sides(ablations=False) if side.label == label)
    lines = [
        {"step": float(step), "decoding_steps": per_step - 1, "answer_tokens": per_step / 2}
        for step in range(1, 11)
    ]
    scores = (np.arange(400) < 400 * score).astype(float)[:, None]
    curve = {step: Measured(scores, {"rate": rate}) for step, rate in enumerate(rates, start=1)}
    result = ArmResult(Arm(label, side.module, side.config))
    for _ in range(3):
        result.metrics.append(lines)
        result.measured.append({TEST: curve})
        result.seconds.append(1.0)
    return result


def test_the_clock_counts_every_call_of_the_model_and_the_first_token_of_the_prompt():
    result = made(PPO, per_step=48.0, rates=[0.5] * 10, score=0.5)
    assert clocks(result)[0][10.0] == 480.0
    assert occupancy(result) == [0.5] * 3


def outcome(*, ours: float, whole: float, final: float = 0.9, failing: float = 0.5) -> dict[str, str]:
    """Verdicts where every arm climbs to the target at the same step, at so many decoding steps each."""
    rates = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9]
    results = {
        OURS: made(OURS, per_step=ours, rates=rates, score=final),
        PPO: made(PPO, per_step=whole, rates=rates, score=0.9),
        FAILURE: made(FAILURE, per_step=ours, rates=rates, score=failing),
        GROUPS: made(GROUPS, per_step=whole, rates=rates, score=0.9),
    }
    return {one.name: one.verdict for one in comparisons(results, START)}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    assert set(outcome(ours=8.0, whole=24.0).values()) == {"holds"}


@pytest.mark.parametrize(
    ("case", "failing"),
    [
        ({"ours": 20.0, "whole": 24.0}, "fewer decoding steps to the target"),
        ({"ours": 8.0, "whole": 24.0, "final": 0.5}, "as accurate in the end"),
        ({"ours": 8.0, "whole": 24.0, "failing": 1.0}, "a cut is no failure"),
    ],
)
def test_each_part_of_the_claim_can_fail(case, failing):
    assert outcome(**case)[failing] == "fails"


def test_a_miniature_run_makes_a_record_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model"
    small_decoder(0, width=32, layers=1, heads=2, context=64).save_pretrained(path)

    def start(folder):
        yield from ()
        questions = experiment.MIXTURE.questions(20, 1)
        return experiment.Start(path, "tiny", questions, experiment.right, "right")

    monkeypatch.setattr(experiment, "start", start)
    for name, value in {
        "SLOTS": 16,
        "LIMIT": 4,
        "WHOLE": 4,
        "WINDOW": 2,
        "BUDGET": 8,
        "MEASURED": 4,
        "WARMING": 4,
    }.items():
        monkeypatch.setattr(experiment, name, value)
    monkeypatch.setitem(experiment.SHARED, "answer_limit", 4)
    found = result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=4))
    assert [arm.name for arm in found.arms] == [OURS, PPO, FAILURE, GROUPS]
    ours = found.arms[0].summary
    assert ours["decoding steps"].value == pytest.approx(8.0)
    assert ours["decoding steps to the target"].value == pytest.approx(math.exp(ours[experiment.CLOCK].value))
    assert {"accuracy after 0 steps", "slots in use", "target reached"} <= set(ours)
    assert len(experiment.plot(found)[1].axes[0].lines) >= 4

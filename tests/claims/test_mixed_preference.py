"""The experiment of mixed preference optimisation: as much for every arm, and what each comparison asks."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims import dpo as league
from policysmith.claims import mixed_preference as experiment
from policysmith.claims.common.language import Arm, ArmResult, Measured, head_to_head
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, START
from policysmith.claims.mixed_preference import (
    DPO,
    DPO_DIFFICULT,
    DPO_EASY,
    EASY_STEPS,
    MIXED,
    OURS,
    PPO,
    PPO_ALL,
    REACHED,
    REVERSED,
    WRONG,
    comparisons,
    reached,
)
from policysmith.common.stages import result_of
from policysmith.systems import token_ppo

NAMES = (DPO, DPO_EASY, DPO_DIFFICULT, PPO_ALL, MIXED, REVERSED)


def test_every_arm_learns_from_as_many_answers():
    alone = 2 * league.BUDGET["steps"] * league.BUDGET["batch_size"]
    mixed = 2 * OURS.easy_steps * OURS.easy_batch + OURS.difficult.steps * OURS.prompts
    assert alone == mixed == PPO.steps * PPO.prompts


def test_the_stages_learn_as_dpo_and_ppo_do_alone():
    own = asdict(OURS)
    for name, value in asdict(PPO).items():
        assert name == "steps" or own[name] == value, name
    easy = asdict(OURS.easy)
    for name, value in league.BUDGET.items():
        # No answer is as long as the limit that sampling has.
        assert name in ("steps", "answer_limit") or easy[name] == value, name
    assert OURS.beta == league.BETA


def result(label: str, gold: list[float]) -> ArmResult:
    """Three runs with that gold reward at every 25 steps, a little apart."""
    runs = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(0, 0.01, (40, 2))
        at = {25 * (i + 1): Measured(mean + noise, {"rate": mean}) for i, mean in enumerate(gold)}
        runs.append({HELD_OUT: at})
    return ArmResult(Arm(label, token_ppo, PPO), measured=runs)


def results(**changed: list[float]) -> dict[str, ArmResult]:
    """Arms as the paper would have them, but for those that are `changed`."""
    gold = {
        DPO: [0.4], DPO_EASY: [0.4], DPO_DIFFICULT: [0.3], PPO_ALL: [0.2] * 7 + [0.35],
        MIXED: [0.2, 0.3, 0.4, 0.45, 0.5, 0.5], REVERSED: [0.4],
    }  # fmt: skip
    return {label: result(label, changed.get(label, values)) for label, values in gold.items()}


def verdicts(**changed: list[float]) -> dict[str, str]:
    return {one.name: one.verdict for one in comparisons(results(**changed))}


def test_the_claim_holds_where_all_that_the_paper_says_is_measured():
    assert set(verdicts().values()) == {"holds"}
    assert len(verdicts()) == 6


@pytest.mark.parametrize(
    ("arm", "gold", "fails"),
    [
        (DPO_EASY, [0.3], "easy pairs teach no less than all"),
        (DPO_DIFFICULT, [0.5], "all pairs teach more than the difficult"),
        (DPO, [0.6], "the method above DPO"),
        (PPO_ALL, [0.2] * 7 + [0.6], "the method above PPO"),
        (PPO_ALL, [0.2] * 7 + [0.6], "in half of PPO's updates"),
        (REVERSED, [0.6], "the order matters"),
    ],
)
def test_each_comparison_can_fail(arm, gold, fails):
    assert verdicts(**{arm: gold})[fails] == "fails"


def test_updates_are_counted_from_the_beginning_of_ppo_to_its_last_gold():
    found = results()
    assert EASY_STEPS == 50
    assert reached(found[MIXED], found[PPO_ALL], after=EASY_STEPS) == [25 / 200] * 3
    assert reached(found[PPO_ALL], found[PPO_ALL], after=0) == [1.0] * 3
    at_once = result(MIXED, [0.2, 0.36, 0.3])
    assert reached(at_once, found[PPO_ALL], after=EASY_STEPS) == [0.0] * 3
    never = result(MIXED, [0.9, 0.1, 0.1])
    assert reached(never, found[PPO_ALL], after=EASY_STEPS) == [1.0] * 3, "what DPO had does not count"


def test_a_win_is_an_answer_above_one_to_the_same_question():
    one, other = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.0]])
    arms = [
        ArmResult(Arm("", token_ppo, PPO), measured=[{HELD_OUT: {1: Measured(score, {})}}])
        for score in (one, other)
    ]
    assert head_to_head(arms[0], arms[1], HELD_OUT).tolist() == [[0.5, 0.75]]
    assert head_to_head(arms[1], {HELD_OUT: Measured(one, {})}, HELD_OUT).tolist() == [[0.5, 0.25]]


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_a_miniature_run_makes_a_record_and_a_plot(tmp_path, monkeypatch, small_reviews):
    few = {"prompts": 4, "warmup_steps": 0}
    for module, name, value in (
        (league, "PAIRS", 40),
        (league, "BUDGET", {**league.BUDGET, "steps": 2, "batch_size": 4}),
        (experiment, "EASY_STEPS", 1),
        (experiment, "PPO", replace(PPO, steps=4, **few)),
        (experiment, "OURS", replace(OURS, steps=3, easy_steps=1, easy_batch=4, **few)),
        (experiment, "EVERY", 1),
    ):
        monkeypatch.setattr(module, name, value)
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=4, ablations=True))
    assert [arm.name for arm in found.arms[:7]] == [START, *NAMES]
    assert len(found.arms) == 10
    by_name = {arm.name: arm for arm in found.arms}
    of_all, of_easy, of_difficult = (
        by_name[name].summary[WRONG].value for name in (DPO, DPO_EASY, DPO_DIFFICULT)
    )
    assert min(of_easy, of_difficult) <= of_all <= max(of_easy, of_difficult)
    assert by_name[experiment.DPO_TOLD].summary[WRONG].value <= of_all
    assert by_name[START].summary[f"{HELD_OUT}: {GOLD}"].width == 0
    assert REACHED in by_name[MIXED].summary
    assert experiment.plot(found)[1].axes

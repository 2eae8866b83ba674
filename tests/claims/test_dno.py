"""The experiment with games: the regression, what a step gains, where steps end, and that it can fail."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policysmith.claims import dno as experiment
from policysmith.claims.common import reviews, taught_reviews
from policysmith.claims.common.games import at_random
from policysmith.claims.common.language import Arm, ArmResult, Measured
from policysmith.claims.common.measurements import beats
from policysmith.claims.common.review_language import WORDS
from policysmith.claims.common.review_learning import HELD_OUT, KL, Begun, begun
from policysmith.claims.common.taught_reviews import (
    BUDGET,
    DNO,
    FIXED,
    IMITATED,
    OFFLINE,
    RESTRICTIVE,
    SPIN,
    START,
    TEACHER,
    UNFILTERED,
    Learnt,
    in_round,
)
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import result_of
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompts
from policysmith.objectives.preference_games import soft_policy_iteration
from policysmith.training.learners.supervised import SupervisedSettings


def test_the_regression_is_a_step_of_policy_iteration():
    wins = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]).double()
    policy = torch.tensor([0.2, 0.5, 0.3]).double()
    found = experiment.regressed(wins, policy, eta=0.5)
    assert found.tolist() == pytest.approx([0.246773, 0.505102, 0.248125], abs=1e-5)


def test_a_step_that_is_not_the_closed_form_gains_less_than_promised(monkeypatch):
    wins, start = at_random(0, 10), torch.full((10,), 0.1).double()
    monkeypatch.setattr(experiment, "STEPS", 5)
    assert experiment.played(wins, start)[1] == 0
    away = lambda wins, policy, eta: 2 * policy - soft_policy_iteration(wins, policy, eta=eta)  # noqa: E731
    monkeypatch.setattr(experiment, "soft_policy_iteration", away)
    assert experiment.played(wins, start)[1] > 1e-3


def test_the_average_is_unbeaten_and_the_last_policy_of_a_cycle_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 600)
    found = result_of(experiment.reproduce(seeds=range(4), folder=tmp_path, evaluate=0))
    at = {arm.name: arm.summary for arm in found.arms}
    metric = f"{experiment.EXPLOITED}, cycle"
    assert at[experiment.AVERAGE][metric].value < 0.03 < 0.1 < at[experiment.LAST][metric].value
    assert experiment.plot(found)[1].axes


# ---- reviews beside a teacher --------------------------------------------------------------------------


def scores(chance: float, seed: int) -> np.ndarray:
    """Sixty prompts with two answers each that have 6 points with a chance, else 3."""
    return np.where(np.random.default_rng(seed).random((60, 2)) < chance, 6.0, 3.0)


def learnt(**rounds: list[float]) -> Learnt:
    """Three runs of each arm with such a chance of 6 points behind each round; the start has 0.2."""
    results = {}
    chances = {"dno": [0.5, 0.7, 0.9], "restrictive": [0.4, 0.5, 0.6], "spin": [0.2, 0.25, 0.3], **rounds}
    for place, (label, key) in enumerate({DNO: "dno", RESTRICTIVE: "restrictive", SPIN: "spin"}.items()):
        result = ArmResult(Arm(label, experiment, BUDGET))  # type: ignore[arg-type]
        for run in range(3):
            at = {
                40 * (number + 1): Measured(
                    scores(chance, 100 * run + 10 * place + number), {"tokens": 17.0, KL: 1.0}
                )
                for number, chance in enumerate(chances[key])
            }
            result.measured.append({HELD_OUT: at})
            lines = [{"step": 1.0 + 40 * number, "pairs/student_wins": 7.0 + number} for number in range(3)]
            result.metrics.append(lines)
        results[label] = result
    return Learnt(results, scores(0.2, 1000), scores(0.5, 2000))


def test_a_tie_is_half_a_win_and_copies_of_the_same_place_do_not_meet():
    first, second = np.array([[6.0, 3.0], [3.0, 3.0]]), np.array([[6.0, 3.0], [6.0, 3.0]])
    assert beats(first, second).tolist() == [0.5, 0.25]
    assert (beats(first, second) + beats(second, first)).tolist() == [1.0, 1.0]
    assert beats(first, first).tolist() == [0.5, 0.5]
    assert beats(np.array([[6.0, 3.0]]), np.array([[3.0, 5.0]])).tolist() == [0.75]  # all pairs: 0.625


def test_rounds_that_win_hold_and_those_that_stand_still_do_not():
    found = {one.name: one.verdict for one in experiment.of_reviews(learnt())}
    assert len(found) == 5
    assert set(found.values()) == {"holds"}
    still = {one.name: one.verdict for one in experiment.of_reviews(learnt(dno=[0.5, 0.5, 0.3]))}
    assert still["reviews: round 1 beats the one before"] == "holds"
    assert still["reviews: round 2 beats the one before"] != "holds"
    assert still["reviews: round 3 beats the one before"] == "fails"
    assert still["reviews: DNO above DNO-Restrictive"] == "fails"
    better = {one.name: one.verdict for one in experiment.of_reviews(learnt(spin=[0.5, 0.7, 0.9]))}
    assert better["reviews: DNO-Restrictive above SPIN"] == "fails"


def test_an_arm_says_who_wins_and_which_pairs_there_were_by_round():
    arms = {arm.name: arm for arm in taught_reviews.taught_arms(learnt(), [5, 6, 7])}
    assert list(arms) == [START, TEACHER, DNO, RESTRICTIVE, SPIN]
    metrics = arms[DNO].runs[1].metrics
    assert [metrics[in_round("pairs, own over teacher", number)] for number in (1, 2, 3)] == [7, 8, 9]
    found = learnt()
    run = found.rounds(DNO)[1]
    assert len(run) == 4
    assert (run[0] == found.start).all()
    assert metrics[taught_reviews.OVER_TEACHER] == pytest.approx(beats(run[3], found.teacher).mean())
    assert metrics[in_round(taught_reviews.OVER_BEFORE, 1)] == pytest.approx(beats(run[1], run[0]).mean())
    assert metrics[taught_reviews.OVER_TEACHER] == metrics[in_round(taught_reviews.OVER_TEACHER, 3)]
    assert in_round("pairs, own over teacher", 1) in arms[SPIN].summary


def test_arms_differ_in_their_pairs_alone_and_offline_has_one_round_of_all_prompts():
    start = Begun(None, Path("model"), None)  # type: ignore[arg-type]
    taught, shown = Prompts(reviews.prompts(3, 0)), Examples([Example("a", "b")])
    arms = {arm.label: arm for arm in taught_reviews.arms(start, taught, shown, ablations=True)}
    assert list(arms) == [IMITATED, OFFLINE, SPIN, RESTRICTIVE, DNO, UNFILTERED, FIXED]
    assert len(taught_reviews.arms(start, taught, shown, ablations=False)) == 5
    assert arms[DNO].config == BUDGET
    assert replace(arms[SPIN].config, variant="dno") == BUDGET
    assert replace(arms[RESTRICTIVE].config, variant="dno") == BUDGET
    assert replace(arms[FIXED].config, reference="round") == BUDGET
    assert arms[OFFLINE].config.round_steps == arms[OFFLINE].config.steps == BUDGET.steps
    assert arms[OFFLINE].config.prompts == taught_reviews.ROUNDS * BUDGET.prompts
    assert arms[IMITATED].config.steps == BUDGET.steps
    assert arms[IMITATED].config.batch_size == 2 * BUDGET.batch_size
    assert arms[IMITATED].start.examples is shown  # type: ignore[union-attr]


def test_the_teacher_writes_better_than_the_start_was_shown_and_positives_have_the_floor():
    asked = reviews.prompts(200, 4)
    shown = [reviews.points(one.answer, prompt) for one, prompt in zip(
        reviews.demonstrations(asked, 0, low=0.3), asked, strict=True
    )]  # fmt: skip
    taught = taught_reviews.with_teacher(asked, 0)
    teacher = [reviews.points(str(prompt.answer), prompt) for prompt in taught]
    assert np.mean(teacher) > np.mean(shown) + 0.3
    assert np.mean(np.array(teacher) >= 4) > 0.8
    assert taught.fingerprint != taught_reviews.with_teacher(asked, 1).fingerprint
    good = next(prompt for prompt, worth in zip(taught, teacher, strict=True) if worth == 6)
    said = {str(good.text): (str(good.answer), "banana", str(good.answer))}
    positives = taught_reviews.positives_of(taught, said)
    assert len(positives) == sum(worth >= BUDGET.floor for worth in teacher)
    assert positives.fingerprint == taught_reviews.positives_of(taught, {}).fingerprint


def test_prompts_of_all_rounds_are_different(monkeypatch):
    monkeypatch.setattr(taught_reviews, "ROUNDS", 2)
    monkeypatch.setattr(taught_reviews, "BUDGET", replace(BUDGET, prompts=3))
    (first, *_) = asked = list(reviews.prompts(9, 0))
    chosen = taught_reviews.unlike(Prompts([first, *asked]))
    assert [prompt.text for prompt in chosen] == [prompt.text for prompt in asked[:6]]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'")
def test_a_miniature_of_both_parts_makes_a_record(tmp_path, monkeypatch):
    shown = reviews.demonstrations(reviews.prompts(200, 3), 0, low=0.5)
    quick = SupervisedSettings(steps=40, batch_size=16, learning_rate=1e-2, warmup_steps=0)
    sizes = {"width": 32, "layers": 1, "heads": 2, "context": 64, "spread": 0.1}
    start = WarmStart(shown, quick, words=WORDS, **sizes)
    small = replace(BUDGET, prompts=6, group_size=2, steps=6, round_steps=2, batch_size=2, margin_teacher=1.0)
    for module, name, value in (
        (experiment, "STEPS", 5),
        (taught_reviews, "begun", lambda folder: begun(folder, start)),
        (taught_reviews, "SEEDS", 1),
        (taught_reviews, "ROUND_STEPS", 2),
        (taught_reviews, "BUDGET", small),
        (taught_reviews, "IMITATION", replace(quick, steps=6)),
    ):
        monkeypatch.setattr(module, name, value)
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=5))
    arms = {arm.name: arm for arm in found.arms}
    assert {START, TEACHER, IMITATED, OFFLINE, SPIN, RESTRICTIVE, DNO} < set(arms)
    assert [run.seed for run in arms[DNO].runs] == [0]
    assert (
        arms[TEACHER].summary[taught_reviews.POINTS].value > arms[START].summary[taught_reviews.POINTS].value
    )
    spin = arms[SPIN].runs[0].metrics
    assert spin[in_round("pairs, teacher over own", 3)] >= 10
    assert spin[in_round("pairs, own over teacher", 3)] == 0
    assert in_round("pairs, teacher over own", 1) in arms[OFFLINE].summary
    assert in_round("pairs, teacher over own", 2) not in arms[OFFLINE].summary
    assert experiment.plot(found)[1].axes

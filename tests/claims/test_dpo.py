"""The league of losses: the same pairs and budget for all, and when losses count as told apart."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims import copg, lipo, robust_dpo
from policysmith.claims import dpo as league
from policysmith.claims.common import graded_reviews
from policysmith.claims.common.language import Arm, ArmResult, Measured
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, KL, VALIDATION, review_arm
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt


def results(gold: dict[str, float]) -> dict[str, ArmResult]:
    """Three runs of each arm with that mean on forty records, a little apart from run to run."""
    found = {}
    for label, mean in gold.items():
        noise = np.random.default_rng(0).normal(0, 0.1, (3, 40, 2))
        measured = [
            {HELD_OUT: {100: Measured(mean + one, {"rate": mean, KL: 1.0, "tokens": 17.0})}} for one in noise
        ]
        found[label] = ArmResult(Arm(label, None, league.losses(0.2)["DPO"][1]), measured=measured)  # type: ignore[arg-type]
    return found


def full(**gold: float) -> dict[str, ArmResult]:
    return results(
        {
            league.called(name, rate): gold.get(name, 0.3)
            for rate in league.RATES
            for name in league.losses(rate)
        }
    )


@pytest.mark.parametrize("rate", league.RATES)
def test_every_loss_has_the_same_budget(rate):
    for _, config in league.losses(rate).values():
        settings = asdict(config)
        assert {name: settings[name] for name in league.BUDGET} == league.BUDGET
        assert settings["beta"] == league.BETA
        assert settings.get("rate", rate) == rate, "who corrects for wrong labels knows their share"


def test_losses_of_scores_see_the_labels_and_not_the_programs_scores():
    pairs = Preferences([Preference(Prompt("a"), ("b", "c"), data={"scores": (0.1, 0.9)})])
    assert dict(league.scoreless(pairs)[0].data) == {}
    assert league.scoreless(pairs).fingerprint == pairs.fingerprint


def test_a_loss_that_is_clearly_better_than_dpo_makes_the_claim_fail():
    level = {one.name: one.verdict for one in league.comparisons(full())}
    assert set(level.values()) == {"holds"}
    better = {one.name: one.verdict for one in league.comparisons(full(rDPO=0.6))}
    assert better["DPO not behind rDPO, 0.4 wrong"] == "fails"
    assert "rDPO above DPO" in league.told_apart(full(rDPO=0.6))
    assert "0 wrong: none from any other" in league.told_apart(full())


def test_the_corrected_loss_is_taken_from_the_league():
    verdicts = [one.verdict for one in robust_dpo.of_reviews(full(rDPO=0.6))]
    assert verdicts == ["holds", "holds"]
    assert robust_dpo.of_reviews({}) == []


def test_each_loss_of_graded_reviews_is_judged_at_its_best_weight_on_other_records():
    gold = {
        graded_reviews.called(name, beta): beta
        for name in graded_reviews.LOSSES
        for beta in graded_reviews.BETAS
    }
    found = results(gold)
    for result in found.values():
        for one in result.measured:
            one[VALIDATION] = {100: Measured(-one[HELD_OUT][100].score, {})}
    assert graded_reviews.best_of(found, "IPO") == graded_reviews.called("IPO", min(graded_reviews.BETAS))
    found[graded_reviews.called("CoPG", 0.03)] = results({"x": 0.9})["x"]
    found[graded_reviews.called("CoPG", 0.03)].measured = [
        {**one, VALIDATION: {100: Measured(one[HELD_OUT][100].score, {})}}
        for one in found[graded_reviews.called("CoPG", 0.03)].measured
    ]
    assert {one.verdict for one in copg.of_reviews(found)} == {"holds"}


def test_lists_are_held_to_what_the_paper_says_of_them():
    gold = {
        lipo.called(kind, rate): 0.1 if kind == "softmax" else 0.3
        for kind in lipo.KINDS
        for rate in lipo.LEARNING_RATES
    }
    found = results(gold)
    for result in found.values():
        for one in result.measured:
            one[VALIDATION] = one[HELD_OUT]
    verdicts = {one.name: one.verdict for one in lipo.comparisons(found)}
    assert verdicts["pair-logistic above softmax"] == "holds"
    assert verdicts["lambda above pair-logistic"] != "holds"


def test_an_arm_says_gold_divergence_and_length():
    arm = review_arm(results({"DPO": 0.3})["DPO"], [0, 1, 2])
    assert set(arm.summary) == {f"{HELD_OUT}: {name}" for name in (GOLD, KL, "answer tokens")}
    assert arm.summary[f"{HELD_OUT}: {GOLD}"].value == pytest.approx(0.3)

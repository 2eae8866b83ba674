"""The experiment of NFT: the arms differ in one word each, gradients agree on policy, what decides."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

from policysmith.claims import nft as experiment
from policysmith.claims.common import reasoning
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.nft import ENTROPY, TEST, arms, comparisons, gradient_arms, gradient_gap
from policysmith.evaluation import claim


def named(*, ablations: bool = False):
    return {arm.label: arm for arm in arms(ablations=ablations)}


def test_rejection_tuning_is_nft_without_the_wrong_answers():
    found = named()
    rft, nft = asdict(found["RFT"].config), asdict(found["NFT"].config)
    assert {key for key in nft if rft[key] != nft[key]} == {"negative_weight"}
    assert rft["negative_weight"] == 0


def test_all_arms_have_as_many_answers_to_learn_from():
    for arm in arms(ablations=True):
        config = asdict(arm.config)
        assert {key: config[key] for key in reasoning.BUDGET} == reasoning.BUDGET
        assert config["rounds"] == 1 or not config["filter_agreeing"]


def test_the_baseline_is_the_one_that_other_experiments_have():
    assert reasoning.GRPO in arms(ablations=False)


@pytest.mark.parametrize("weight", ["difficulty", "spread"])
def test_on_policy_the_gradients_are_the_same(weight):
    assert max(gradient_gap(weight, seed=seed) for seed in range(3)) < 1e-12


def test_the_prompts_weight_decides_whose_gradient_it_is():
    assert gradient_gap("none", seed=0) > 0.1


def result(label: str, rate: float, entropy: float) -> ArmResult:
    """Three runs on a hundred questions with eight answers each, of which so large a share is right."""
    score = np.tile((np.arange(100) < 100 * rate).astype(float)[:, None], (1, 8))
    numbers = {"rate": rate, "pass": rate, "tokens": 18.0, "finished": 1.0, "entropy": entropy}
    return ArmResult(named()[label], measured=[{TEST: {80: Measured(score, numbers)}}] * 3)


def verdicts(rft: float, nft: float, dapo: float, *, rft_entropy: float = 0.1) -> dict[str, str]:
    results = {
        "RFT": result("RFT", rft, rft_entropy),
        "NFT": result("NFT", nft, 0.2),
        "DAPO": result("DAPO", dapo, 0.2),
    }
    return {one.name: one.verdict for one in comparisons(results, gradient_arms([0, 1, 2]))}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    assert set(verdicts(0.4, 0.8, 0.8).values()) == {"holds"}


@pytest.mark.parametrize(
    ("rates", "failing"),
    [
        ((0.8, 0.4, 0.4), "above rejection fine-tuning"),
        ((0.1, 0.4, 0.8), "as good as DAPO"),
    ],
)
def test_each_part_of_the_claim_can_fail(rates, failing):
    assert verdicts(*rates)[failing] == "fails"
    assert verdicts(0.4, 0.8, 0.8, rft_entropy=0.3)["rejection fine-tuning grows surer"] == "fails"


def test_an_arms_record_tells_what_is_compared():
    made = experiment._arm(result("NFT", 0.5, 0.2), [0, 1, 2])
    assert made.summary[f"{TEST}: accuracy"].value == pytest.approx(0.5)
    assert made.summary[ENTROPY].value == pytest.approx(0.2)
    assert isinstance(made, claim.Arm)


def test_the_plot_shows_the_arms_that_were_trained():
    trained = [experiment._arm(result(label, 0.5, 0.2), [0, 1, 2]) for label in ("RFT", "NFT")]
    found = SimpleNamespace(arms=[*trained, *gradient_arms([0, 1, 2])])
    axes = experiment.plot(found)[1].axes[0]  # type: ignore[arg-type]
    assert len(axes.patches) == 2

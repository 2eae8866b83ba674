"""SALSA's experiment: arms that differ in the reference alone, and what each comparison asks."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims import salsa as experiment
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, KL, VALIDATION
from policysmith.claims.common.review_ppo import PROXY, LearntReward
from policysmith.claims.common.rlhf import fine_tuned
from policysmith.claims.salsa import (
    AGAINST,
    BETAS,
    FAR,
    FIRST,
    HIGHEST,
    LOSS,
    OURS,
    PPO,
    SECOND,
    SOUP,
    arms,
    called,
    chosen,
    comparisons,
)
from policysmith.common.stages import result_of

ARMS = arms(Path("second"), LearntReward(None, Path("reward"), "reward"), ablations=True)  # type: ignore[arg-type]


def test_the_arms_differ_in_the_reference_alone():
    found = {arm.label: asdict(arm.config) for arm in ARMS}
    for beta in BETAS:
        ppo, ours = found[called(PPO, beta)], found[called(OURS, beta)]
        assert {name: ours[name] for name in ppo} == ppo
        assert ppo["kl"] == beta
        assert (ours["second"], ours["alpha"], ours["begin_as_soup"]) == ("second", 0.5, False)
    assert len(found) == 2 * len(BETAS) + 2


def result(label: str, *, gold: float, far: float, proxy: float, kl: float) -> ArmResult:
    """Three runs, a little apart, that are so good on the held-out and the far prompts."""
    runs = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        near = Measured(gold + rng.normal(0, 0.01, (40, 2)), {KL: kl + 0.01 * seed})
        further = Measured(far + rng.normal(0, 0.01, (40, 2)), {})
        asked = Measured(np.zeros((2, 2)), {PROXY: proxy})
        runs.append({HELD_OUT: {100: near}, FAR: {100: further}, VALIDATION: {100: asked}})
    return ArmResult(next(arm for arm in ARMS if arm.label == label), measured=runs)


def results(*, gold: float = 0.5, far: float = 0.5, kl: float = 5.0) -> dict[str, ArmResult]:
    """SALSA at its best as given; PPO has 0.4, 0.4 and 3. The other arms are better, but not by the proxy."""
    least, most = BETAS
    made = {
        (PPO, least): {"gold": 0.4, "far": 0.4, "proxy": 1.0, "kl": 3.0},
        (PPO, most): {"gold": 0.9, "far": 0.9, "proxy": 0.5, "kl": 1.0},
        (OURS, least): {"gold": 0.9, "far": 0.9, "proxy": 0.5, "kl": 1.0},
        (OURS, most): {"gold": gold, "far": far, "proxy": 1.2, "kl": kl},
    }
    return {called(*which): result(called(*which), **numbers) for which, numbers in made.items()}


def supervised(soup: float = 0.4) -> dict[str, list[dict[str, Measured]]]:
    rng = np.random.default_rng(0)
    return {
        name: [{HELD_OUT: Measured(gold + rng.normal(0, 0.01, (40, 2)), {})} for _ in range(3)]
        for name, gold in {FIRST: 0.38, SECOND: 0.4, SOUP: soup}.items()
    }


def verdicts(soup: float = 0.4, **changed: float) -> dict[str, str]:
    return {one.name: one.verdict for one in comparisons(results(**changed), supervised(soup))}


def test_each_method_is_judged_at_the_weight_with_most_of_the_learnt_reward():
    found = results()
    assert chosen(found, PPO) == called(PPO, BETAS[0])
    assert chosen(found, OURS) == called(OURS, BETAS[1])
    gap = next(one for one in comparisons(found, supervised()) if one.name == "more gold than PPO")
    assert gap.difference.value == pytest.approx(0.1, abs=0.01)


def test_the_claim_holds_where_all_that_the_paper_says_is_measured():
    assert set(verdicts().values()) == {"holds"}
    assert len(verdicts()) == 6


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({"soup": 0.3}, ["the soup not behind the first model", "the soup not behind the second model"]),
        ({"gold": 0.2}, ["more gold than PPO", "more than 52 % of wins"]),
        ({"far": 0.2}, ["no fewer wins on far prompts"]),
        ({"kl": 2.0}, ["further from the start"]),
    ],
)
def test_each_comparison_can_fail(changed, fails):
    found = verdicts(**changed)
    assert [name for name, verdict in found.items() if verdict == "fails"] == fails


def test_a_hair_behind_is_undecided_or_within_what_is_allowed():
    assert verdicts(soup=0.385)["the soup not behind the second model"] == "holds"
    assert verdicts(gold=0.4)["more than 52 % of wins"] != "holds"


def test_far_prompts_are_others_than_those_to_choose_by_or_to_measure_by():
    found = {name: {str(one.text) for one in asked} for name, asked in experiment.asked(60).items()}
    assert not found[HELD_OUT] & found[FAR]
    assert not found[HELD_OUT] & found[VALIDATION]


def test_a_miniature_run_makes_a_record_and_a_plot(tmp_path, monkeypatch, small_reviews):
    monkeypatch.setattr(experiment, "fine_tuned", partial(fine_tuned, size=40, steps=3))
    monkeypatch.setattr(experiment, "STEPS", 2)
    monkeypatch.setattr(experiment, "HELD", {**experiment.HELD, "prompts": 4})
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=4))
    names = [arm.name for arm in found.arms]
    assert names == [FIRST, SOUP, SECOND, *(called(method, beta) for beta in BETAS for method in (PPO, OURS))]
    by_name = {arm.name: arm for arm in found.arms}
    ppo = by_name[found.settings["chosen"][PPO]]
    assert ppo.summary[f"{FAR}: {AGAINST}"].value == 0.5, "against itself"
    for arm in (by_name[FIRST], by_name[SOUP]):
        assert {LOSS, f"{FAR}: {GOLD}"} <= set(arm.summary)
    assert by_name[SOUP].summary[HIGHEST].value < 0.5
    assert by_name[called(OURS, BETAS[0])].settings["second"].isalnum(), "a name, not a path"
    assert experiment.plot(found)[1].axes

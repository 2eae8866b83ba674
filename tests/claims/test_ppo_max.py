"""The experiment of PPO-max: the arms differ in the tricks alone, and what counts as a collapse."""

from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims import ppo_max as experiment
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.common.review_learning import HELD_OUT
from policysmith.claims.ppo_max import ALL, BUDGET, PENALTY, PROXY, VANILLA, arms, comparisons, lost


def test_each_trick_is_one_difference_to_vanilla_ppo():
    found = {arm.label: asdict(arm.config) for arm in arms("reward")}
    plain = found[VANILLA]
    for label, settings in found.items():
        assert {name: settings[name] for name in BUDGET} == BUDGET
        differs = {name for name in plain if settings[name] != plain[name]}
        if label == PENALTY:
            assert differs == {"kl"}
        if label == ALL:
            tricks = {name for trick in experiment.TRICKS.values() for name in trick}
            assert differs == tricks | {"critic"}


def result(gold: list[float], proxy: list[float]) -> ArmResult:
    """Three runs with that gold reward and proxy along the way, a little apart."""
    runs = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(0, 0.01, (40, 2))
        at = {
            25 * (i + 1): Measured(
                mean + noise, {"rate": mean + 0.001 * seed, PROXY: other + 0.01 * seed * i}
            )
            for i, (mean, other) in enumerate(zip(gold, proxy, strict=True))
        }
        runs.append({HELD_OUT: at})
    return ArmResult(arms("")[0], measured=runs)


def test_a_collapse_is_gold_that_falls_from_its_best_while_the_proxy_rises():
    collapsed, stable = result([0.2, 0.5, 0.1], [0.0, 1.0, 2.0]), result([0.2, 0.5, 0.5], [0.0, 0.5, 0.6])
    assert lost(collapsed) == pytest.approx([0.8] * 3, abs=0.01)
    verdicts = [one.verdict for one in comparisons({VANILLA: collapsed, ALL: stable})]
    assert verdicts == ["holds"] * 4
    turned = {one.name: one.verdict for one in comparisons({VANILLA: stable, ALL: collapsed})}
    assert turned["vanilla PPO collapses"] == turned["PPO-max stays"] == "fails"
    assert turned["PPO-max ends higher"] == "fails"


def test_gold_that_never_was_good_is_all_lost():
    assert lost(result([-0.5, -0.6], [0.0, 1.0])) == [1.0] * 3

"""The experiment of SynthER: one budget for all data, what is compared, and a small run of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policysmith.claims import synther as experiment
from policysmith.claims.common.pendulum import pendulum_step
from policysmith.claims.synther import ALL, AWAY, ERROR, FEW, NOISY, RETURN, SYNTHER, VAE, Measured
from policysmith.common.stages import result_of
from policysmith.evaluation.claim import Claim
from policysmith.experience.transitions import episodes_of
from policysmith.systems import iql, sac, td3_bc


@pytest.fixture
def tiny(monkeypatch):
    """The whole experiment in seconds."""
    monkeypatch.setattr(experiment, "COLLECTOR", replace(sac.PRESETS["tiny"], environment_steps=60))
    monkeypatch.setattr(experiment, "SHARE", 0.5)
    monkeypatch.setattr(experiment, "MADE", 40)
    monkeypatch.setattr(
        experiment,
        "GENERATOR",
        replace(
            experiment.GENERATOR, width=8, depth=1, level_size=4, steps=3, batch_size=8, sampling_steps=2
        ),
    )
    monkeypatch.setattr(
        experiment, "AUTOENCODER", replace(experiment.AUTOENCODER, hidden=(8,), steps=3, batch_size=8)
    )
    monkeypatch.setattr(
        experiment,
        "LEARNERS",
        {"TD3+BC": (td3_bc, td3_bc.PRESETS["tiny"]), "IQL": (iql, iql.PRESETS["tiny"])},
    )


def test_a_small_run_of_the_whole_is_kept_and_found_again(tiny, tmp_path):
    first = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=2, ablations=True))
    assert isinstance(first, Claim)
    data = [arm.name for arm in first.arms if "learner" not in arm.settings]
    assert data == [ALL, FEW, SYNTHER, VAE, NOISY]
    assert len(first.arms) == 5 + 2 * 5
    made = {arm.name: arm.summary for arm in first.arms}
    assert {ERROR, AWAY, RETURN} == set(made[SYNTHER])
    assert set(made[FEW]) == {RETURN}
    kept = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors"))
    second = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=2, ablations=True))
    assert second.arms == first.arms
    assert kept == sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors"))


def test_all_learners_have_one_budget():
    budgets = [
        (config.steps, config.batch_size, config.discount) for _, config in experiment.LEARNERS.values()
    ]
    assert len(set(budgets)) == 1


def test_the_gap_is_closed_where_synther_is_above_half_way():
    levels = {ALL: -100.0, FEW: -300.0, SYNTHER: -150.0, VAE: -250.0, NOISY: -350.0}
    spread = np.linspace(-1, 1, 4)
    found = {
        name: Measured({"TD3+BC": [level + spread, level - spread]}, [-1.0, -1.2], [0.1, 0.1])
        for name, level in levels.items()
    }
    found[SYNTHER].error[:] = [-3.0, -3.3]
    differences = {one.name: one for one in experiment._comparisons(found)}
    assert differences["SynthER above half way from the few to all"].difference.value == pytest.approx(50.0)
    assert differences["SynthER above the few"].difference.value == pytest.approx(150.0)
    assert differences["truer than noise"].difference.value == pytest.approx(-2.05)
    assert {one.verdict for one in differences.values()} == {"holds"}


def test_data_that_obey_the_pendulum_have_no_error_and_others_their_own():
    rng = torch.Generator().manual_seed(0)
    angle = 6 * torch.rand(400, generator=rng) - 3
    seen = torch.stack([angle.cos(), angle.sin(), torch.randn(400, generator=rng)], dim=1)
    action = torch.rand(400, 1, generator=rng)
    after, reward = pendulum_step(seen, action)
    true = {
        "observation": seen,
        "action": action,
        "reward": reward,
        "next_observation": after,
        "terminated": torch.zeros(400, dtype=torch.bool),
    }
    wrong = true | {"reward": reward + reward.std()}
    few = episodes_of({key: value[:100] for key, value in true.items()})
    found = {name: Measured() for name in (SYNTHER, VAE, NOISY)}
    sets = {SYNTHER: true, VAE: wrong, NOISY: wrong}
    experiment._fidelity({name: episodes_of(one) for name, one in sets.items()}, few, found)
    assert found[SYNTHER].error[0] < -8
    # One of four columns is off by about one deviation.
    assert found[VAE].error[0] == pytest.approx(np.log10(0.25), abs=0.1)
    assert found[SYNTHER].away[0] > 0

"""Noise on transitions: what each kind leaves as it is."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.synthesis.augmentation import (
    additive_noise,
    disturbed,
    dynamics_noise,
    multiplicative_noise,
)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def transitions(rows: int = 2000) -> dict[str, torch.Tensor]:
    state = 3 + 2 * torch.randn(rows, 2, generator=rng())
    return {
        "observation": state,
        "next_observation": state + 1,
        "action": state[:, :1],
        "reward": state[:, 0],
    }


def test_additive_noise_keeps_the_change_and_is_so_many_deviations_large():
    before, after = transitions(), additive_noise(0.1)(transitions(), rng())
    assert torch.allclose(after["next_observation"] - after["observation"], torch.tensor(1.0), atol=1e-5)
    assert float((after["observation"] - before["observation"]).std()) == pytest.approx(0.2, rel=0.05)


def test_a_factor_is_the_same_before_and_after_and_within_its_range():
    before, after = transitions(), multiplicative_noise(0.5, 1.5)(transitions(), rng())
    factor = after["observation"] / before["observation"]
    assert torch.allclose(factor, after["next_observation"] / before["next_observation"], atol=1e-4)
    assert 0.5 <= float(factor.min()) < 0.55
    assert 1.45 < float(factor.max()) <= 1.5


def test_dynamics_noise_leaves_the_state_and_stretches_the_change():
    before, after = transitions(), dynamics_noise(0.5, 1.5)(transitions(), rng())
    assert torch.equal(before["observation"], after["observation"])
    change = after["next_observation"] - after["observation"]
    assert 0.5 <= float(change.min()) < 0.55
    assert 1.45 < float(change.max()) <= 1.5


@pytest.mark.parametrize("kind", [additive_noise, multiplicative_noise, dynamics_noise])
def test_action_and_reward_stay(kind):
    after = kind()(transitions(), rng())
    assert torch.equal(after["action"], transitions()["action"])
    assert torch.equal(after["reward"], transitions()["reward"])


def test_as_many_are_made_as_are_asked_for_each_in_its_own_way():
    made = disturbed(transitions(3), 50, disturb=additive_noise(), rng=rng())
    assert made["observation"].shape == (50, 2)
    assert len(made["observation"].unique(dim=0)) == 50


def test_noise_of_negative_width_is_refused():
    for wrong in (lambda: additive_noise(-0.1), lambda: dynamics_noise(2.0, 1.0)):
        with pytest.raises(SettingError):
            wrong()

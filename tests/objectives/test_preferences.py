"""Losses on pairs: the numbers of one pair, what the reference changes, and where the pull goes."""

import math

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives.preferences import dpo_loss, implicit_reward, preference_loss


def one(value: float) -> torch.Tensor:
    return torch.tensor([value])


def test_the_loss_of_a_pair_worked_by_hand():
    # (-12 + 13) - (-9 + 8.5) = 1.5, a tenth of it 0.15
    loss = dpo_loss(one(-12.0), one(-9.0), one(-13.0), one(-8.5), beta=0.1)
    assert loss.item() == pytest.approx(0.620957, abs=1e-6)


def test_a_policy_that_is_its_reference_cannot_tell_the_sides_apart():
    loss = dpo_loss(one(-12.0), one(-9.0), one(-12.0), one(-9.0))
    assert loss.item() == pytest.approx(math.log(2))


def test_both_sides_are_pulled_alike_and_less_the_wider_they_are_apart():
    for margin, pull in ((0.0, 0.05), (2.0, 0.1 / (1 + math.exp(2)))):
        chosen, rejected = one(10 * margin).requires_grad_(), one(0.0).requires_grad_()
        loss = dpo_loss(chosen, rejected, one(0.0), one(0.0), beta=0.1).sum()
        up, down = torch.autograd.grad(loss, [chosen, rejected])
        assert up.item() == pytest.approx(-pull)
        assert down.item() == pytest.approx(pull)


def test_the_reference_gets_no_gradient():
    reference = one(-1.0).requires_grad_()
    reward = implicit_reward(one(-2.0).requires_grad_(), reference, beta=0.5)
    assert reward.item() == pytest.approx(-0.5)
    reward.sum().backward()
    assert reference.grad is None


def test_a_pair_the_wrong_way_round_costs_about_its_margin():
    assert preference_loss(one(-50.0)).item() == pytest.approx(50.0)


@pytest.mark.parametrize("beta", [0.0, -0.1])
def test_a_divergence_has_to_count(beta):
    with pytest.raises(SettingError, match="beta"):
        dpo_loss(one(0.0), one(0.0), one(0.0), one(0.0), beta=beta)

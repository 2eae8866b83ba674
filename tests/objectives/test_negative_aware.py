"""Likelihood on wrong answers: by hand, and on policy the same as policy gradient."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.advantages import centred_advantage, group_rate
from policysmith.objectives.negative_aware import floored_share, negative_aware_loss, straight_through_max
from policysmith.objectives.policy_gradient import clipped_policy_loss


def rows(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


OLD = rows([-0.5, -1.2], [-1.0, -0.2])
CORRECT, RATE = torch.tensor([True, False]), rows(0.5, 0.5)


def loss_and_gradient(**settings):
    log_prob = rows([-0.4, -1.0], [-0.9, -0.3], grad=True)
    losses = negative_aware_loss(log_prob, OLD, CORRECT, RATE, **settings)
    (losses.sum() / 1000).backward()
    return losses, log_prob.grad


def test_by_hand_with_the_prompts_difficulty_as_weight():
    losses, gradient = loss_and_gradient()
    torch.testing.assert_close(losses, rows([-0.05, -0.1], [0, -0.045451]), atol=1e-6, rtol=0)
    assert float(losses.sum() / 1000) == pytest.approx(-0.000195451, abs=1e-9)
    torch.testing.assert_close(gradient, rows([-0.0005, -0.0005], [0.000553, 0.000413]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", ["none", "spread"])
def test_at_half_the_other_two_weights_are_one(weight):
    losses, _ = loss_and_gradient(weight=weight)
    assert float(losses.sum() / 1000) == pytest.approx(-0.000390903, abs=1e-9)


def test_without_negatives_it_is_rejection_tuning():
    losses, gradient = loss_and_gradient(negative_weight=0.0)
    assert float(losses.sum() / 1000) == pytest.approx(-0.00015)
    assert gradient[1].tolist() == [0, 0]


def test_a_lower_floor_by_hand():
    losses, gradient = loss_and_gradient(negative_floor=0.5)
    torch.testing.assert_close(losses, rows([-0.05, -0.1], [0.055561, -0.045451]), atol=1e-6, rtol=0)
    assert float(losses.sum() / 1000) == pytest.approx(-0.000139890, abs=1e-9)
    torch.testing.assert_close(gradient[1], rows(0.000618, 0.000413), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("weight", "divide"), [("difficulty", False), ("spread", True)])
def test_on_policy_the_gradient_is_that_of_the_group_relative_methods(weight, divide):
    generator = torch.Generator().manual_seed(0)
    correct = torch.tensor([True, False, False, True, False, False, False, False])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    correct[7] = True
    old = -torch.rand(8, 5, generator=generator, dtype=torch.float64)
    reward = correct.double()
    rate = group_rate(reward, group)
    advantage = centred_advantage(reward, group)
    if divide:
        advantage = advantage / (rate * (1 - rate)).sqrt()  # the population's deviation
    gradients = []
    for loss in (
        lambda x: negative_aware_loss(x, old, correct, rate, weight=weight),
        lambda x: clipped_policy_loss(x, old, advantage[:, None]),
    ):
        log_prob = old.clone().requires_grad_()
        loss(log_prob).sum().backward()
        gradients.append(log_prob.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


def test_the_floor_changes_the_value_and_not_the_gradient():
    x = rows(0.3, 2.0, grad=True)
    floored = straight_through_max(x, 1.0)
    floored.sum().backward()
    assert floored.tolist() == [1.0, 2.0]
    assert x.grad.tolist() == [1.0, 1.0]


def test_groups_that_agree_and_floors_without_logarithm_are_refused():
    with pytest.raises(DataError, match="row 1 has the rate 1"):
        negative_aware_loss(OLD, OLD, CORRECT, rows(0.5, 1.0))
    with pytest.raises(SettingError, match="logarithm"):
        negative_aware_loss(OLD, OLD, CORRECT, RATE, negative_floor=0.0)


def test_the_floor_binds_where_a_wrong_token_has_become_likelier():
    log_prob = rows([-0.4, -1.0], [-0.9, -0.3])
    assert floored_share(log_prob, OLD, CORRECT, rate=RATE).tolist() == [[0, 0], [1, 0]]
    assert floored_share(log_prob, OLD, CORRECT, rate=RATE, negative_floor=0.5).sum() == 0

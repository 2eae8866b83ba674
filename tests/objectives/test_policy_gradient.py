"""Policy-gradient losses against numbers worked by hand, their clips and their limits."""

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives.averaging import sequence_mean_weight, token_mean_weight
from policysmith.objectives.divergences import entropy, kl_k1, kl_k2, kl_k3
from policysmith.objectives.policy_gradient import (
    clipped_policy_loss,
    clipped_share,
    clipped_value_loss,
    importance_ratio,
    policy_gradient_loss,
    truncated_importance_weight,
)


def rows(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_the_clipped_loss_with_a_token_mean_by_hand():
    log_prob = rows([-0.2, -0.9, -1.0], [-0.5, -0.7, 0.0], grad=True)
    old = rows([-0.3, -0.5, -1.5], [-0.4, -0.9, 0.0])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    losses = clipped_policy_loss(log_prob, old, rows([0.8], [-0.8]))
    loss = (losses * token_mean_weight(mask)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.135880, abs=1e-6)
    expected = rows([-0.176827, -0.107251, 0], [0.144774, 0.195424, 0])
    torch.testing.assert_close(log_prob.grad, expected, atol=1e-6, rtol=0)


def test_one_update_per_rollout_with_a_reference_by_hand():
    log_prob = rows([-0.5, -1.0], [-0.3, 0.0], grad=True)
    reference = rows([-0.6, -0.8], [-0.3, 0.0])
    mask = torch.tensor([[True, True], [True, False]])
    weight = sequence_mean_weight(mask)
    kl = kl_k3(log_prob, reference)
    losses = clipped_policy_loss(log_prob, log_prob, rows([0.7], [-0.7])) + 0.04 * kl
    loss = (losses * weight).sum()
    loss.backward()
    assert float((kl * weight).sum()) == pytest.approx(0.006560, abs=1e-6)
    assert float(loss.detach()) == pytest.approx(0.000262, abs=1e-6)
    expected = rows([-0.174048, -0.177214], [0.35, 0])
    torch.testing.assert_close(log_prob.grad, expected, atol=1e-6, rtol=0)


def test_where_nothing_has_moved_it_is_the_plain_policy_gradient():
    old, advantage = rows([-0.5, -1.0]), rows([0.7])
    gradients = []
    for loss in (
        lambda x: clipped_policy_loss(x, old, advantage, low=0.1, high=0.3),
        lambda x: policy_gradient_loss(x, advantage),
    ):
        log_prob = old.clone().requires_grad_()
        loss(log_prob).sum().backward()
        gradients.append(log_prob.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("moved", "advantage", "has_gradient"),
    [(0.5, 1.0, False), (0.5, -1.0, True), (-0.5, 1.0, True), (-0.5, -1.0, False)],
)
def test_the_clip_takes_the_gradient_only_in_the_good_direction(moved, advantage, has_gradient):
    log_prob = rows([moved], grad=True)
    clipped_policy_loss(log_prob, rows([0.0]), rows([advantage])).sum().backward()
    assert (float(log_prob.grad) != 0) == has_gradient
    assert bool(clipped_share(log_prob, rows([0.0]), rows([advantage]))) != has_gradient


def test_the_ceiling_bounds_what_a_bad_token_that_became_likely_can_cost():
    log_prob = rows([3.0], grad=True)
    loss = clipped_policy_loss(log_prob, rows([0.0]), rows([-2.0]), ceiling=10)
    loss.sum().backward()
    assert float(loss.detach()) == 20
    assert float(log_prob.grad) == 0


def test_the_ratio_stays_finite():
    assert torch.isfinite(importance_ratio(rows([0.0]), rows([-1e6]))).all()


def test_a_batch_of_actions_is_a_batch_of_tokens_with_one_each():
    log_prob, old, advantage = (
        rows([-0.2], [-0.9], [-1.6]),
        rows([-0.3], [-0.5], [-1.0]),
        rows([1.0], [-1], [-2]),
    )
    for function in (clipped_policy_loss, clipped_share):
        flat = function(log_prob[:, 0], old[:, 0], advantage[:, 0])
        torch.testing.assert_close(flat, function(log_prob, old, advantage)[:, 0])
    ratio = torch.tensor([0.1, -0.4, -0.6], dtype=torch.float64).exp()
    expected = [-float(ratio[0]), 0.8, 2 * 0.8]
    assert clipped_policy_loss(log_prob[:, 0], old[:, 0], advantage[:, 0]).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [{"low": -0.1}, {"ceiling": 0.5}])
def test_clips_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        clipped_policy_loss(rows([0.0]), rows([0.0]), rows([1.0]), **wrong)


def test_the_value_loss_is_clipped_on_either_side_of_its_own_range():
    loss = clipped_value_loss(rows([0.9]), rows([0.1]), rows([1.0]), low=0.5, high=0.6)
    assert float(loss.detach()) == pytest.approx(0.045)


def test_two_answers_with_a_critic_by_hand():
    old, log_prob = rows([-1, -0.5, -2], [-0.7, -0.3, 0]), rows([-0.7, -0.55, -2.3], [-0.8, -0.1, 0])
    advantage = rows([0.53775, 0.4975, 0.325], [-0.5935, -0.315, 0])
    old_value, value = rows([0.2, 0.3, 0.5], [0.1, -0.2, 0]), rows([0.5, 0.25, 0.65], [0, -0.6, 0])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    weight = token_mean_weight(mask)

    def mean(values):
        return float((values * weight).sum())

    policy_loss = mean(clipped_policy_loss(log_prob, old, advantage, low=0.2, high=0.2))
    value_loss = mean(clipped_value_loss(value, old_value, advantage + old_value, low=0.2, high=0.2))
    assert policy_loss == pytest.approx(-0.087508, abs=1e-6)
    assert value_loss == pytest.approx(0.070122, abs=1e-6)
    assert policy_loss + value_loss == pytest.approx(-0.017386, abs=1e-6)
    assert mean(clipped_share(log_prob, old, advantage)) == pytest.approx(0.2)
    # How far an update has moved is estimated the other way round: (rho - 1) - log rho.
    assert mean(kl_k3(old, log_prob)) == pytest.approx(0.023629, abs=1e-6)


def test_importance_weights_are_truncated_and_carry_no_gradient():
    weight = truncated_importance_weight(rows([0.0, 1.0], grad=True), rows([0.0, -1.0]))
    assert weight.tolist() == [[1.0, 2.0]]
    assert not weight.requires_grad


def test_the_three_estimators_agree_on_average_with_the_divergence():
    torch.manual_seed(0)
    p, q = torch.randn(2, 5, dtype=torch.float64).log_softmax(-1)
    exact = float((p.exp() * (p - q)).sum())
    for estimate in (kl_k1, kl_k3):
        assert float((p.exp() * estimate(p, q)).sum()) == pytest.approx(exact)
    near = q + 0.01 * torch.randn(5, dtype=torch.float64)
    near = near.log_softmax(-1)
    assert float((near.exp() * kl_k2(near, q)).sum()) == pytest.approx(
        float((near.exp() * (near - q)).sum()), rel=0.05
    )
    assert (kl_k3(p, q) >= 0).all()


def test_entropy_is_the_logarithm_of_the_choices_where_all_are_alike():
    assert float(entropy(torch.zeros(8))) == pytest.approx(2.0794415)

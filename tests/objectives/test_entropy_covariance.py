"""Entropy and covariance: the selections and losses by hand, and the law they rest on."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.averaging import token_mean_weight
from policysmith.objectives.divergences import entropy
from policysmith.objectives.entropy_covariance import (
    clip_binds,
    clip_covariance_loss,
    draw_tokens,
    entropy_change,
    fit_entropy_law,
    kl_covariance_loss,
    largest_tokens,
    token_covariance,
)
from policysmith.objectives.policy_gradient import clipped_policy_loss


def rows(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


MASK = torch.tensor([[True] * 4, [True, True, True, False]])
WEIGHT = token_mean_weight(MASK).double()


def rng():
    return torch.Generator().manual_seed(0)


def test_holding_the_largest_covariance_by_hand():
    old = rows([-0.5, -1.2, -0.1, -2.0], [-0.7, -0.3, -1.5, 0])
    log_prob = rows([-0.4, -1.3, -0.1, -1.6], [-0.9, -0.2, -1.8, 0], grad=True)
    advantage = rows([1.0], [-1.0])
    covariance = token_covariance(log_prob, advantage, MASK)
    expected = [0.428571, -0.342857, 0.685714, -0.6, 0, -0.8, 1.028571]
    assert covariance[MASK].tolist() == pytest.approx(expected, abs=1e-6)
    held = largest_tokens(covariance, MASK, fraction=0.2)
    assert held.nonzero().tolist() == [[1, 2]]
    loss = (kl_covariance_loss(log_prob, old, advantage, held) * WEIGHT).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.219588, abs=1e-6)
    gradient = rows([-0.157882, -0.129263, -0.142857, -0.213118], [0.116962, 0.157882, -0.037026, 0])
    torch.testing.assert_close(log_prob.grad, gradient, atol=1e-6, rtol=0)


def test_dropping_tokens_of_large_covariance_by_hand():
    old = rows([-0.5, -1.2, -0.1, -4.0], [-0.7, -0.3, -3.5, 0])
    log_prob = rows([-0.4, -1.3, -0.1, -3.6], [-0.9, -0.2, -3.8, 0], grad=True)
    advantage = rows([2.0], [-1.0])
    covariance = token_covariance(log_prob, advantage, MASK)
    expected = [1.377551, 0.220408, 1.763265, -2.736735, -0.979592, -2.179592, 3.991837]
    assert covariance[MASK].tolist() == pytest.approx(expected, abs=1e-6)
    eligible = MASK & ~clip_binds(log_prob, old, advantage, low=1, high=1)
    dropped = draw_tokens(covariance, eligible, tokens=7, fraction=1.0, low=1, high=5, rng=rng())
    assert dropped.sum() == 3
    loss = (clip_covariance_loss(log_prob, old, advantage, dropped) * WEIGHT).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.409918, abs=1e-6)
    assert log_prob.grad[dropped].tolist() == [0, 0, 0]
    plain = (clipped_policy_loss(log_prob, old, advantage) * WEIGHT).sum()
    assert float(plain.detach()) == pytest.approx(-0.813731, abs=1e-6)


def test_as_many_are_drawn_as_asked_for_and_the_same_by_the_same_seed():
    covariance, mask = torch.full((10, 10), 2.0), torch.ones(10, 10, dtype=torch.bool)
    drawn = [
        draw_tokens(covariance, mask, tokens=100, fraction=0.07, low=1, high=5, rng=rng()) for _ in range(2)
    ]
    assert drawn[0].sum() == 7
    assert torch.equal(*drawn)
    none = draw_tokens(covariance, mask, tokens=100, fraction=0.07, low=2, high=5, rng=rng())
    assert none.sum() == 0


def test_the_penalty_has_no_gradient_before_the_policy_has_moved():
    log_prob = rows([-0.5, -1.0], grad=True)
    held = torch.tensor([[True, True]])
    kl_covariance_loss(log_prob, log_prob.detach(), rows([0.0]), held, beta=5).sum().backward()
    assert log_prob.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("natural", [False, True])
def test_one_small_step_changes_the_entropy_by_minus_the_covariance(natural):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(40, 50, generator=generator, dtype=torch.float64)
    advantage = torch.randn(40, 50, generator=generator, dtype=torch.float64)
    p = logits.softmax(-1)
    step = 1e-3 * (advantage if natural else p * (advantage - (p * advantage).sum(-1, keepdim=True)))
    predicted, measured = entropy_change(logits, step), entropy(logits + step) - entropy(logits)
    assert float(torch.corrcoef(torch.stack([predicted, measured]))[0, 1]) > 0.99
    assert float((predicted * measured).sum() / predicted.square().sum()) == pytest.approx(1, abs=0.05)


def test_entropy_falls_where_likely_actions_gain_and_rises_where_rare_ones_do():
    logits = torch.tensor([2.0, 0.0, 0.0])
    assert float(entropy_change(logits, torch.tensor([0.1, 0.0, 0.0]))) < 0
    assert float(entropy_change(logits, torch.tensor([0.0, 0.1, 0.1]))) > 0
    # By hand at p = (3/4, 1/4): -(p1 p2) log(p1 / p2) (s1 - s2).
    by_hand = -3 / 16 * torch.tensor(3.0).log() * 0.1
    two = torch.tensor([0.75, 0.25]).log()
    assert float(entropy_change(two, torch.tensor([0.1, 0.0]))) == pytest.approx(float(by_hand))


def test_the_law_is_found_where_it_holds():
    h = torch.linspace(0.1, 2.0, 9)
    law = fit_entropy_law(h, -0.3 * h.exp() + 0.9)
    assert (law.a, law.b, law.ceiling) == (pytest.approx(0.3), pytest.approx(0.9), pytest.approx(0.6))
    assert law.r_squared == pytest.approx(1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_is_not_a_percentage(fraction):
    with pytest.raises(SettingError, match=r"in \(0, 1\]"):
        largest_tokens(torch.zeros(2, 4), MASK, fraction=fraction)


def test_a_band_upside_down_names_both_ends():
    with pytest.raises(SettingError, match="from 5 to 1"):
        draw_tokens(torch.zeros(2, 4), MASK, tokens=7, fraction=0.1, low=5, high=1, rng=rng())


def test_empty_masks_and_unequal_shapes_are_refused():
    with pytest.raises(DataError, match="no token"):
        token_covariance(torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"mask \[2, 4\]"):
        token_covariance(torch.zeros(2, 3), torch.zeros(2, 1), MASK)

"""Rows that the policy did not sample from their prompt: by hand."""

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.advantages import centred_advantage
from policysmith.objectives.mixed_policy import mixed_policy_loss, shaped_probability


def test_a_refinement_beside_two_sampled_answers_by_hand():
    log_prob = torch.tensor(
        [[-2.3, -0.1, -4.6], [-0.5, -1.0, -0.2], [-0.9, -0.4, 0]], dtype=torch.float64, requires_grad=True
    )
    old = torch.tensor([[-2.0, -0.2, -5.0], [-0.6, -0.9, -0.2], [-1.0, -0.5, 0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=torch.float64)
    advantage = centred_advantage(
        torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    )
    assert float(shaped_probability(log_prob[0]).mean()) == pytest.approx(0.497488, abs=1e-6)
    losses = mixed_policy_loss(log_prob, old, advantage[:, None], torch.tensor([True, False, False]))
    loss = (losses * mask).sum() / 3
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.248380, abs=1e-6)
    gradient = [
        [-0.055555, -0.019914, -0.018443],
        [0.122797, 0.100537, 0.111111],
        [0.122797, 0.122797, 0],
    ]
    torch.testing.assert_close(log_prob.grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_pull_is_largest_at_probability_gamma():
    log_prob = torch.linspace(-6, 0, 601, dtype=torch.float64, requires_grad=True)
    shaped_probability(log_prob, gamma=0.1).sum().backward()
    assert float(log_prob.detach()[log_prob.grad.argmax()].exp()) == pytest.approx(0.1, rel=0.02)


def test_shapes_and_gamma_are_checked():
    x = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match="as a whole"):
        mixed_policy_loss(x, x, x, torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(SettingError, match="p = 0"):
        shaped_probability(x, gamma=0)


def test_without_gamma_a_token_counts_its_probability():
    log_prob = torch.tensor([[-2.0, -0.5]], requires_grad=True)
    shaped_probability(log_prob, gamma=None).sum().backward()
    torch.testing.assert_close(log_prob.grad, log_prob.detach().exp())


def test_sampled_rows_alone_are_clipped_and_only_where_asked():
    log_prob = torch.tensor([[0.0], [0.0]], requires_grad=True)
    old = torch.full((2, 1), -1.0)
    marks = torch.tensor([True, False])
    for clip, gradient in ((None, [-0.1 / 1.1**2, -2.7182817]), (0.2, [-0.1 / 1.1**2, 0.0])):
        log_prob.grad = None
        mixed_policy_loss(log_prob, old, torch.ones(2, 1), marks, clip=clip).sum().backward()
        torch.testing.assert_close(log_prob.grad[:, 0], torch.tensor(gradient))

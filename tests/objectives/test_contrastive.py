"""Contrastive policy gradient: worked numbers, its fixed point, and what it is equal to."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.contrastive import copg_loss, kl_optimum, off_policy_gradient_loss
from policysmith.objectives.preferences import ipo_loss

PAIR = torch.ones(1, 2, dtype=torch.bool)
REWARD, REFERENCE = torch.tensor([2.5, 2.0, 1.0]).double(), torch.full((3,), 1 / 3).double()
MU = torch.tensor([0.1, 0.2, 0.7]).double(), torch.tensor([0.05, 0.05, 0.9]).double()


def test_a_worked_pair():
    log_prob = torch.tensor([[-3.0, -2.0]], requires_grad=True)
    ratio = log_prob - torch.tensor([[-3.5, -1.8]])
    loss = copg_loss(ratio, torch.tensor([[1.0, 0.2]]), PAIR, beta=0.5)
    assert float(loss.detach()) == pytest.approx(-0.4375)
    loss.sum().backward()
    assert log_prob.grad[0].tolist() == pytest.approx([-0.45, 0.45])


def test_the_gradient_is_that_of_a_policy_gradient_with_the_others_as_baseline():
    ratio = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    score = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    copg_loss(ratio, score, torch.ones(5, 4, dtype=torch.bool), beta=0.3).sum().backward()
    regularised = (score - 0.3 * ratio).detach()
    others = (regularised.sum(1, keepdim=True) - regularised) / 3
    assert torch.allclose(ratio.grad, -(regularised - others), atol=1e-5)


def test_scores_of_a_quarter_make_it_ipo_but_for_a_constant():
    ratio = torch.tensor([[1.3, -0.4], [-2.0, 0.7]])
    score = torch.tensor([[0.25, -0.25]]).expand(2, 2)
    margin = ratio[:, 0] - ratio[:, 1]
    beta = 0.2
    gap = copg_loss(ratio, score, PAIR.expand(2, 2), beta=beta) - beta / 2 * ipo_loss(margin, beta=beta)
    assert torch.allclose(gap[0], gap[1], atol=1e-5)


def bandit_gradient(loss, logits, beta=0.5):
    """The expected gradient of a loss of pairs drawn from the two samplers."""
    logits = logits.clone().requires_grad_(True)
    ratio = logits.log_softmax(0) - REFERENCE.log()
    i, j = (axis.flatten() for axis in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    pairs = torch.stack([ratio[i], ratio[j]], 1)
    score = torch.stack([REWARD[i], REWARD[j]], 1)
    values = loss(pairs, score, torch.ones_like(score, dtype=torch.bool), beta=beta)
    expected = (MU[0][i] * MU[1][j] * values).sum()
    (gradient,) = torch.autograd.grad(expected, logits)
    return float(expected.detach()), gradient


def test_the_bandit_of_the_paper():
    best = kl_optimum(REFERENCE, REWARD, beta=0.5)
    assert best.tolist() == pytest.approx([0.705385, 0.259496, 0.035119], abs=1e-6)
    gained = float((best * REWARD).sum() - 0.5 * (best * (best / REFERENCE).log()).sum())
    assert gained == pytest.approx(2.125200, abs=1e-6)
    assert float((REFERENCE * REWARD).sum()) == pytest.approx(1.833333, abs=1e-6)
    value, gradient = bandit_gradient(copg_loss, torch.zeros(3).double())
    assert value == pytest.approx(0)
    assert gradient.tolist() == pytest.approx([-0.195, -0.2075, 0.4025])


def test_at_the_optimum_nothing_pulls_whoever_wrote_the_outcomes():
    best = kl_optimum(REFERENCE, REWARD, beta=0.5)
    assert bandit_gradient(copg_loss, best.log())[1].abs().max() < 1e-12
    assert bandit_gradient(off_policy_gradient_loss, best.log())[1].abs().max() > 0.05


def test_another_optimum():
    best = kl_optimum(torch.tensor([0.2, 0.3, 0.5]), torch.tensor([1.0, 0.0, 0.5]), beta=0.5)
    assert best.tolist() == pytest.approx([0.471098, 0.095634, 0.433268], abs=1e-6)


def test_absent_outcomes_count_for_nothing():
    ratio, score = torch.tensor([[0.5, 9.0, -0.2]]), torch.tensor([[1.0, 7.0, 0.2]])
    there = torch.tensor([[True, False, True]])
    assert float(copg_loss(ratio, score, there, beta=0.5)) == pytest.approx(-0.4375)
    assert float(off_policy_gradient_loss(ratio, score, there, beta=0.5)) == pytest.approx(
        -(1 - 0.25) * 0.5 - (0.2 + 0.1) * -0.2
    )


def test_what_cannot_be_learnt_from_is_named():
    with pytest.raises(DataError, match="1 outcomes") as caught:
        copg_loss(torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([[True, True], [True, False]]), beta=1)
    assert "row 1" in str(caught.value)
    with pytest.raises(DataError, match="score of outcome 1 is nan"):
        copg_loss(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]), PAIR, beta=1)
    with pytest.raises(SettingError, match="beta"):
        copg_loss(torch.zeros(1, 2), torch.ones(1, 2), PAIR, beta=0)


def test_padding_without_a_score_leaves_the_gradient_finite():
    ratio = torch.tensor([[0.5, -0.2, float("nan")]], requires_grad=True)
    score, there = torch.tensor([[1.0, 0.2, float("nan")]]), torch.tensor([[True, True, False]])
    loss = copg_loss(ratio, score, there, beta=0.5)
    assert float(loss.detach()) == pytest.approx(-0.4375)
    loss.sum().backward()
    assert ratio.grad[0].tolist() == pytest.approx([-0.45, 0.45, 0.0])

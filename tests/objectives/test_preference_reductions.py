"""What the table of preference losses says becomes of each, line by line."""

import pytest
import torch

from policysmith.objectives.contrastive import copg_loss
from policysmith.objectives.nash import nash_policy_gradient_loss
from policysmith.objectives.preferences import (
    dpo_loss,
    ipo_loss,
    robust_loss,
    slic_loss,
    smoothed_loss,
    soft_preference_loss,
)
from policysmith.objectives.ranking import (
    lambda_loss,
    list_mle_loss,
    pair_hinge_loss,
    pair_logistic_loss,
    softmax_loss,
)

BETA = 0.3
H = torch.tensor([-6.0, -1.0, 0.0, 0.7, 4.0, 9.0]).double()
BASES = [dpo_loss, slic_loss, ipo_loss]
PAIR = torch.stack([0.5 * H, -0.5 * H], 1)
LABEL = torch.tensor([1.0, 0.0]).double().expand(len(H), 2)
BOTH = torch.ones(len(H), 2, dtype=torch.bool)


def gradient(loss):
    h = H.clone().requires_grad_(True)
    return torch.autograd.grad(loss(h).sum(), h)[0]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda h: dpo_loss(h, beta=BETA), -BETA * torch.sigmoid(-BETA * H)),
        (lambda h: slic_loss(h, beta=BETA), torch.where(H < 1 / BETA, -BETA, 0.0).double()),
        (lambda h: ipo_loss(h, beta=BETA), 2 * (H - 1 / (2 * BETA))),
        (
            lambda h: soft_preference_loss(h, torch.full_like(h, 0.7), beta=BETA),
            BETA * (torch.sigmoid(BETA * H) - 0.7),
        ),
        (
            lambda h: robust_loss(dpo_loss, h, beta=BETA, rate=0.2),
            -BETA * (torch.sigmoid(-BETA * H) + 0.2 / 0.6),
        ),
    ],
)
def test_gradients_in_the_margin(loss, expected):
    assert torch.allclose(gradient(loss), expected, atol=1e-9)


def test_a_soft_label_of_one_is_dpo():
    assert torch.allclose(soft_preference_loss(H, torch.ones_like(H), beta=BETA), dpo_loss(H, beta=BETA))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("correct", [smoothed_loss, robust_loss])
def test_at_a_rate_of_zero_corrections_are_their_base(correct, base):
    assert torch.allclose(correct(base, H, beta=BETA, rate=0.0), base(H, beta=BETA))


def test_a_smoothed_label_is_a_soft_one():
    soft = soft_preference_loss(H, torch.full_like(H, 0.8), beta=BETA)
    assert torch.allclose(smoothed_loss(dpo_loss, H, beta=BETA, rate=0.2), soft)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.45])
def test_over_the_flips_the_robust_loss_is_the_clean_one(base, rate):
    kept, turned = (robust_loss(base, sign * H, beta=BETA, rate=rate) for sign in (1, -1))
    assert torch.allclose((1 - rate) * kept + rate * turned, base(H, beta=BETA))


def test_robust_dpo_is_dpo_with_a_constant_push():
    pushed = dpo_loss(H, beta=BETA) - 0.2 / 0.6 * BETA * H
    assert torch.allclose(robust_loss(dpo_loss, H, beta=BETA, rate=0.2), pushed)


def test_robust_ipo_is_ipo_with_a_farther_goal():
    rate = 0.2
    gap = robust_loss(ipo_loss, H, beta=BETA, rate=rate) - (H - 1 / (2 * BETA * (1 - 2 * rate))).square()
    assert torch.allclose(gap, gap[:1].expand_as(gap))


@pytest.mark.parametrize(
    ("of_lists", "of_pairs"),
    [
        (pair_logistic_loss, dpo_loss),
        (list_mle_loss, dpo_loss),
        (softmax_loss, dpo_loss),
        (pair_hinge_loss, slic_loss),
    ],
)
def test_of_two_answers_a_ranking_loss_is_one_of_pairs(of_lists, of_pairs):
    assert torch.allclose(of_lists(BETA * PAIR, LABEL, BOTH), of_pairs(H, beta=BETA))


def test_lambda_weights_of_one_leave_the_pairs():
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    there = torch.ones(4, 5, dtype=torch.bool)
    assert torch.allclose(
        lambda_loss(scores, labels, there, weights="none"), pair_logistic_loss(scores, labels, there)
    )


def test_contrast_of_quarters_is_ipo_and_a_constant():
    score = torch.tensor([0.25, -0.25]).double().expand(len(H), 2)
    gap = copg_loss(PAIR, score, BOTH, beta=BETA) - BETA / 2 * ipo_loss(H, beta=BETA)
    assert torch.allclose(gap, gap[:1].expand_as(gap))


def test_the_gradient_of_contrast_leaves_one_out():
    ratio = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double().requires_grad_(True)
    score = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).double()
    there = torch.ones(3, 4, dtype=torch.bool)
    (found,) = torch.autograd.grad(copg_loss(ratio, score, there, beta=BETA).sum(), ratio)
    worth = (score - BETA * ratio).detach()
    assert torch.allclose(found, -(worth - (worth.sum(1, keepdim=True) - worth) / 3))


def test_the_game_without_a_penalty_is_reinforce_and_its_forms_agree_on_one_token():
    log_p, log_mu = torch.tensor([[-1.0], [-0.5]]), torch.tensor([[-1.5], [-0.2]])
    wins, mask = torch.tensor([0.7, 0.4]), torch.ones(2, 1, dtype=torch.bool)
    plain = nash_policy_gradient_loss(log_p, log_mu, wins, mask, divergence=0.0)
    assert torch.allclose(plain, -(wins[:, None] - 0.5) * log_p)
    forms = [
        nash_policy_gradient_loss(log_p, log_mu, wins, mask, divergence=0.2, form=form)
        for form in ("sequence", "token")
    ]
    assert torch.equal(*forms)

"""Improvement within a divergence: the policy that gains most while it stays near the data's.

Of all policies with KL(p, p_data) <= budget, the one with the largest expected advantage is the data's policy
tilted by the advantage,

    p(a) proportional to p_data(a) exp(balance A(a)),

with the balance at which the budget is just used up. Over finitely many actions that balance is found by
bisection, exactly; a regression weighted by exp(balance A) moves a network towards the same policy.

Source: Peters, Muelling and Altun 2010, Relative Entropy Policy Search; Peng et al. 2019, Advantage-Weighted
Regression, section 3.1; with budgets and balances that differ by state, Wang et al. 2023 (FamO2O), section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def tilted(
    log_prob: Float[Tensor, "*state choice"],
    advantage: Float[Tensor, "*state choice"],
    balance: Float[Tensor, "*state"],
) -> Float[Tensor, "*state choice"]:
    """Log-probabilities of the policy tilted by `balance` times the advantage; 0 leaves it as it is."""
    return (log_prob + balance.unsqueeze(-1) * advantage).log_softmax(-1)


def divergence(
    log_prob: Float[Tensor, "*state choice"], reference_log_prob: Float[Tensor, "*state choice"]
) -> Float[Tensor, "*state"]:
    """KL(p, p_reference) in nats; a choice that p never takes counts nothing."""
    prob = log_prob.exp()
    return torch.where(prob > 0, prob * (log_prob - reference_log_prob), 0.0).sum(-1)


def balance_within(
    log_prob: Float[Tensor, "*state choice"],
    advantage: Float[Tensor, "*state choice"],
    budget: Float[Tensor, "*state"],
    *,
    largest: float = 1e6,
    halvings: int = 100,
) -> Float[Tensor, "*state"]:
    """The balance at which the tilted policy is `budget` nats away from the data's, by bisection.

    The divergence rises with the balance, up to that of always taking the best action; a budget beyond it
    gives `largest`.
    """
    low, high = torch.zeros_like(budget), torch.full_like(budget, largest)
    for _ in range(halvings):
        middle = (low + high) / 2
        within = divergence(tilted(log_prob, advantage, middle), log_prob) <= budget
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return torch.where(high == largest, high, low)

"""Tilted policies, and what state by state budgets gain: exact on bandits of a few states and actions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policysmith.objectives.tilting import balance_within, divergence, tilted


def double(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gain(log_prob: Tensor, advantage: Tensor, budget: Tensor) -> Tensor:
    """Expected advantage of the best policy within the budget, for each state."""
    balance = balance_within(log_prob, advantage, budget)
    return (tilted(log_prob, advantage, balance).exp() * advantage).sum(-1)


# Clean data mostly take the better action already; noisy data take both alike.
BANDIT = double([0.9, 0.1], [0.5, 0.5]).log()
ADVANTAGE = double([0.1, -0.9], [0.5, -0.5])


def splits(budget: float, count: int = 201) -> Tensor:
    """Budgets of two states with the same mean, from all to the one to all to the other."""
    first = torch.linspace(0, 2 * budget, count, dtype=torch.float64)
    return torch.stack([first, 2 * budget - first], dim=-1)


def test_balance_zero_leaves_the_policy_and_a_large_one_takes_the_best_action():
    assert torch.allclose(tilted(BANDIT, ADVANTAGE, double(0.0, 0.0)), BANDIT)
    assert torch.allclose(
        tilted(BANDIT, ADVANTAGE, double(500.0, 500.0)).exp(), double([1.0, 0.0], [1.0, 0.0])
    )


def test_a_tilt_of_log_two_doubles_the_odds_per_unit_of_advantage():
    log_prob = tilted(double(0.5, 0.5).log(), double(1.0, 0.0), torch.tensor(math.log(2)).double())
    assert torch.allclose(log_prob.exp(), double(2 / 3, 1 / 3))


def test_divergence_by_hand_and_where_an_action_is_never_taken():
    assert divergence(double(0.5, 0.5).log(), double(0.25, 0.75).log()).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    )
    assert divergence(double(0.0, -math.inf), double(0.5, 0.5).log()).item() == pytest.approx(math.log(2))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.floats(0.01, 0.3),
)
def test_the_budget_is_used_up_or_the_best_action_is_always_taken(logits, advantage, budget):
    log_prob, advantage = double(*logits).log_softmax(-1), double(*advantage)
    balance = balance_within(log_prob, advantage, double(budget)[0])
    used = divergence(tilted(log_prob, advantage, balance), log_prob)
    assert used <= budget + 1e-9
    if balance < 1e5:
        assert used.item() == pytest.approx(budget, abs=1e-6)
    # No policy within the budget gains more: mixtures with the data's own are such policies.
    best = (tilted(log_prob, advantage, balance).exp() * advantage).sum()
    for other in torch.eye(3, dtype=torch.float64):
        for share in (0.1, 0.3, 0.6):
            mixed = (1 - share) * log_prob.exp() + share * other
            if divergence(mixed.log(), log_prob) <= budget:
                assert (mixed * advantage).sum() <= best + 1e-9


def test_budgets_by_state_gain_at_least_what_one_budget_for_all_does():
    for budget in (0.02, 0.05, 0.1):
        even = gain(BANDIT, ADVANTAGE, double(budget, budget)).mean()
        by_state = torch.stack([gain(BANDIT, ADVANTAGE, split).mean() for split in splits(budget)])
        assert by_state.max() > even + 1e-3 * budget
        # The middle one of the splits is the even one.
        assert by_state[100].item() == pytest.approx(even.item(), abs=1e-9)


def test_where_all_states_are_alike_one_budget_is_the_best():
    log_prob, advantage = BANDIT[1:].expand(2, 2), ADVANTAGE[1:].expand(2, 2)
    by_state = torch.stack([gain(log_prob, advantage, split).mean() for split in splits(0.05)])
    assert int(by_state.argmax()) == 100


def test_at_the_best_budgets_the_balances_of_all_states_agree():
    # The Lagrangian of a constraint on the mean divergence has one multiplier: what differs by state is the
    # budget, and the balance only where budgets are fixed or advantages are misjudged.
    by_state = torch.stack([gain(BANDIT, ADVANTAGE, split).mean() for split in splits(0.05, 1001)])
    best = splits(0.05, 1001)[by_state.argmax()]
    balances = balance_within(BANDIT, ADVANTAGE, best)
    assert balances[0].item() == pytest.approx(balances[1].item(), rel=0.02)
    even = balance_within(BANDIT, ADVANTAGE, double(0.05, 0.05))
    assert abs(even[0] - even[1]) > 0.2

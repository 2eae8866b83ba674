"""Tables solved and evaluated exactly: geometric sums, and what robust values cannot exceed."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.tabular import optimal_q, policy_value, robust_q

DISCOUNT = 0.9


def random_tables(models=3, states=5, actions=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    transition = torch.rand(models, states, actions, states, generator=rng, dtype=torch.double)
    reward = torch.randn(states, actions, generator=rng, dtype=torch.double)
    return transition / transition.sum(-1, keepdim=True), reward


def test_staying_for_ever_is_worth_the_geometric_sum():
    transition = torch.ones(1, 1, 1)
    assert optimal_q(transition, torch.tensor([[2.0]]), DISCOUNT).item() == pytest.approx(20.0, abs=1e-8)
    value = policy_value(torch.tensor([0]), transition, torch.tensor([[2.0]]), DISCOUNT)
    assert value.item() == pytest.approx(20.0)


def test_the_optimal_values_are_those_of_the_policy_that_is_greedy_in_them():
    transition, reward = random_tables()
    for table in transition:
        q = optimal_q(table, reward, DISCOUNT)
        value = policy_value(q.argmax(-1), table, reward, DISCOUNT)
        torch.testing.assert_close(value, q.amax(-1), atol=1e-8, rtol=0)


def test_models_are_solved_together_as_they_are_alone():
    transition, reward = random_tables()
    together = optimal_q(transition, reward, DISCOUNT, tolerance=1e-12)
    alone = torch.stack([optimal_q(table, reward, DISCOUNT, tolerance=1e-12) for table in transition])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=0)


def test_no_value_is_off_by_more_than_the_tolerance():
    transition, reward = random_tables(models=1)
    exact = optimal_q(transition, reward, 0.99, tolerance=1e-11)
    rough = optimal_q(transition, reward, 0.99, tolerance=1e-2)
    assert (rough - exact).abs().max() <= 1e-2


def test_the_robust_value_of_one_model_is_its_own():
    transition, reward = random_tables(models=1)
    robust = robust_q(transition, reward, DISCOUNT)
    torch.testing.assert_close(robust, optimal_q(transition[0], reward, DISCOUNT), atol=1e-8, rtol=0)


def test_the_robust_value_is_no_more_than_that_of_any_model():
    transition, reward = random_tables(models=4)
    robust = robust_q(transition, reward, DISCOUNT)
    assert (robust <= optimal_q(transition, reward, DISCOUNT).amin(0) + 1e-8).all()


def test_the_robust_policy_gets_its_robust_value_at_least_in_every_model():
    transition, reward = random_tables(models=4)
    robust = robust_q(transition, reward, DISCOUNT)
    values = policy_value(robust.argmax(-1), transition, reward, DISCOUNT)
    assert (values >= robust.amax(-1) - 1e-8).all()


def test_without_a_discount_on_the_future_only_the_reward_counts():
    transition, reward = random_tables()
    torch.testing.assert_close(robust_q(transition, reward, 0.0), reward)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda t, r: (t[..., :4], r, 0.9), ShapeError, "state, action, state"),
        (lambda t, r: (t, r[0], 0.9), ShapeError, "state, action"),
        (lambda t, r: (t * 0.9, r, 0.9), SettingError, "no distributions"),
        (lambda t, r: (t * torch.nan, r, 0.9), SettingError, "no distributions"),
        (lambda t, r: (t, r * torch.inf, 0.9), SettingError, "not finite"),
        (lambda t, r: (t, r, 1.0), SettingError, "below 1"),
    ],
)
def test_tables_that_are_no_decision_process_are_refused(change, error, says):
    for function in (optimal_q, robust_q):
        with pytest.raises(error, match=says):
            function(*change(*random_tables()))


def test_a_policy_needs_an_action_for_every_state():
    transition, reward = random_tables()
    with pytest.raises(ShapeError, match="an action for 5 states"):
        policy_value(torch.tensor([0, 1]), transition, reward, DISCOUNT)

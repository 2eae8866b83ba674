"""Multipliers and barriers against numbers worked by hand, and where their gradients go."""

import math

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.constraints import (
    barrier_loss,
    inverse_softplus,
    multiplier_loss,
    penalised_loss,
    row_dropping_barrier_loss,
    temperature_loss,
)
from policysmith.objectives.policy_gradient import clipped_policy_loss

RATIO = torch.tensor([1.0, 1.1, 0.8, 1.3], dtype=torch.float64)
RETURNS = torch.tensor([2.0, 3.0], dtype=torch.float64)


def test_softplus_gives_back_the_value_that_a_multiplier_is_to_start_at():
    assert inverse_softplus(0.01) == pytest.approx(-4.600166, abs=1e-6)
    for value in (1e-6, 0.3, 5.0, 80.0):
        raw = torch.tensor(inverse_softplus(value), dtype=torch.float64)
        assert float(torch.nn.functional.softplus(raw)) == pytest.approx(value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_multiplier_that_softplus_never_reaches_is_refused(value):
    with pytest.raises(SettingError, match="above 0"):
        inverse_softplus(value)


def test_the_policy_pays_and_the_multiplier_grows_while_the_constraint_is_broken():
    multiplier = torch.tensor(2.0, requires_grad=True)
    violation = torch.tensor([0.5, -0.25], requires_grad=True)
    paid = penalised_loss(torch.tensor([1.0, 1.0]), violation, multiplier=multiplier)
    assert paid.tolist() == [2.0, 0.5]
    paid.sum().backward()
    assert multiplier.grad is None
    assert violation.grad.tolist() == [2, 2]
    multiplier_loss(multiplier, violation).mean().backward()
    assert float(multiplier.grad) == pytest.approx(-0.125)  # descent makes it larger
    assert violation.grad.tolist() == [2, 2]


def test_the_temperature_falls_while_there_is_more_entropy_than_asked_for():
    temperature = torch.tensor(0.1, requires_grad=True)
    loss = temperature_loss(temperature, torch.tensor([-1.0, -2.0]), target_entropy=-0.5)
    assert loss.tolist() == pytest.approx([0.15, 0.25])
    loss.mean().backward()
    assert float(temperature.grad) == pytest.approx(1.5 + 0.5)


def test_the_barrier_by_hand():
    advantage = torch.tensor([1.0, -1, 0.5, 2], dtype=torch.float64)
    surrogate = clipped_policy_loss(RATIO.log(), torch.zeros_like(RATIO), advantage)
    assert float(surrogate.mean()) == pytest.approx(-0.675)
    barrier = barrier_loss(RATIO, RETURNS, 0.9 * RETURNS, objective=0)
    assert float(barrier.mean()) == pytest.approx(0.1090989, abs=1e-7)


def test_the_authors_barrier_leaves_a_row_out_and_no_objective():
    barrier = row_dropping_barrier_loss(RATIO, RETURNS, 0.9 * RETURNS, objective=0)
    assert float(barrier.mean()) == pytest.approx(0.1321568, abs=1e-7)
    assert float(barrier[0]) == 0
    other = row_dropping_barrier_loss(RATIO, RETURNS, 0.9 * RETURNS, objective=1)
    assert float(other[1]) == 0
    assert float(other[0]) != 0


def test_the_barrier_raises_the_actions_that_the_other_objectives_live_on():
    ratio = torch.tensor([1.0, 1.1, 0.7, 1.3], requires_grad=True)
    barrier_loss(ratio, torch.tensor([2.0, 3.0]), torch.tensor([1.8, 2.7]), objective=0).sum().backward()
    # d/dratio of -log(3 ratio - 2.7) / 20; none below the floor of the slack or beyond the clip of the ratio
    assert ratio.grad.tolist() == pytest.approx([-3 / 0.3 / 20, -3 / 0.6 / 20, 0, 0], rel=1e-4)


def test_an_objective_whose_mean_return_is_negative_is_not_constrained_by_a_relative_threshold():
    ratio, returns = torch.ones(3, requires_grad=True), torch.tensor([1.0, -5.0])
    barrier_loss(ratio, returns, 0.9 * returns, objective=0).sum().backward()
    assert ratio.grad.tolist() == [0, 0, 0]
    barrier_loss(ratio, returns, torch.tensor([0.9, -6.0]), objective=0).sum().backward()
    assert (ratio.grad != 0).all()


def test_a_sharper_barrier_costs_less_until_the_constraint_is_reached():
    blunt, sharp = (
        barrier_loss(RATIO, RETURNS, 0.9 * RETURNS, objective=0, sharpness=t) for t in (20.0, 200.0)
    )
    torch.testing.assert_close(sharp * 10, blunt)


def test_barriers_out_of_range_are_refused():
    with pytest.raises(SettingError, match="0 to 1"):
        barrier_loss(RATIO, RETURNS, RETURNS, objective=2)
    with pytest.raises(SettingError, match="sharpness is 0"):
        barrier_loss(RATIO, RETURNS, RETURNS, objective=0, sharpness=0)
    with pytest.raises(ShapeError, match="two objectives"):
        barrier_loss(RATIO, RETURNS[:1], RETURNS[:1], objective=0)

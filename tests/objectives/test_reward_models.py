"""Rewards from preferences: the loss of a margin and its floor, the pairs of a list, what a list counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.reward_models import bradley_terry_loss, mean_over_pairs, ordered_pairs


def test_the_loss_is_minus_the_log_of_how_likely_the_better_one_is_the_better_one():
    margin = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)
    expected = [math.log(2), math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(0.5))]
    assert bradley_terry_loss(margin).tolist() == pytest.approx(expected)


def test_a_floor_is_inside_the_logarithm_and_bounds_the_loss():
    margin = torch.tensor([0.0, 2.0, -100.0], dtype=torch.float64)
    found = bradley_terry_loss(margin, floor=1e-5)
    expected = [-math.log(0.5 + 1e-5), -math.log(1 / (1 + math.exp(-2)) + 1e-5), -math.log(1e-5)]
    assert found.tolist() == pytest.approx(expected)
    assert float(bradley_terry_loss(margin)[2]) == pytest.approx(100)


def test_and_lets_go_of_pairs_that_are_hopelessly_the_wrong_way_round():
    margin = torch.tensor([-20.0, 0.0], dtype=torch.float64, requires_grad=True)
    (bounded,) = torch.autograd.grad(bradley_terry_loss(margin, floor=1e-5).sum(), margin)
    (plain,) = torch.autograd.grad(bradley_terry_loss(margin).sum(), margin)
    assert plain.tolist() == pytest.approx([-1, -0.5])
    assert float(bounded[0]) == pytest.approx(-math.exp(-20) / 1e-5, rel=1e-3)
    assert float(bounded[1]) == pytest.approx(-0.25 / 0.50001)


@pytest.mark.parametrize("floor", [-1e-5, 1.0])
def test_a_floor_is_a_probability(floor):
    with pytest.raises(SettingError, match="floor"):
        bradley_terry_loss(torch.zeros(1), floor=floor)


def test_a_list_gives_every_ordered_pair_and_ties_give_none():
    label = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 9.0]])
    present = torch.tensor([[True] * 3, [True] * 3, [True, True, False]])
    row, better, worse = ordered_pairs(label, present)
    assert list(zip(row.tolist(), better.tolist(), worse.tolist(), strict=True)) == [
        (0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2), (2, 1, 0),
    ]  # fmt: skip
    with pytest.raises(ShapeError, match="present"):
        ordered_pairs(label, present[:2])


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6, unique=True))
def test_a_list_of_different_labels_gives_as_many_pairs_as_there_are(labels):
    label = torch.tensor([labels], dtype=torch.float32)
    row, better, worse = ordered_pairs(label, torch.ones_like(label, dtype=torch.bool))
    assert len(row) == math.comb(len(labels), 2)
    assert bool((label[row, better] > label[row, worse]).all())


def test_a_list_counts_as_one_however_long_it_is():
    values, row = torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([0, 0, 0, 2])
    assert mean_over_pairs(values, row, rows=3).tolist() == [3, 0, 5]

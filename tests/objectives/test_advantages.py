"""Advantages against numbers worked by hand, and what they reduce to."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.advantages import (
    agreeing,
    centred_advantage,
    generalised_advantage,
    group_advantage,
    group_rate,
    leave_one_out_advantage,
    scale_by_group,
    whiten,
)


def ids(*numbers):
    return torch.tensor(numbers)


def test_a_group_is_measured_by_its_own_mean_and_unbiased_spread():
    reward = torch.tensor([1.5, 0.5, 0.5, 0.0])
    expected = [1.390538, -0.198648, -0.198648, -0.993241]
    assert group_advantage(reward, ids(4, 4, 4, 4), eps=1e-4).tolist() == pytest.approx(expected, abs=1e-6)
    assert group_advantage(torch.tensor([2.0, 1, 1, 0]), ids(0, 0, 0, 0), eps=1e-4).tolist() == pytest.approx(
        [1.224595, 0, 0, -1.224595], abs=1e-6
    )


def test_rows_of_a_group_need_not_be_adjacent_and_groups_may_differ_in_size():
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    centred = centred_advantage(reward, ids(7, 2, 7, 2, 2))
    assert centred.tolist() == pytest.approx([0.5, -2 / 3, -0.5, 1 / 3, 1 / 3])


def test_advantage_is_zero_when_all_rewards_agree():
    reward, group = torch.full((4,), 0.5), ids(0, 0, 0, 0)
    for advantage in (group_advantage, centred_advantage, leave_one_out_advantage):
        assert advantage(reward, group).tolist() == [0.0] * 4


def test_a_group_of_one_keeps_its_reward():
    for advantage in (group_advantage, centred_advantage, leave_one_out_advantage):
        assert advantage(torch.tensor([0.7, 1.0, 0.0]), ids(0, 1, 1))[0] == pytest.approx(0.7)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_leaving_one_out_is_the_mean_of_the_others(rewards):
    reward = torch.tensor(rewards, dtype=torch.float64)
    got = leave_one_out_advantage(reward, torch.zeros(len(rewards), dtype=torch.long))
    for i, own in enumerate(rewards):
        others = rewards[:i] + rewards[i + 1 :]
        assert float(got[i]) == pytest.approx(own - sum(others) / len(others), abs=1e-9)


def test_the_rate_is_the_groups_share_of_right_answers():
    assert group_rate(torch.tensor([1.0, 0, 1, 1]), ids(0, 0, 0, 1)).tolist() == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 1]
    )


def test_groups_that_agree_are_told_from_those_that_do_not():
    assert agreeing(torch.tensor([1.0, 0, 1, 1]), ids(3, 3, 1, 1)).tolist() == [False, False, True, True]


def test_a_groups_factor_reaches_all_its_rows():
    scaled = scale_by_group(torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0.5, 0.25]), ids(9, 4, 9))
    assert scaled.tolist() == [0.25, 0.5, -0.5]


def test_rewards_and_ids_of_unequal_length_are_refused():
    with pytest.raises(ShapeError, match="one of each per row"):
        group_advantage(torch.zeros(3), ids(0, 0))


VALUES = torch.tensor([[0.2, 0.5, 0.4, 0.7]])
ALL = torch.ones(1, 4, dtype=torch.bool)


def test_advantages_over_time_by_hand():
    finished = torch.tensor([[0.0, 0, 0, 1]])
    got = generalised_advantage(finished, VALUES, torch.zeros(1), ALL, discount=1.0, lam=0.9)
    assert got[0].tolist() == pytest.approx([0.6717, 0.413, 0.57, 0.3])


def test_a_cut_episode_goes_on_from_the_value_that_follows():
    cut = generalised_advantage(torch.zeros(1, 4), VALUES, VALUES[:, -1], ALL, discount=1.0, lam=0.9)
    assert cut[0].tolist() == pytest.approx([0.453, 0.170, 0.300, 0.0], abs=1e-6)


def test_lambda_one_is_return_minus_value_and_lambda_zero_one_step():
    reward = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    long = generalised_advantage(reward, VALUES, torch.zeros(1), ALL, discount=0.5, lam=1.0)
    assert float(long[0, 0]) == pytest.approx(1 + 2 / 2 + 3 / 4 + 4 / 8 - 0.2)
    short = generalised_advantage(reward, VALUES, torch.zeros(1), ALL, discount=0.5, lam=0.0)
    assert float(short[0, 0]) == pytest.approx(1 + 0.5 * 0.5 - 0.2)


def test_steps_outside_the_mask_are_passed_over():
    reward, mask = torch.tensor([[0.0, 9.0, 1.0, 9.0]]), torch.tensor([[True, False, True, False]])
    got = generalised_advantage(reward, VALUES, torch.zeros(1), mask, discount=1.0, lam=1.0)
    assert got[0].tolist() == pytest.approx([1 - 0.2, 0, 1 - 0.4, 0])


def test_lambda_may_differ_between_rows():
    both = generalised_advantage(
        torch.zeros(2, 4).index_fill(1, torch.tensor([3]), 1.0), VALUES.expand(2, 4), torch.zeros(2),
        ALL.expand(2, 4), discount=1.0, lam=torch.tensor([0.9, 1.0]),
    )  # fmt: skip
    assert float(both[0, 0]) == pytest.approx(0.6717)
    assert float(both[1, 0]) == pytest.approx(0.8)


@pytest.mark.parametrize("wrong", [{"discount": 1.1, "lam": 1.0}, {"discount": 1.0, "lam": -0.1}])
def test_discounts_outside_zero_and_one_are_refused(wrong):
    with pytest.raises(SettingError, match="0 to 1"):
        generalised_advantage(torch.zeros(1, 4), VALUES, torch.zeros(1), ALL, **wrong)


def test_nothing_carries_gradient():
    value = VALUES.clone().requires_grad_()
    got = generalised_advantage(torch.zeros(1, 4), value, value[:, -1], ALL, discount=1.0, lam=0.9)
    assert not got.requires_grad
    reward = torch.rand(4, requires_grad=True)
    assert not group_advantage(reward, ids(0, 0, 1, 1)).requires_grad


def test_whitening_by_the_variance_of_a_population_is_a_choice():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    got = whiten(torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]]), mask, correction=0)
    assert got[mask].tolist() == pytest.approx(
        [-2 / (14 / 3) ** 0.5, -1 / (14 / 3) ** 0.5, 3 / (14 / 3) ** 0.5]
    )


def test_whitened_tokens_have_mean_zero_and_unbiased_variance_one():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    got = whiten(torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]]), mask)
    assert float(got[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(got[mask].var()) == pytest.approx(1, abs=1e-5)
    assert got[~mask].tolist() == [0, 0, 0]
    assert math.isclose(float(got[0, 0]), (1 - 3) / math.sqrt(7), rel_tol=1e-5)


def test_factors_that_are_not_one_per_group_are_refused():
    group = torch.tensor([0, 0, 1])
    with pytest.raises(ShapeError, match="one for each of 2 groups"):
        scale_by_group(torch.ones(3), torch.ones(3), group)
    with pytest.raises(ShapeError, match="for each of 3 rows"):
        scale_by_group(torch.ones(2), torch.ones(2), group)

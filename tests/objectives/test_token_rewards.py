"""Rewards per token against numbers worked by hand."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.advantages import generalised_advantage
from policysmith.objectives.token_rewards import (
    discounted_return,
    explained_variance,
    kl_penalty,
    reward_at_end,
    whiten_around_mean,
)

MASK = torch.tensor([[False, True, True, True], [True, True, False, False]])


def test_the_reward_stands_on_the_last_token_and_not_on_the_padding():
    got = reward_at_end(torch.tensor([0.8, -0.5]), MASK)
    assert got.tolist() == [[0, 0, 0, pytest.approx(0.8)], [0, -0.5, 0, 0]]


def test_a_reward_without_a_token_is_refused_and_no_reward_is_not():
    empty = torch.zeros(1, 3, dtype=torch.bool)
    assert not reward_at_end(torch.zeros(1), empty).any()
    with pytest.raises(DataError, match="without a token") as caught:
        reward_at_end(torch.ones(1), empty)
    assert caught.value.where == "row 0"


def test_two_answers_with_a_penalty_for_leaving_the_reference_by_hand():
    drawn = torch.tensor([[0.0, -1, -0.5, -2], [-0.7, -0.3, 0, 0]])
    reference = torch.tensor([[0.0, -1.2, -0.4, -1.5], [-0.9, -0.6, 9, 9]])
    reward = kl_penalty(drawn, reference, MASK, coefficient=0.05)
    reward = reward + reward_at_end(torch.tensor([0.8, -0.5]), MASK)
    assert reward[0].tolist() == pytest.approx([0, -0.01, 0.005, 0.825])
    assert reward[1].tolist() == pytest.approx([-0.01, -0.515, 0, 0])
    value = torch.tensor([[0.0, 0.2, 0.3, 0.5], [0.1, -0.2, 0, 0]])
    advantage = generalised_advantage(reward, value, torch.zeros(2), MASK, discount=1.0, lam=0.9)
    assert advantage[0].tolist() == pytest.approx([0, 0.53775, 0.4975, 0.325])
    assert advantage[1].tolist() == pytest.approx([-0.5935, -0.315, 0, 0])
    target = advantage + value
    assert target[0, 1:].tolist() == pytest.approx([0.73775, 0.7975, 0.825])
    assert target[1, :2].tolist() == pytest.approx([-0.4935, -0.515])


def test_the_penalty_carries_no_gradient_and_is_none_outside_the_mask():
    drawn = torch.randn(2, 4, requires_grad=True)
    got = kl_penalty(drawn, torch.zeros(2, 4), MASK, coefficient=1.0)
    assert not got.requires_grad
    assert not got[~MASK].any()
    with pytest.raises(SettingError, match="0 or more"):
        kl_penalty(drawn, drawn, MASK, coefficient=-1.0)


def test_whitening_around_the_mean_sets_the_spread_and_leaves_the_mean():
    reward, mask = torch.tensor([[1.0, 99.0], [3.0, 5.0]]), torch.tensor([[True, False], [True, True]])
    found = whiten_around_mean(reward, mask)
    spread = (8 / 3) ** 0.5
    assert found[mask].tolist() == pytest.approx([3 - 2 / spread, 3.0, 3 + 2 / spread])
    assert found[0, 1] == 0.0
    assert found[mask].var(correction=0) == pytest.approx(1.0)


def test_rewards_that_agree_stay_as_they_are_and_of_none_nothing_is_made():
    same, mask = torch.full((2, 2), 4.0), torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(whiten_around_mean(same, mask), same)
    assert torch.equal(whiten_around_mean(same, ~mask), torch.zeros(2, 2))


def test_without_a_discount_every_token_of_a_finished_answer_returns_its_reward():
    whole = torch.ones(1, 4, dtype=torch.bool)
    reward = reward_at_end(torch.ones(1), whole)
    assert discounted_return(reward, whole, discount=1.0).tolist() == [[1, 1, 1, 1]]
    assert discounted_return(reward, whole, discount=0.5).tolist() == [[0.125, 0.25, 0.5, 1]]


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_an_indifferent_one():
    target, mask = torch.tensor([[0.0, 1.0, 7.0]]), torch.tensor([[True, True, False]])
    assert float(explained_variance(target, target, mask)) == 1
    assert float(explained_variance(torch.full_like(target, 3.0), target, mask)) == 0
    assert float(explained_variance(torch.tensor([[0.25, 0.75, 0]]), target, mask)) == pytest.approx(0.75)
    assert float(explained_variance(target, torch.ones_like(target), mask)) == 0

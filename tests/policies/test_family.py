"""Families of policies: what the actor is told, what the choosers choose, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.common.rng import seeded_initialisation
from policysmith.networks.bodies import Body
from policysmith.networks.targets import frozen
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.family import (
    BalanceChooser,
    FamilyPolicy,
    FixedChooser,
    UniformChooser,
    check_range,
    member,
)
from policysmith.policies.heads import GaussianHead
from policysmith.policies.protocol import load_policy

LOW, HIGH = 8.0, 14.0


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def family(chooser=None, *, deterministic=True):
    with seeded_initialisation(0):
        body = Body(3 + 6, hidden=(16,), activation="relu")
        actor = NetworkPolicy(body, GaussianHead(16, 2, squash_mean=True, log_deviation_range=(-5.0, 2.0)))
        chooser = chooser or BalanceChooser(3, LOW, HIGH, hidden=(16,))
    return FamilyPolicy(actor, chooser, deterministic=deterministic)


def act(policy, observation, seed=0):
    return policy.act(observation[:, None], policy.initial_state(len(observation)), rng=rng(seed))[0][:, 0]


OBSERVATION = torch.randn(40, 3, generator=rng(7))


# ---- the choosers --------------------------------------------------------------------------------------


def test_the_chooser_stays_in_its_range_and_its_mean_is_the_middle_of_it():
    chooser = BalanceChooser(3, LOW, HIGH, hidden=(16,))
    balance, _ = chooser.draw(100 * OBSERVATION, rng())
    assert float(balance.min()) >= LOW
    assert float(balance.max()) <= HIGH
    torch.nn.init.zeros_(chooser.mean[-1].weight)
    torch.nn.init.zeros_(chooser.mean[-1].bias)
    assert torch.allclose(chooser(OBSERVATION), torch.tensor((LOW + HIGH) / 2))


def test_the_log_probability_is_that_of_the_squashed_number_before_it_is_brought_to_the_range():
    chooser = BalanceChooser(3, LOW, HIGH, hidden=(16,))
    balance, log_prob = chooser.draw(OBSERVATION, rng())
    unit = (balance - LOW) / (HIGH - LOW) * 2 - 1
    normal = torch.distributions.Normal(chooser.mean(OBSERVATION)[:, 0], 1.0)
    by_hand = normal.log_prob(unit.atanh()) - torch.log1p(-unit.square())
    assert torch.allclose(log_prob, by_hand, atol=1e-3)


def test_a_deviation_beyond_its_limits_counts_as_at_the_limit():
    chooser = BalanceChooser(3, LOW, HIGH, hidden=(16,))
    torch.nn.init.constant_(chooser.log_deviation, -50.0)
    balance, _ = chooser.draw(OBSERVATION, rng())
    assert torch.allclose(balance, chooser(OBSERVATION), atol=2e-3)


def test_uniform_balances_fill_the_range_and_do_not_look_at_the_state():
    chooser = UniformChooser(1.0, 5.0)
    balance, log_prob = chooser.draw(torch.zeros(4000, 3), rng())
    assert abs(float(balance.mean()) - 3) < 0.1
    assert 1 <= float(balance.min()) < 1.05
    assert 4.95 < float(balance.max()) <= 5
    assert torch.allclose(log_prob, torch.tensor(-math.log(2)))


# ---- the family ----------------------------------------------------------------------------------------


def test_the_actor_is_told_the_encoding_and_not_the_balance_itself():
    policy = family()
    told = policy.told(OBSERVATION[:1], torch.tensor([10.0]))
    expected = [-0.54402111, -0.83907153, 0.44767083, 0.89419843, 0.02154268, 0.99976793]
    assert torch.allclose(told, torch.cat([OBSERVATION[:1], torch.tensor([expected])], -1), atol=1e-6)


def test_acting_takes_the_balance_of_the_choosers_mean_for_every_state():
    policy = family()
    wanted = policy.actor.distribution(policy.told(OBSERVATION, policy.chooser(OBSERVATION))).mode()
    assert torch.equal(act(policy, OBSERVATION), wanted)


def test_acting_with_noise_draws_the_action_and_not_the_balance():
    policy = family(deterministic=False)
    torch.nn.init.constant_(policy.actor.head.log_deviation, -5.0)
    quiet = family()
    assert torch.allclose(act(policy, OBSERVATION), act(quiet, OBSERVATION), atol=0.05)
    assert not torch.equal(act(policy, OBSERVATION), act(policy, OBSERVATION, seed=1))


def test_members_differ_and_one_member_is_the_same_in_every_state():
    policy = family()
    low, high = (act(member(policy, balance), OBSERVATION) for balance in (LOW, HIGH))
    assert float((low - high).abs().max()) > 0.01
    told = policy.told(OBSERVATION, torch.full((40,), LOW))
    assert torch.equal(low, policy.actor.distribution(told).mode())


def test_the_gradient_runs_through_action_and_encoding_to_the_chooser_and_leaves_the_actor_alone():
    policy = family()
    balance, _ = policy.chooser.draw(OBSERVATION, rng())
    with frozen(policy.actor):
        action, _ = policy.draw(OBSERVATION, balance, rng(1))
    action.square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in policy.chooser.parameters())
    assert all(p.grad is None for p in policy.actor.parameters())


def test_log_probability_of_an_action_is_that_of_its_member():
    policy = family()
    balance = torch.full((40,), 9.0)
    action, log_prob = policy.draw(OBSERVATION, balance, rng())
    assert torch.allclose(policy.log_prob(OBSERVATION, action, balance), log_prob, atol=1e-5)
    other = policy.log_prob(OBSERVATION, action, balance + 3)
    assert not torch.allclose(other, log_prob, atol=1e-3)


@pytest.mark.parametrize("chooser", [None, UniformChooser(1.0, 2.0), FixedChooser(3.0)])
def test_a_saved_family_acts_the_same(tmp_path, chooser):
    policy = family(chooser)
    policy.save_pretrained(tmp_path / "policy")
    assert torch.equal(act(load_policy(tmp_path / "policy"), OBSERVATION), act(policy, OBSERVATION))


@pytest.mark.parametrize("given", [(2.0, 2.0), (3.0, 1.0), (1.0,), (0.0, math.inf), (math.nan, 1.0)])
def test_a_range_is_two_rising_numbers(given):
    with pytest.raises(SettingError, match="lower one first") as caught:
        check_range(given)
    assert all(str(end) in str(caught.value) for end in given)

"""Policies for cloning: their units, their density, and what acting draws."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import SettingError, ShapeError
from policysmith.policies.cloning import MixturePolicy, RegressionPolicy, joined
from policysmith.policies.protocol import load_policy


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def scaled(policy):
    """The policy fitted to observations in [0, 4] and actions in [10, 30]."""
    corners = torch.tensor([[0.0], [4.0]])
    policy.observation_normalizer.fit_range(corners.expand(-1, policy.observation_size))
    policy.action_normalizer.fit_range((10 + 5 * corners).expand(-1, policy.action_size))
    return policy


def zero_output(policy, bias):
    """The policy with a last layer that ignores the observation and gives `bias`."""
    last = policy.network[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor(bias))
    return policy


def test_regression_answers_in_the_units_of_the_data():
    policy = zero_output(scaled(RegressionPolicy(3, 2, hidden=(8,))), [0.0, math.atanh(0.5)])
    actions, state = policy.act(torch.rand(4, 1, 3), policy.initial_state(4), rng=rng())
    torch.testing.assert_close(actions, torch.tensor([20.0, 25.0]).expand(4, 1, 2))
    assert state["network_calls"].tolist() == [1, 1, 1, 1]


def test_regression_never_leaves_the_range_of_the_data():
    policy = scaled(RegressionPolicy(3, 2, hidden=(8,)))
    actions, _ = policy.act(1e3 * torch.randn(64, 1, 3, generator=rng()), policy.initial_state(64), rng=rng())
    assert bool(((actions >= 10.0) & (actions <= 30.0)).all())


@pytest.mark.parametrize("kind", [RegressionPolicy, MixturePolicy])
def test_windows_in_and_chunks_out(kind):
    policy = kind(3, 2, hidden=(8,), observation_steps=2, action_steps=4)
    actions, _ = policy.act(torch.rand(5, 2, 3), policy.initial_state(5), rng=rng())
    assert actions.shape == (5, 4, 2)
    with pytest.raises(ShapeError, match=r"\[5, 1, 3\]|\(5, 1, 3\)"):
        policy.act(torch.rand(5, 1, 3), policy.initial_state(5), rng=rng())


@pytest.mark.parametrize("kind", [RegressionPolicy, MixturePolicy])
def test_a_saved_policy_acts_the_same(kind, tmp_path):
    policy = scaled(kind(3, 2, hidden=(8,)))
    policy.save_pretrained(tmp_path / "policy")
    observation = torch.rand(6, 1, 3)
    ours, theirs = (
        p.act(observation, p.initial_state(6), rng=rng())[0]
        for p in (policy, load_policy(tmp_path / "policy"))
    )
    assert torch.equal(ours, theirs)


def two_answers(**options):
    """Actions near -0.5 (a quarter of the time) and 0.5, deviation 0.1."""
    policy = MixturePolicy(3, 1, components=2, hidden=(8,), minimum_deviation=1e-6, **options)
    deviation = math.log(math.expm1(0.1))
    mean = math.atanh(0.5)
    return zero_output(policy, [math.log(0.25), math.log(0.75), -mean, mean, deviation, deviation])


def test_a_mixture_draws_its_answers_by_their_weights():
    policy = two_answers()
    drawn = policy.sample(torch.zeros(1, 1, 3), 4000, rng=rng())
    assert drawn.shape == (4000, 1, 1, 1)
    assert set(drawn.flatten().mul(2).round().tolist()) == {-1.0, 1.0}
    assert (drawn > 0).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_spread_adds_the_components_own_noise():
    drawn = two_answers(spread=1.0).sample(torch.zeros(1, 1, 3), 4000, rng=rng()).flatten()
    upper = drawn[drawn > 0]
    assert upper.mean().item() == pytest.approx(0.5, abs=0.01)
    assert upper.std().item() == pytest.approx(0.1, rel=0.05)


def test_deterministic_acts_the_likeliest_answer():
    policy = two_answers(deterministic=True)
    actions, _ = policy.act(torch.zeros(9, 1, 3), policy.initial_state(9), rng=rng())
    torch.testing.assert_close(actions, torch.full((9, 1, 1), 0.5))


def test_log_prob_is_a_density_in_the_units_of_the_data():
    policy = scaled(two_answers())
    grid = torch.linspace(0.0, 40.0, 8001)[:, None, None]
    log_prob = policy.log_prob(torch.zeros(8001, 1, 3), grid)
    assert torch.trapezoid(log_prob.exp().detach(), grid[:, 0, 0]).item() == pytest.approx(1.0, abs=1e-3)
    at_answer = 0.75 / (math.sqrt(2 * math.pi) * 0.1 * 10.0)
    found = policy.log_prob(torch.zeros(1, 1, 3), torch.full((1, 1, 1), 25.0))
    assert found.item() == pytest.approx(math.log(at_answer), abs=1e-4)


def test_the_density_of_a_chunk_counts_all_its_steps():
    """One component: the log-density of two steps is the sum of both steps'."""
    deviation = math.log(math.expm1(0.5))
    two = zero_output(
        scaled(MixturePolicy(1, 1, components=1, hidden=(4,), action_steps=2, minimum_deviation=1e-9)),
        [0.0, 0.0, 0.0, deviation, deviation],
    )
    one = zero_output(
        scaled(MixturePolicy(1, 1, components=1, hidden=(4,), minimum_deviation=1e-9)), [0.0, 0.0, deviation]
    )
    chunk = torch.tensor([[[12.0], [29.0]]])
    whole = two.log_prob(torch.zeros(1, 1, 1), chunk)
    parts = sum(one.log_prob(torch.zeros(1, 1, 1), chunk[:, i : i + 1]) for i in (0, 1))
    torch.testing.assert_close(whole, parts)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(SettingError, match="0 components"):
        MixturePolicy(3, 1, components=0)
    with pytest.raises(SettingError, match="above 0"):
        MixturePolicy(3, 1, minimum_deviation=0.0)


@pytest.mark.parametrize("kind", [RegressionPolicy, MixturePolicy])
def test_a_goal_is_read_beside_the_state(kind):
    policy = kind(2, 1, hidden=(8,), goal_size=1)
    state = torch.rand(5, 1, 2)

    def acted(goal):
        observation = TensorDict({"state": state, "goal": torch.full((5, 1, 1), goal)}, batch_size=[5, 1])
        return policy.act(observation, policy.initial_state(5), rng=rng())[0]

    assert torch.equal(acted(1.0), acted(1.0))
    assert not torch.equal(acted(1.0), acted(-1.0))
    with pytest.raises(ShapeError, match="goal"):
        policy.act(state, policy.initial_state(5), rng=rng())


def test_state_and_goal_are_joined_in_that_order_whatever_the_order_of_the_parts():
    observation = TensorDict({"goal": torch.ones(3, 1), "state": torch.zeros(3, 2)}, batch_size=[3])
    assert joined(observation).tolist() == [[0.0, 0.0, 1.0]] * 3
    assert joined(torch.zeros(3, 2)).shape == (3, 2)

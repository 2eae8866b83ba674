"""The bound on the shift of visitation, and coverage: hand numbers and that it is a bound."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.visitation import coverage_probability, divergence, visitation_bound, visits

NEXT_STATE = torch.eye(2)[None].repeat(2, 1, 1)
"""Action = next state."""
EXPERT = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
LEARNER = torch.tensor([[0.8, 0.2], [0.8, 0.2]])
START = torch.tensor([1.0, 0.0])


def test_two_states_two_steps_by_hand():
    found = visitation_bound(LEARNER, EXPERT, NEXT_STATE, start=START, horizon=2)
    assert found.expert.tolist() == pytest.approx([0.95, 0.05])
    assert found.learner.tolist() == pytest.approx([0.9, 0.1])
    assert found.divergence.item() == pytest.approx(0.020654, abs=1e-6)
    assert found.bound.item() == pytest.approx(0.5 * 0.044403, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 12), st.integers(0, 10_000))
def test_the_shift_never_exceeds_its_bound(states, actions, horizon, seed):
    rng = torch.Generator().manual_seed(seed)

    def distributions(*shape):
        return (3 * torch.randn(*shape, generator=rng, dtype=torch.double)).softmax(-1)

    learner, expert = distributions(states, actions), distributions(states, actions)
    found = visitation_bound(
        learner, expert, distributions(states, actions, states), start=distributions(states), horizon=horizon
    )
    assert found.divergence.item() <= found.bound.item() + 1e-12
    assert found.learner.sum().item() == pytest.approx(1.0)


def test_the_same_policy_shifts_nothing():
    found = visitation_bound(EXPERT, EXPERT, NEXT_STATE, start=START, horizon=9)
    assert found.divergence.item() == found.bound.item() == 0.0


def test_an_early_mistake_costs_more_than_a_late_one():
    """A corridor 0 -> 1 -> 2 -> 3 with one action astray, at the first or at the third state."""
    corridor = torch.zeros(5, 2, 5)
    for state in range(5):
        corridor[state, 0, min(state + 1, 3)] = 1.0
        corridor[state, 1, 4] = 1.0
    expert = torch.tensor([[0.99, 0.01]]).repeat(5, 1)
    bounds = []
    for wrong in (0, 2):
        learner = expert.clone()
        learner[wrong] = torch.tensor([0.5, 0.5])
        start = torch.eye(5)[0]
        bounds.append(visitation_bound(learner, expert, corridor, start=start, horizon=4).bound.item())
    assert bounds[0] > bounds[1] > 0


def test_an_action_the_expert_never_takes_has_no_finite_bound_where_it_matters():
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert math.isinf(visitation_bound(LEARNER, sure, NEXT_STATE, start=START, horizon=2).bound.item())
    # At the last step nothing is left to shift, and at states never reached nothing happens.
    assert visitation_bound(LEARNER, sure, NEXT_STATE, start=START, horizon=1).bound.item() == 0.0


def test_visits_begin_at_the_start_and_follow_the_chain():
    reached = visits(EXPERT.double(), NEXT_STATE.double(), START.double(), 3)
    assert reached[0].tolist() == [1.0, 0.0]
    assert reached[2].tolist() == pytest.approx([0.9, 0.1])


def test_divergence_of_bernoulli_distributions():
    p, q = torch.tensor([0.8, 0.2]).double(), torch.tensor([0.9, 0.1]).double()
    assert divergence(p, q).item() == pytest.approx(0.044403, abs=1e-6)


def test_tables_that_are_no_distributions_are_refused():
    with pytest.raises(SettingError, match="'learner'"):
        visitation_bound(2 * LEARNER, EXPERT, NEXT_STATE, start=START, horizon=2)
    with pytest.raises(SettingError, match="'start'"):
        visitation_bound(LEARNER, EXPERT, NEXT_STATE, start=torch.tensor([2.0, -1.0]), horizon=2)
    with pytest.raises(SettingError, match="horizon of 0"):
        visitation_bound(LEARNER, EXPERT, NEXT_STATE, start=START, horizon=0)
    with pytest.raises(ShapeError, match=r"\[3\]"):
        visitation_bound(LEARNER, EXPERT, NEXT_STATE, start=torch.ones(3) / 3, horizon=2)
    with pytest.raises(ShapeError, match="the same"):
        visitation_bound(LEARNER, EXPERT[:1], NEXT_STATE, start=START, horizon=2)


def test_coverage_by_hand():
    sigma = torch.tensor([0.1, 1.0], dtype=torch.double)
    found = coverage_probability(0.1, sigma, samples=5)
    assert found.tolist() == pytest.approx([0.996783, 0.339684], abs=1e-6)
    single = [1 - (1 - math.erf(0.1 / (s * math.sqrt(2)))) ** 5 for s in (0.1, 1.0)]
    assert found.tolist() == pytest.approx(single)


def test_coverage_in_two_dimensions_is_the_rayleigh_distribution():
    found = coverage_probability(0.3, torch.tensor(0.2, dtype=torch.double), samples=1, size=2)
    assert found.item() == pytest.approx(1 - math.exp(-(0.3**2) / (2 * 0.2**2)))


def test_noise_thins_coverage_and_samples_restore_it():
    sigma = torch.tensor([0.1, 0.2, 0.4])
    few = coverage_probability(0.1, sigma, samples=5)
    assert bool((few.diff() < 0).all())
    assert bool((coverage_probability(0.1, sigma, samples=50) > few).all())

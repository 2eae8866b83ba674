"""Attacks: they keep their bounds, change decisions, and come to hand numbers for linear scores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.attacks import (
    carlini_wagner,
    deepfool,
    elastic_net,
    gradient_sign,
    nesterov,
    projected_ascent,
)
from policysmith.objectives.decisions import decision_margin, greedy

MINIMAL = [carlini_wagner, deepfool, elastic_net]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, width=6, actions=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, actions))
        body[0].weight.data *= 5  # bent enough to tell attacks apart
        return body.requires_grad_(False)


def linear(weight):
    return lambda states: states @ weight.T


# Action 0 leads at STATE by 0.3 along the first coordinate alone; the boundary is at x = 0.2.
WEIGHT = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
STATE = torch.tensor([[0.5, 0.5]])
HALF = linear(WEIGHT)


def two_sided(states):
    """Scores x - 0.2 and 0.2 - x of the first coordinate."""
    return torch.stack([states[:, 0] - 0.2, 0.2 - states[:, 0]], dim=1)


def test_the_sign_method_moves_every_coordinate_by_the_size_against_the_decision():
    scores = linear(torch.tensor([[1.0, -2.0], [-1.0, 2.0]]))
    moved = gradient_sign(scores, torch.tensor([[0.9, 0.1]]), size=0.3)
    assert torch.allclose(moved, torch.tensor([[0.6, 0.4]]))


def test_one_step_without_momentum_is_the_sign_method():
    scores, states = network(), torch.rand(7, 6, generator=rng())
    one = nesterov(scores, states, size=0.1, steps=1, momentum=0.0)
    assert torch.equal(one, gradient_sign(scores, states, size=0.1))


def test_more_steps_raise_the_margin_more_within_the_same_bound():
    scores, states = network(1), torch.rand(100, 6, generator=rng(1))
    decision = greedy(scores, states)
    one = gradient_sign(scores, states, size=0.3)
    many = nesterov(scores, states, size=0.3)
    for moved in (one, many):
        assert float((moved - states).abs().max()) <= 0.3 + 1e-6
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 1
    margins = [float(decision_margin(scores(x), decision).mean()) for x in (states, one, many)]
    assert margins[0] < margins[1] < margins[2]


def test_projected_ascent_stays_in_its_cube_and_the_bounds_and_beats_its_start():
    scores, states = network(2), torch.rand(50, 6, generator=rng(2))
    decision = greedy(scores, states)
    start = 2 * torch.rand(50, 6, generator=rng(3)) - 1
    moved = projected_ascent(scores, states, decision, start=start, size=0.2, steps=5)
    assert float((moved - states).abs().max()) <= 0.2 + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    begun = (states + 0.2 * start).clamp(0, 1)
    margins = [decision_margin(scores(x), decision).mean() for x in (begun, moved)]
    assert float(margins[0]) < float(margins[1])
    sizes = torch.tensor([0.0, 0.3]).repeat(25)
    moved = projected_ascent(scores, states, decision, start=start, size=sizes, steps=2)
    assert torch.equal(moved[::2], states[::2])
    assert float((moved - states)[1::2].abs().max()) > 0.2


def test_deepfool_goes_just_beyond_the_nearest_boundary_of_linear_scores():
    moved = deepfool(two_sided, STATE, overshoot=0.02)
    assert moved[0].tolist() == pytest.approx([0.5 - 0.3 * 1.02, 0.5])
    # Three actions: the nearer of the two boundaries is at distance 0.1 along the second coordinate.
    three = lambda s: torch.stack([0 * s[:, 0], 0.2 - s[:, 0], s[:, 1] - 0.6], dim=1)  # noqa: E731
    assert deepfool(three, STATE)[0].tolist() == pytest.approx([0.5, 0.602])


@pytest.mark.parametrize("attack", [carlini_wagner, elastic_net])
def test_minimal_attacks_find_the_boundary_of_linear_scores(attack):
    moved = attack(two_sided, STATE, steps=40, searches=7)
    assert moved[0, 1] == 0.5
    assert 0.18 < float(moved[0, 0]) < 0.2


def test_sparsity_moves_fewer_coordinates():
    weight = torch.tensor([[1.0, 0.6, 0.5, 0.1], [-1.0, -0.6, -0.5, -0.1]])
    states = 0.2 + 0.6 * torch.rand(30, 4, generator=rng(4))
    scores = lambda s: (s - 0.4) @ weight.T  # noqa: E731
    plain = carlini_wagner(scores, states)
    sparse = elastic_net(scores, states, sparsity=0.05)
    changed = [((x - states).abs() > 1e-6).float().sum() for x in (plain, sparse)]
    assert float(changed[1]) < float(changed[0])


@pytest.mark.parametrize("attack", MINIMAL)
def test_minimal_attacks_change_decisions_within_the_bounds_by_less_than_random_steps(attack):
    scores = network(3)
    states = torch.rand(40, 6, generator=rng(5))
    moved = attack(scores, states)
    decision = greedy(scores, states)
    flipped = greedy(scores, moved) != decision
    assert flipped.float().mean() > 0.5
    assert torch.equal(moved[~flipped], states[~flipped])
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    distance = (moved - states).norm(dim=1)
    noise = torch.randn(40, 6, generator=rng(6))
    random = (states + distance[:, None] * noise / noise.norm(dim=1, keepdim=True)).clamp(0, 1)
    assert (greedy(scores, random) != decision).float().mean() < 0.2


@pytest.mark.parametrize("attack", MINIMAL)
def test_a_decision_that_cannot_be_changed_leaves_the_state_alone(attack):
    stubborn = lambda s: torch.stack([s[:, 0] * 0 + 5 + s[:, 1], s[:, 0]], dim=1)  # noqa: E731
    assert torch.equal(attack(stubborn, STATE), STATE)


@pytest.mark.parametrize("attack", [*MINIMAL, gradient_sign, nesterov])
def test_bad_states_and_settings_are_refused(attack):
    bounded = {} if attack in MINIMAL else {"size": 0.1}
    with pytest.raises(DataError, match="floats"):
        attack(HALF, STATE.long(), **bounded)
    with pytest.raises(DataError, match="no states"):
        attack(HALF, STATE[:0], **bounded)
    with pytest.raises(ShapeError, match="two actions"):
        attack(lambda s: s[:, :1], STATE, **bounded)
    with pytest.raises(SettingError, match="low below high"):
        attack(HALF, STATE, low=1.0, high=0.0, **bounded)
    if attack in (nesterov, carlini_wagner, deepfool):
        with pytest.raises(SettingError, match="steps"):
            attack(HALF, STATE, steps=0, **bounded)
    if bounded:
        with pytest.raises(SettingError, match="size"):
            attack(HALF, STATE, size=-0.1)

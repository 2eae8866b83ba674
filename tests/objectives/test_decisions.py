"""Decisions and the directions that upset them: hand numbers, gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.decisions import (
    decision_cross_entropy,
    decision_margin,
    greedy,
    margin_hinge,
    unstable_direction,
)

STATES = torch.tensor([[1.0, 0.0], [0.0, 2.0]])


def identity(states):
    return states.clone()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_two_states_of_the_identity_by_hand():
    found = unstable_direction(identity, STATES)
    expected = [[-0.26894142, 0.26894142], [0.11920292, -0.11920292]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-7)


def test_the_direction_of_linear_scores_is_the_weights_times_the_surprise():
    weight = torch.randn(4, 6, generator=rng(), dtype=torch.double)
    states = torch.randn(20, 6, generator=rng(1), dtype=torch.double)
    scores = states @ weight.T
    surprise = (scores / 3).softmax(-1) - nn.functional.one_hot(scores.argmax(-1), 4)
    found = unstable_direction(lambda s: s @ weight.T, states, temperature=3.0)
    assert torch.allclose(found, surprise @ weight / 3)


def test_a_small_step_along_it_raises_the_cross_entropy_most():
    weight = torch.randn(3, 5, generator=rng(2), dtype=torch.double)
    network = lambda s: torch.tanh(s @ weight.T)  # noqa: E731
    state = torch.randn(1, 5, generator=rng(3), dtype=torch.double)
    decision = greedy(network, state)
    size = 1e-4

    def after(step):
        return float(decision_cross_entropy(network(state + size * step / step.norm()), decision))

    along = after(unstable_direction(network, state))
    others = [after(torch.randn(1, 5, generator=rng(i), dtype=torch.double)) for i in range(50)]
    assert along > max(others)


def test_states_may_have_any_shape_and_come_as_a_sequence():
    weight = torch.randn(2, 12, generator=rng())
    planes = torch.rand(3, 2, 3, 2, generator=rng(1))
    found = unstable_direction(lambda s: s.flatten(1) @ weight.T, list(planes))
    flat = unstable_direction(lambda s: s @ weight.T, planes.flatten(1))
    assert found.shape == planes.shape
    assert torch.allclose(found.flatten(1), flat)


def test_many_states_are_taken_in_pieces_and_no_weight_gets_a_gradient():
    network = nn.Linear(4, 3)
    states = torch.rand(1030, 4, generator=rng())
    found = unstable_direction(network, states)
    assert torch.allclose(found[700:701], unstable_direction(network, states[700:701]), atol=1e-6)
    assert network.weight.grad is None


def test_a_gradient_is_taken_inside_of_no_grad_too():
    with torch.no_grad():
        assert unstable_direction(identity, STATES).abs().sum() > 0


def test_a_saturated_softmax_has_a_direction_at_a_higher_temperature():
    states = torch.tensor([[1000.0, 0.0]])
    assert unstable_direction(identity, states).abs().sum() == 0
    assert unstable_direction(identity, states, temperature=500.0).abs().sum() > 0


@pytest.mark.parametrize(
    ("scores", "states", "error", "says"),
    [
        (lambda s: s[:, :1], STATES, ShapeError, "two actions"),
        (lambda s: s[0], STATES, ShapeError, r"scores of shape \[2\]"),
        (lambda s: s[:1], STATES, ShapeError, "for 2 states"),
        (lambda s: s[:, None], STATES, ShapeError, "two actions"),
        (identity, STATES[:0], DataError, "no states"),
        (identity, [], DataError, "no states"),
        (identity, [STATES[0], torch.zeros(3)], ShapeError, "different shapes"),
        (identity, STATES.long(), DataError, "floats"),
        (identity, STATES.to(torch.uint8), DataError, "uint8"),
    ],
)
def test_what_has_no_direction_is_refused(scores, states, error, says):
    with pytest.raises(error, match=says) as caught:
        unstable_direction(scores, states)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(SettingError, match="temperature"):
        unstable_direction(identity, STATES, temperature=temperature)


# ---- margins ------------------------------------------------------------------------------------------


def test_margins_by_hand():
    scores = torch.tensor([[1.0, 3.0, 2.5], [1.0, 3.0, 2.5]])
    assert decision_margin(scores, torch.tensor([1, 0])).tolist() == [-0.5, 2.0]


def test_the_hinge_is_per_row_and_lets_safe_decisions_alone():
    scores = torch.tensor([[5.0, 0.0], [0.3, 0.0], [0.0, 0.4]], requires_grad=True)
    value = margin_hinge(scores, torch.tensor([0, 0, 0]), floor=1.0)
    assert torch.allclose(value, torch.tensor([-1.0, -0.3, 0.4]))
    value.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0]]

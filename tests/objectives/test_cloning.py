"""Objectives of cloning: hand numbers, and the mixture as a density."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.objectives.cloning import action_error, mixture_log_prob


def test_error_is_the_mean_square_over_steps_and_dimensions():
    predicted = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    assert action_error(predicted, torch.tensor([[[0.0, 2.0], [2.0, 1.0]]])).tolist() == [2.25]


def test_between_two_answers_the_error_is_least_at_their_mean():
    answers = torch.tensor([[-1.0], [1.0]])
    costs = [action_error(torch.full((2, 1), x), answers).mean().item() for x in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    assert min(costs) == costs[2]


def mixture(value, weights, means, deviations):
    return mixture_log_prob(
        torch.tensor(value).double(),
        logits=torch.tensor(weights).double().log(),
        mean=torch.tensor(means).double(),
        deviation=torch.tensor(deviations).double(),
    )


def test_one_component_is_a_gaussian():
    found = mixture([[1.0, 0.0]], [[1.0]], [[[0.0, 0.0]]], [[[1.0, 2.0]]])
    assert found.item() == pytest.approx(-0.5 - math.log(2) - math.log(2 * math.pi))


def test_two_components_by_hand():
    # 0.25 N(0; 0, 1) + 0.75 N(0; 2, 1)
    density = (0.25 + 0.75 * math.exp(-2)) / math.sqrt(2 * math.pi)
    found = mixture([[0.0]], [[0.25, 0.75]], [[[0.0], [2.0]]], [[[1.0], [1.0]]])
    assert found.item() == pytest.approx(math.log(density))


def test_the_density_integrates_to_one():
    grid = torch.linspace(-8, 8, 4001, dtype=torch.double)[:, None]
    rows = len(grid)
    log_prob = mixture_log_prob(
        grid,
        logits=torch.tensor([[0.3, -0.2, 1.0]]).double().expand(rows, -1),
        mean=torch.tensor([[[-2.0], [0.5], [1.0]]]).double().expand(rows, -1, -1),
        deviation=torch.tensor([[[0.5], [0.1], [1.0]]]).double().expand(rows, -1, -1),
    )
    assert torch.trapezoid(log_prob.exp(), grid[:, 0]).item() == pytest.approx(1.0, abs=1e-9)


def test_components_far_away_do_not_overflow():
    found = mixture([[0.0]], [[0.5, 0.5]], [[[0.0], [1e6]]], [[[1e-3], [1e-3]]])
    assert found.item() == pytest.approx(math.log(0.5) - math.log(1e-3) - 0.5 * math.log(2 * math.pi))


def test_gradient_of_the_density_pulls_the_nearer_component_only():
    mean = torch.tensor([[[0.0], [10.0]]], requires_grad=True)
    mixture_log_prob(
        torch.tensor([[0.5]]), logits=torch.zeros(1, 2), mean=mean, deviation=torch.ones(1, 2, 1)
    ).sum().backward()
    assert mean.grad[0, 0].item() == pytest.approx(0.5)
    assert abs(mean.grad[0, 1].item()) < 1e-12

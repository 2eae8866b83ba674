"""Soft classification: hand numbers, and gradients that go where they should."""

import math

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.classification import (
    classification_loss,
    gradient_penalty,
    mixed,
    smoothed_label,
)


def test_smoothing_leaves_a_tenth_on_each_side():
    assert smoothed_label(torch.tensor([1.0, 0.0, 0.5])).tolist() == pytest.approx([0.9, 0.1, 0.5])
    assert smoothed_label(torch.tensor([1.0, 0.0]), 0.0).tolist() == [1.0, 0.0]
    with pytest.raises(SettingError, match="1"):
        smoothed_label(torch.ones(1), 1.0)


def test_an_undecided_classifier_costs_log_two_whatever_the_label():
    loss = classification_loss(torch.zeros(3), torch.tensor([0.0, 1.0, 0.3]))
    assert loss.tolist() == pytest.approx([math.log(2)] * 3)


def test_the_smoothed_loss_is_least_at_the_smoothed_label():
    logit = torch.zeros(1, requires_grad=True)
    label = smoothed_label(torch.ones(1))
    classification_loss(torch.logit(label) + logit, label).sum().backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)


def test_mixtures_are_of_rows_with_their_own_shares():
    values, partner = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    assert mixed(values, partner, torch.tensor([1.0, 0.25])).tolist() == [[1, 2], [6, 7]]
    assert mixed(values[:, 0], partner[:, 0], torch.tensor([0.5, 0.0])).tolist() == [3, 7]
    with pytest.raises(ShapeError):
        mixed(values, partner[:1], torch.ones(2))


def test_the_penalty_of_a_linear_logit_is_its_weights_distance_from_length_one():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    point = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    penalty = gradient_penalty(point @ weight, point)
    assert penalty.tolist() == pytest.approx([16.0] * 5)
    penalty.mean().backward()
    # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    assert weight.grad.tolist() == pytest.approx([4.8, 6.4])


def test_a_flat_logit_has_a_penalty_and_a_finite_gradient():
    weight = torch.zeros(2, requires_grad=True)
    point = torch.ones(1, 2, requires_grad=True)
    penalty = gradient_penalty(point @ weight, point)
    penalty.sum().backward()
    assert penalty.item() == pytest.approx(1.0, abs=1e-5)
    assert weight.grad.isfinite().all()

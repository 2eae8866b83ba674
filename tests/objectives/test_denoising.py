"""Objectives of denoising: hand numbers, rows apart from each other, gradients."""

from __future__ import annotations

import pytest
import torch

from policysmith.objectives.denoising import noise_prediction_error

PREDICTED = torch.tensor([[[1.0, 2.0], [0.0, -1.0]], [[0.5, 0.5], [0.5, 0.5]]])
NOISE = torch.tensor([[[0.0, 2.0], [2.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])


def test_error_is_the_mean_square_over_positions_and_dimensions():
    # (1 + 0 + 4 + 4) / 4, and nothing wrong in the second row.
    assert noise_prediction_error(PREDICTED, NOISE).tolist() == [2.25, 0.0]


def test_mean_over_rows_is_the_mean_over_everything():
    everything = (PREDICTED - NOISE).square().mean()
    assert noise_prediction_error(PREDICTED, NOISE).mean() == everything


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 2), (5, 1, 1), (5, 2, 3, 4)])
def test_any_shape_of_sample_gives_one_value_per_row(shape):
    rng = torch.Generator().manual_seed(0)
    predicted, noise = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    whole = noise_prediction_error(predicted, noise)
    assert whole.shape == (5,)
    cut = torch.cat([noise_prediction_error(predicted[i : i + 2], noise[i : i + 2]) for i in (0, 2, 4)])
    assert torch.equal(whole, cut)


def test_gradient_of_a_row_is_twice_the_error_over_its_size_and_stays_in_the_row():
    predicted = PREDICTED.clone().requires_grad_()
    noise_prediction_error(predicted, NOISE)[0].backward()
    assert torch.equal(predicted.grad[0], 2 * (PREDICTED - NOISE)[0] / 4)
    assert not bool(predicted.grad[1].any())


def test_predicting_nothing_costs_one_on_average():
    noise = torch.randn(2000, 4, 2, generator=torch.Generator().manual_seed(0))
    assert float(noise_prediction_error(torch.zeros_like(noise), noise).mean()) == pytest.approx(1, abs=0.04)

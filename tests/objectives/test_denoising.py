"""Objectives of denoising: hand numbers, rows apart from each other, gradients."""

from __future__ import annotations

import pytest
import torch

from policysmith.networks.karras import scalings
from policysmith.objectives.denoising import noise_prediction_error, preconditioned_error, velocity_error

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


# ---- continuous noise --------------------------------------------------------------------------------


def test_preconditioned_error_gives_the_published_number():
    """F(x) = x / 2 inside, data of deviation 1."""
    clean = torch.tensor([[1.0, -0.5], [0.2, 0.3]]).unsqueeze(1)
    noise = torch.tensor([[0.5, -1.0], [1.5, 0.25]]).unsqueeze(1)
    sigma = torch.tensor([0.5, 2.0])
    s = sigma.view(2, 1, 1)
    noisy, spread = clean + s * noise, s.square() + 1
    estimate = noisy / spread + s / spread.sqrt() * 0.5 * (noisy / spread.sqrt())
    error = preconditioned_error(estimate, clean, sigma, sigma_data=1.0)
    assert error.shape == (2,)
    assert float(error.mean()) == pytest.approx(0.755250, abs=6e-7)


def test_preconditioned_error_is_the_networks_own_error_at_every_level():
    rng = torch.Generator().manual_seed(0)
    clean, noise, said = (torch.randn(5, 4, 2, generator=rng, dtype=torch.float64) for _ in range(3))
    sigma = torch.logspace(-3, 2, 5, dtype=torch.float64)
    skip, out, _ = (value.view(-1, 1, 1) for value in scalings(sigma, sigma_data=0.5))
    noisy = clean + sigma.view(-1, 1, 1) * noise
    target = (clean - skip * noisy) / out
    error = preconditioned_error(skip * noisy + out * said, clean, sigma, sigma_data=0.5)
    torch.testing.assert_close(error, (said - target).square().mean(dim=(1, 2)))


def test_preconditioned_error_takes_a_level_per_position():
    rng = torch.Generator().manual_seed(0)
    estimate, clean = (torch.randn(3, 4, 2, generator=rng) for _ in range(2))
    sigma = torch.rand(3, generator=rng) + 0.1
    whole = preconditioned_error(estimate, clean, sigma, sigma_data=0.5)
    spread = preconditioned_error(estimate, clean, sigma.unsqueeze(1).expand(3, 4), sigma_data=0.5)
    torch.testing.assert_close(whole, spread)
    sigma = torch.tensor([[0.5, 1e9, 1e9, 1e9]])  # 1 / c_out^2 is 8 and three times 4
    error = preconditioned_error(torch.ones(1, 4, 1), torch.zeros(1, 4, 1), sigma, sigma_data=0.5)
    assert error.tolist() == pytest.approx([(8 + 3 * 4) / 4])


def test_gradient_of_the_preconditioned_error_stays_in_its_row():
    estimate = torch.ones(2, 3, 1, requires_grad=True)
    preconditioned_error(estimate, torch.zeros(2, 3, 1), torch.tensor([0.5, 0.5]), sigma_data=0.5)[
        0
    ].backward()
    torch.testing.assert_close(estimate.grad[0], torch.full((3, 1), 2 * 8 / 3))
    assert not bool(estimate.grad[1].any())


def test_velocity_error_is_worked_by_hand():
    clean, noise = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.5, 0.0]], [[1.0, -1.0]]])
    predicted = torch.tensor([[[1.5, 2.0]], [[-1.0, 1.0]]])
    # Wanted (0.5, 2) and (-1, 1): off by (1, 0), and by nothing.
    assert velocity_error(predicted, clean, noise).tolist() == [0.5, 0.0]

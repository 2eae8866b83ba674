"""Guidance: its limits, and what is exact for Gaussian data under a linear log-density."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import CapabilityError, NotFiniteError, ShapeError
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.guidance import (
    classifier_free,
    clean_from_noise,
    extrapolated,
    guided,
    guided_through,
    noise_from_clean,
)
from policysmith.networks.karras import KarrasDenoiser
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.noise import DiscreteNoise, ddim, sample, squared_cosine_betas
from policysmith.networks.samplers import heun
from policysmith.networks.schedules import karras

MEAN, DEVIATION, SLOPE = 0.3, 0.5, 1.7


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(x: torch.Tensor, sigma: torch.Tensor, mean: float = MEAN) -> torch.Tensor:
    """The best estimate of the clean sample where clean values are normal with this mean, deviation 0.5."""
    square = sigma.view(-1, 1, 1).square()
    return (DEVIATION**2 * x + mean * square) / (DEVIATION**2 + square)


def posterior_variance(sigma: torch.Tensor) -> torch.Tensor:
    return sigma.square() * DEVIATION**2 / (sigma.square() + DEVIATION**2)


def slope(clean: torch.Tensor) -> torch.Tensor:
    """A log-density that makes normal data normal again, the mean moved by SLOPE times their variance."""
    return SLOPE * clean.sum(dim=(1, 2))


def points(batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, 3, 2, generator=rng(), dtype=torch.float64)
    return x, torch.rand(batch, generator=rng(1), dtype=torch.float64) + 0.1


# ---- classifier-free ---------------------------------------------------------------------------------


class Counting(Denoiser):
    """Predicts a mix of all it is told, and counts its calls."""

    calls = 0

    def forward(self, noisy, level, condition):
        self.calls += 1
        return noisy * condition.sum(1).view(-1, 1, 1) + level.view(len(noisy), -1, 1)


def conditions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    noisy = torch.randn(4, 3, 2, generator=rng())
    wish = torch.randn(4, 5, generator=rng(1))
    return noisy, torch.rand(4, generator=rng(2)), wish, torch.zeros(4, 5)


@pytest.mark.parametrize("inner", [lambda d: d, lambda d: KarrasDenoiser(d, sigma_data=0.5)])
def test_scale_one_is_the_conditional_and_zero_the_unconditional_denoiser_bit_for_bit(inner):
    network = inner(ResidualMLPDenoiser(2, 3, 5, width=16, depth=1, level_size=8))
    noisy, level, wish, nothing = conditions()
    for scale, condition in ((1, wish), (1.0, wish), (0, nothing), (0.0, nothing)):
        both = classifier_free(network, wish, nothing, scale=scale)(noisy, level)
        assert torch.equal(both, network.bind(condition)(noisy, level))


@pytest.mark.parametrize("scale", [-0.5, 0.5, 1.5, 4.0])
def test_other_scales_go_from_the_unconditional_towards_and_beyond_the_conditional(scale):
    network = Counting(2, 3, 5)
    noisy, level, wish, nothing = conditions()
    given, without = network(noisy, level, wish), network(noisy, level, nothing)
    network.calls = 0
    mixed = classifier_free(network, wish, nothing, scale=scale)(noisy, level)
    assert network.calls == 1  # one call of twice the batch
    torch.testing.assert_close(mixed, without + scale * (given - without))
    bound = network.bind(wish), network.bind(nothing)
    torch.testing.assert_close(extrapolated(*bound, scale=scale)(noisy, level), mixed)


@pytest.mark.parametrize("scale", [0, 1])
def test_at_scale_zero_and_one_only_the_denoiser_that_counts_is_asked(scale):
    def never(noisy, level):
        raise AssertionError

    def one(noisy, level):
        return noisy + 1

    pair = (one, never) if scale == 1 else (never, one)
    assert torch.equal(extrapolated(*pair, scale=scale)(torch.ones(1), torch.ones(1)), torch.full((1,), 2.0))


def test_a_level_per_position_is_doubled_with_its_rows():
    network = Counting(2, 3, 5, level_positions=3)
    noisy, _, wish, nothing = conditions()
    level = torch.rand(4, 3, generator=rng(3))
    mixed = classifier_free(network, wish, nothing, scale=2.0)(noisy, level)
    given, without = network(noisy, level, wish), network(noisy, level, nothing)
    torch.testing.assert_close(mixed, 2 * given - without)


def test_goals_of_two_gaussians_are_overshot_as_the_scale_says():
    """With equal spreads, guidance between means 0 and 1 draws from the Gaussian whose mean is the scale."""
    wish = extrapolated(lambda x, s: exact(x, s, 1.0), lambda x, s: exact(x, s, 0.0), scale=2.5)
    x, sigma = points()
    torch.testing.assert_close(wish(x, sigma), exact(x, sigma, 2.5))


# ---- by a function -----------------------------------------------------------------------------------


def test_guidance_at_the_estimate_is_exact_for_gaussian_data_and_a_linear_density():
    x, sigma = points()
    moved = guided(exact, slope, scale=posterior_variance)(x, sigma)
    torch.testing.assert_close(moved, exact(x, sigma, MEAN + SLOPE * DEVIATION**2))


def test_guidance_through_the_network_is_exact_with_the_square_of_sigma():
    x, sigma = points()
    moved = guided_through(exact, slope, scale=torch.square)(x, sigma)
    torch.testing.assert_close(moved, exact(x, sigma, MEAN + SLOPE * DEVIATION**2))


def test_a_guided_sampler_draws_from_the_tilted_distribution():
    start = 80 * torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1)
    sigmas = karras(200, sigma_min=0.002, sigma_max=80)
    drawn = heun()(guided(exact, slope, scale=posterior_variance), start, sigmas)
    torch.testing.assert_close(drawn, MEAN + SLOPE * DEVIATION**2 + DEVIATION * start / 80, atol=0.02, rtol=0)


@pytest.mark.parametrize("guide", [guided, guided_through])
def test_scale_zero_changes_nothing(guide):
    x, sigma = points()
    assert torch.equal(guide(exact, slope, scale=torch.zeros_like)(x, sigma), exact(x, sigma))


@pytest.mark.parametrize("guide", [guided, guided_through])
def test_guidance_nests_and_adds_up(guide):
    x, sigma = points()
    twice = guide(guide(exact, slope, scale=torch.square), slope, scale=torch.square)
    once = guide(exact, lambda clean: 2 * slope(clean), scale=torch.square)
    torch.testing.assert_close(twice(x, sigma), once(x, sigma))


def test_each_row_goes_up_its_own_value_and_detached_columns_stay():
    def second_column(clean):
        fixed = torch.cat([clean[..., :1].detach(), clean[..., 1:]], dim=-1)
        return -(fixed.square().sum(dim=(1, 2)))

    x, sigma = points()
    moved = guided(exact, second_column, scale=torch.ones_like)(x, sigma)
    plain = exact(x, sigma)
    assert torch.equal(moved[..., 0], plain[..., 0])
    torch.testing.assert_close(moved[..., 1], plain[..., 1] - 2 * plain[..., 1])


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_where_they_are_switched_off(off):
    x, sigma = points()
    expected = guided(exact, slope, scale=torch.square)(x, sigma)
    with off():
        inside = x.clone()
        moved = guided(exact, slope, scale=torch.square)(inside, sigma)
        assert not moved.requires_grad
    torch.testing.assert_close(moved, expected)


def test_through_the_network_gradients_are_taken_under_no_grad_and_refused_under_inference_mode():
    x, sigma = points()
    guide = guided_through(exact, slope, scale=torch.square)
    with torch.no_grad():
        moved = guide(x, sigma)
    assert not moved.requires_grad
    torch.testing.assert_close(moved, guide(x, sigma))
    with torch.inference_mode(), pytest.raises(CapabilityError, match="inference_mode") as caught:
        guide(x, sigma)
    assert "torch.no_grad" in caught.value.cure


def test_a_density_without_gradient_of_another_shape_or_not_finite_is_refused():
    x, sigma = points()
    with pytest.raises(CapabilityError, match="no gradient"):
        guided(exact, lambda clean: (clean > 0).double().sum(dim=(1, 2)), scale=torch.square)(x, sigma)
    with pytest.raises(ShapeError, match="one per row"):
        guided(exact, lambda clean: clean.sum(), scale=torch.square)(x, sigma)

    def broken(clean):
        return torch.cat([clean[:2], clean[2:] * torch.nan]).sum(dim=(1, 2))

    with pytest.raises(NotFiniteError, match="row 2 of 4, noise level") as caught:
        guided(exact, broken, scale=torch.square)(x, sigma)
    assert f"{float(sigma[2]):.6g}" in caught.value.where


# ---- networks that predict discrete noise ------------------------------------------------------------

NOISE = DiscreteNoise(squared_cosine_betas(400))


def predicts_noise(mean: float = MEAN):
    """The best prediction of the noise where clean values are normal with this mean, deviation 0.5."""

    def predict(x, level):
        signal = NOISE.signal[level].float().view(len(x), -1, 1)
        spread = signal * DEVIATION**2 + 1 - signal
        return (1 - signal).sqrt() * (x - signal.sqrt() * mean) / spread

    return predict


def discrete_variance(level: torch.Tensor) -> torch.Tensor:
    signal = NOISE.signal[level].float()
    return DEVIATION**2 * (1 - signal) / (signal * DEVIATION**2 + 1 - signal)


def test_clean_from_noise_is_undone_by_noise_from_clean():
    x, level = torch.randn(4, 3, 2, generator=rng()), torch.tensor([0, 10, 200, 390])
    there_and_back = noise_from_clean(clean_from_noise(predicts_noise(), NOISE), NOISE)
    torch.testing.assert_close(there_and_back(x, level), predicts_noise()(x, level), atol=1e-3, rtol=1e-3)


def test_guiding_a_network_that_predicts_noise_is_exact_for_gaussian_data():
    x, level = torch.randn(3, 3, 2, generator=rng()), torch.tensor([20, 100, 300])
    estimate = guided(clean_from_noise(predicts_noise(), NOISE), slope, scale=discrete_variance)
    moved = noise_from_clean(estimate, NOISE)(x, level)
    expected = predicts_noise(MEAN + SLOPE * DEVIATION**2)(x, level)
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-4)


def test_guided_discrete_sampling_draws_from_the_tilted_distribution():
    start = torch.linspace(-2, 2, 9).view(1, 9, 1)
    estimate = guided(clean_from_noise(predicts_noise(), NOISE), slope, scale=discrete_variance)
    guide = noise_from_clean(estimate, NOISE)
    drawn = sample(guide, ddim(NOISE, steps=400, limit=None), start, rng=rng())
    torch.testing.assert_close(drawn, MEAN + SLOPE * DEVIATION**2 + DEVIATION * start, atol=0.02, rtol=0)

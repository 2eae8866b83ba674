"""Preconditioning and the densities of sigma: published numbers, limits, distributions."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.karras import KarrasDenoiser, add_noise, log_logistic, log_normal, scalings
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.samplers import heun
from policysmith.networks.schedules import exponential
from policysmith.networks.transformer import TransformerDenoiser
from policysmith.networks.unet import UNet1d
from policysmith.objectives.denoising import preconditioned_error


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(**settings) -> ResidualMLPDenoiser:
    return ResidualMLPDenoiser(2, 4, 3, width=16, depth=1, level_size=8, **settings)


def inputs(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = rng()
    noisy = torch.randn(batch, 4, 2, generator=stream)
    return noisy, torch.rand(batch, generator=stream) + 0.1, torch.randn(batch, 3, generator=stream)


def test_scalings_are_the_published_ones():
    values = [float(value) for value in scalings(torch.tensor(0.3), sigma_data=0.5)]
    assert values == pytest.approx([0.735294, 0.257248, 1.714986], abs=6e-7)


def test_what_the_network_sees_and_has_to_say_has_variance_one_at_every_level():
    sigma = torch.logspace(-3, 2, 9)
    skip, out, into = scalings(sigma, sigma_data=0.5)
    variance = 0.25 + sigma.square()  # of the noisy sample
    torch.testing.assert_close(into.square() * variance, torch.ones(9))
    wanted = ((1 - skip).square() * 0.25 + (skip * sigma).square()) / out.square()
    torch.testing.assert_close(wanted, torch.ones(9), rtol=1e-4, atol=0)


def test_the_estimate_is_built_from_the_network_as_the_equation_says():
    inner = network()
    noisy, sigma, condition = inputs()
    estimate = KarrasDenoiser(inner, sigma_data=0.5)(noisy, sigma, condition)
    for row in range(len(noisy)):
        s, one = float(sigma[row]), slice(row, row + 1)
        root = math.sqrt(s**2 + 0.25)
        said = inner(noisy[one] / root, torch.tensor([math.log(s) / 4]), condition[one])
        expected = 0.25 / root**2 * noisy[one] + s * 0.5 / root * said
        torch.testing.assert_close(estimate[one], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        network(),
        network(level_positions=4),
        UNet1d(2, 4, 3, widths=(8, 8), groups=4, level_size=8),
        TransformerDenoiser(2, 4, 3, observation_tokens=1, width=8, depth=1, heads=2),
    ],
    ids=["mlp", "levels-per-position", "unet", "transformer"],
)
def test_binding_a_condition_changes_no_number(inner):
    denoiser = KarrasDenoiser(inner, sigma_data=0.5)
    noisy, sigma, condition = inputs()
    torch.testing.assert_close(denoiser.bind(condition)(noisy, sigma), denoiser(noisy, sigma, condition))


def test_a_clean_position_stays_bit_for_bit_and_the_others_are_told_so():
    denoiser = KarrasDenoiser(network(level_positions=4), sigma_data=0.5)
    noisy, sigma, condition = inputs()
    sigma = sigma.unsqueeze(1).repeat(1, 4)
    sigma[:, :2] = 0
    estimate = denoiser(noisy, sigma, condition)
    assert torch.equal(estimate[:, :2], noisy[:, :2])
    assert bool(estimate.isfinite().all())
    assert not torch.allclose(estimate[:, 2:], noisy[:, 2:])


def test_at_high_levels_the_noisy_sample_itself_does_not_count():
    skip, out, _ = scalings(torch.tensor(1e4), sigma_data=0.5)
    assert float(skip) < 1e-8
    assert float(out) == pytest.approx(0.5)


def test_shapes_are_those_of_the_network_and_are_checked_by_it():
    denoiser = KarrasDenoiser(network(), sigma_data=1.0)
    assert (denoiser.horizon, denoiser.action_size, denoiser.condition_size) == (4, 2, 3)
    noisy, sigma, condition = inputs()
    with pytest.raises(ShapeError, match="condition has shape"):
        denoiser(noisy, sigma, condition[:, :2])
    with pytest.raises(ShapeError, match="noise level has shape"):
        denoiser.bind(condition)(noisy, sigma[:3])


def test_sequences_may_be_as_short_as_the_network_takes_them():
    inner = TransformerDenoiser(2, 4, 12, observation_tokens=4, width=8, depth=1, heads=2)
    denoiser = KarrasDenoiser(inner, sigma_data=0.5)
    noisy, sigma, _ = inputs()
    condition = torch.randn(5, 12, generator=rng(1))
    short = denoiser.bind(condition[:, :6])(noisy[:, :2], sigma)
    torch.testing.assert_close(short, denoiser(noisy, sigma, condition)[:, :2])


@pytest.mark.parametrize("sigma_data", [0, -0.5, math.inf, math.nan])
def test_data_without_spread_are_refused(sigma_data):
    with pytest.raises(SettingError, match="sigma_data"):
        KarrasDenoiser(network(), sigma_data=sigma_data)


def test_it_is_saved_and_loaded_whole(tmp_path):
    denoiser = KarrasDenoiser(network(), sigma_data=0.7)
    save_pretrained(denoiser, tmp_path / "denoiser")
    loaded = from_pretrained(tmp_path / "denoiser", expected=KarrasDenoiser)
    assert loaded.sigma_data == 0.7
    assert torch.equal(loaded(*inputs()), denoiser(*inputs()))


def test_gradients_reach_the_network_and_the_noisy_sample():
    denoiser = KarrasDenoiser(network(), sigma_data=0.5)
    noisy, sigma, condition = inputs()
    noisy.requires_grad_()
    denoiser(noisy, sigma, condition).square().sum().backward()
    assert bool(noisy.grad.abs().sum() > 0)
    assert all(bool(parameter.grad.isfinite().all()) for parameter in denoiser.parameters())


def test_noise_is_added_per_sample_or_per_position():
    clean, noise = torch.zeros(2, 3, 2), torch.ones(2, 3, 2)
    assert add_noise(clean, noise, torch.tensor([0.5, 2.0]))[:, 0, 0].tolist() == [0.5, 2.0]
    per_position = add_noise(clean, noise, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]]))
    assert per_position[:, :, 1].tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]]


def test_log_normal_levels_have_the_mean_and_deviation_asked_for():
    logs = log_normal(-1.2, 1.2)(50_000, rng()).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.02)


def test_log_logistic_levels_follow_the_logistic_within_the_range():
    low, high, location, scale = 0.005, 1.0, math.log(0.5), 0.5
    drawn = log_logistic(sigma_min=low, sigma_max=high, location=location, scale=scale)(50_000, rng())
    assert drawn.dtype == torch.float32
    assert low <= float(drawn.min())
    assert float(drawn.max()) <= high

    def below(sigma: float) -> float:
        return 1 / (1 + math.exp(-(math.log(sigma) - location) / scale))

    for sigma in (0.1, 0.3, 0.5, 0.8):
        share = (below(sigma) - below(low)) / (below(high) - below(low))
        assert float((drawn < sigma).float().mean()) == pytest.approx(share, abs=0.01)


def test_log_logistic_at_given_uniform_numbers_is_the_published_formula():
    density = log_logistic(sigma_min=0.005, sigma_max=1.0, location=math.log(0.5))
    uniform = torch.rand(4, generator=rng(3), dtype=torch.float64)
    # F(x) = x^2 / (x^2 + 0.25) with scale 1/2 around ln 0.5.
    low, high = 0.005**2 / (0.005**2 + 0.25), 1 / 1.25
    share = low + (high - low) * uniform
    torch.testing.assert_close(density(4, rng(3)), (0.25 * share / (1 - share)).sqrt().float())


def test_densities_out_of_range_are_refused():
    for settings in ({"sigma_min": 1.0, "sigma_max": 0.5}, {"sigma_min": 0.0, "sigma_max": 0.5}):
        with pytest.raises(SettingError, match="noise range"):
            log_logistic(location=0.0, **settings)
    with pytest.raises(SettingError, match="scale"):
        log_logistic(sigma_min=0.1, sigma_max=1.0, location=0.0, scale=0.0)
    with pytest.raises(SettingError, match="deviation"):
        log_normal(0.0, 0.0)


def test_a_trained_denoiser_draws_what_it_was_trained_on():
    """Actions are plus or minus what the condition says, both positions with one sign."""
    with seeded_initialisation(0):
        denoiser = KarrasDenoiser(
            ResidualMLPDenoiser(1, 2, 1, width=32, depth=1, level_size=8), sigma_data=0.5
        )
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    density, stream = log_normal(-1.2, 1.2), rng()

    def draw(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = 0.3 + 0.4 * torch.rand(batch, 1, generator=stream)
        sign = torch.randint(2, (batch, 1), generator=stream) * 2 - 1
        return size, (size * sign).unsqueeze(1).expand(batch, 2, 1)

    for _ in range(250):
        size, clean = draw(128)
        noise, sigma = torch.randn(128, 2, 1, generator=stream), density(128, stream)
        estimate = denoiser(add_noise(clean, noise, sigma), sigma, size)
        loss = preconditioned_error(estimate, clean, sigma, sigma_data=0.5).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    size, _ = draw(1000)
    sigmas = exponential(15, sigma_min=0.01, sigma_max=10)
    with torch.no_grad():
        drawn = heun()(denoiser.bind(size), 10 * torch.randn(1000, 2, 1, generator=stream), sigmas)
    assert float((drawn.abs().squeeze(-1) - size).abs().mean()) < 0.05
    assert float((drawn[:, 0] * drawn[:, 1] > 0).float().mean()) > 0.97
    assert float((drawn[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.08)

"""Samplers: published numbers, convergence with their order to what is exact for Gaussian data, costs."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.networks.samplers import (
    SAMPLERS,
    Churn,
    ancestral_levels,
    ddim,
    dpm_solver_2,
    dpm_solver_plus_2m,
    dpm_solver_plus_2s,
    euler,
    euler_ancestral,
    heun,
    sampler_named,
)
from policysmith.networks.schedules import exponential, karras, linear

MEAN, DEVIATION = 0.3, 0.5
BESO = {"sigma_min": 0.005, "sigma_max": 1.0}
DETERMINISTIC = {name: make for name, make in SAMPLERS.items() if name != "euler_ancestral"}


def exact(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The best estimate of the clean sample where clean values are normal: mean 0.3, deviation 0.5."""
    square = sigma.view(-1, 1, 1).square()
    return (DEVIATION**2 * x + MEAN * square) / (DEVIATION**2 + square)


def carried(x: torch.Tensor, sigma: float, after: float) -> torch.Tensor:
    """Where the exact flow takes x from one level to the next: quantiles stay quantiles."""
    return MEAN + (x - MEAN) * math.sqrt((DEVIATION**2 + after**2) / (DEVIATION**2 + sigma**2))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(ddim(), [0.451121, -0.128176]), (euler(), [0.451121, -0.128176]), (heun(), [0.653616, -0.701914])],
    ids=["ddim", "euler", "heun"],
)
def test_three_exponential_steps_give_the_published_numbers(sampler, expected):
    x = sampler(exact, column(0.9, -1.4), exponential(3, **BESO))
    assert x.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_heun_on_edm_levels_gives_the_published_numbers():
    # A network that says nothing: D = c_skip x with data of deviation 1.
    sigmas = karras(5, sigma_min=0.002, sigma_max=80)
    start = sigmas[0] * column(1, -0.5)
    x = heun()(lambda x, sigma: x / (sigma.view(-1, 1, 1).square() + 1), start, sigmas)
    # Published from single precision, whose rounding x / sigma makes large at the lowest levels.
    assert x.flatten().tolist() == pytest.approx([1.907250, -0.953625], abs=6e-6)


def test_ancestral_levels_are_the_published_ones_and_add_up_to_the_next_level():
    assert ancestral_levels(1.0, 0.5) == pytest.approx((0.25, 0.433013), abs=5e-7)
    for eta in (0.0, 0.3, 1.0, 5.0):
        down, up = ancestral_levels(0.8, 0.3, eta=eta)
        assert math.hypot(down, up) == pytest.approx(0.3)
    assert ancestral_levels(0.8, 0.3, eta=0.0) == (0.3, 0.0)
    assert ancestral_levels(0.8, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_step_to_zero_returns_the_estimate_bit_for_bit(name):
    clean = torch.randn(4, 3, 2, generator=rng()) / 3
    x = sampler_named(name)(lambda x, sigma: clean, 7 * torch.randn(4, 3, 2, generator=rng(1)), [0.7, 0.0])
    assert torch.equal(x, clean)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_known_clean_sample_is_reached_from_anywhere(name):
    clean = torch.randn(4, 3, 2, generator=rng()) / 3
    start = torch.randn(4, 3, 2, generator=rng(1))
    x = sampler_named(name)(lambda x, sigma: clean, start, linear(6, **BESO), rng=rng(2))
    torch.testing.assert_close(x, clean)


@pytest.mark.parametrize("schedule", [exponential, karras], ids=["exponential", "karras"])
@pytest.mark.parametrize(
    ("make", "order"),
    [(ddim, 1), (euler, 1), (heun, 2), (dpm_solver_2, 2), (dpm_solver_plus_2s, 2), (dpm_solver_plus_2m, 2)],
)
def test_the_error_falls_with_the_order_of_the_sampler(make, order, schedule):
    """Exact for Gaussian data: the flow to the lowest level, then the estimate there, as all samplers end."""
    start, low, high = column(2.0, -1.0, 0.4), 0.05, 3.0
    at_lowest = carried(start, high, low)
    target = exact(at_lowest, torch.tensor([low], dtype=torch.float64))

    def error(steps: int) -> float:
        x = make()(exact, start, schedule(steps, sigma_min=low, sigma_max=high))
        return float((x - target).abs().max())

    errors = [error(steps) for steps in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert errors[-1] < (0.02 if order == 1 else 1e-3)


@pytest.mark.parametrize("name", list(DETERMINISTIC))
def test_many_steps_carry_quantiles_of_the_noise_to_quantiles_of_the_data(name):
    quantiles = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1)
    start = 80 * quantiles
    x = sampler_named(name)(exact, start, karras(500, sigma_min=0.002, sigma_max=80))
    torch.testing.assert_close(x, MEAN + DEVIATION * quantiles, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "sampler",
    [euler_ancestral(), euler_ancestral(eta=0.5), euler(Churn(30)), heun(Churn(30)), dpm_solver_2(Churn(30))],
    ids=["ancestral", "half-ancestral", "euler-churn", "heun-churn", "dpm-2-churn"],
)
def test_samplers_that_add_noise_draw_from_the_data(sampler):
    start = 20 * torch.randn(20_000, 1, 1, generator=rng())
    x = sampler(exact, start, karras(400, sigma_min=0.002, sigma_max=20), rng=rng(1))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(x.std()) == pytest.approx(DEVIATION, rel=0.03)


def test_ancestral_with_eta_zero_is_euler_and_draws_nothing():
    stream = rng()
    before = stream.get_state()
    start, sigmas = column(0.9, -1.4), exponential(5, **BESO)
    assert torch.equal(
        euler_ancestral(eta=0)(exact, start, sigmas, rng=stream), euler()(exact, start, sigmas)
    )
    assert torch.equal(stream.get_state(), before)
    assert euler_ancestral(eta=0).deterministic
    assert not euler_ancestral().deterministic


def test_the_first_ancestral_step_is_worked_by_hand():
    """From 1 to 0.5: down to 0.25 along the estimate, then 0.433013 of noise; the last step adds none."""
    seen = []

    def denoise(x, sigma):
        seen.append((x.clone(), float(sigma[0])))
        return torch.zeros_like(x)

    start = column(2.0)
    x = euler_ancestral()(denoise, start, [1.0, 0.5, 0.0], rng=rng(3))
    noise = torch.randn(1, 1, 1, generator=rng(3), dtype=torch.float64)
    torch.testing.assert_close(seen[1][0], 0.25 * start + 0.4330127018922193 * noise)
    assert [sigma for _, sigma in seen] == [1.0, 0.5]
    assert torch.equal(x, torch.zeros_like(x))


def test_churn_raises_the_level_within_its_bounds_and_by_no_more_than_root_two():
    def told(churn: Churn) -> list[float]:
        seen: list[float] = []

        def denoise(x, sigma):
            seen.append(float(sigma[0]))
            return x

        euler(churn)(denoise, column(0.1), [8.0, 4.0, 2.0, 1.0, 0.0], rng=rng())
        return seen

    assert told(Churn(0.4)) == pytest.approx([8.8, 4.4, 2.2, 1.1])
    assert told(Churn(80)) == pytest.approx([8 * 2**0.5, 4 * 2**0.5, 2 * 2**0.5, 2**0.5])
    assert told(Churn(0.4, lowest=2, highest=4)) == pytest.approx([8, 4.4, 2.2, 1])


def test_churn_adds_the_noise_that_the_raised_level_asks_for_times_the_inflation():
    shown = []

    def denoise(x, sigma):
        shown.append(x)
        return x

    start = column(0.5, 0.5)
    euler(Churn(0.1, inflation=1.003))(denoise, start, [2.0, 0.0], rng=rng(4))
    noise = torch.randn(start.shape, generator=rng(4), dtype=torch.float64)
    torch.testing.assert_close(shown[0], start + 1.003 * math.sqrt(2.2**2 - 2.0**2) * noise)


@pytest.mark.parametrize("settings", [{"amount": -1}, {"lowest": 3, "highest": 2}, {"inflation": -0.1}])
def test_churn_out_of_range_is_refused(settings):
    with pytest.raises(SettingError, match="churn"):
        Churn(**settings)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_network_calls_are_as_many_as_announced(name, steps):
    calls = 0

    def denoise(x, sigma):
        nonlocal calls
        calls += 1
        assert sigma.shape == (3,)
        assert sigma.dtype == x.dtype
        return 0.1 * x

    sampler = sampler_named(name)
    sampler(denoise, torch.ones(3, 4, 2), exponential(steps, **BESO), rng=rng())
    assert calls == sampler.network_calls(steps)
    assert calls == (2 * steps - 1 if sampler.calls == 2 else steps)


@pytest.mark.parametrize("name", list(DETERMINISTIC))
def test_deterministic_samplers_need_no_generator_and_pass_gradients_to_the_noise(name):
    start = column(0.9, -1.4).requires_grad_()
    assert sampler_named(name).deterministic
    sampler_named(name)(exact, start, exponential(3, **BESO)).sum().backward()
    assert bool((start.grad.abs() > 1e-3).all())


def test_a_sampler_that_draws_says_that_it_needs_a_generator():
    with pytest.raises(SettingError, match="no generator"):
        euler_ancestral()(exact, column(0.9), exponential(3, **BESO))


def test_unknown_samplers_are_told_the_known_ones_and_eta_is_no_less_than_zero():
    with pytest.raises(UnknownNameError, match="euler_ancestral"):
        sampler_named("eular")
    with pytest.raises(SettingError, match="eta"):
        euler_ancestral(eta=-1)


@pytest.mark.parametrize(
    ("sampler", "levels"),
    [
        (heun(), [4, 1, 1]),  # both ends
        (dpm_solver_2(), [4, 2, 1]),  # the geometric middle
        (dpm_solver_plus_2s(), [4, 2, 1]),
        (dpm_solver_plus_2m(), [4, 1]),
    ],
    ids=["heun", "dpm-2", "dpm-2s", "dpm-2m"],
)
def test_second_order_samplers_ask_at_these_levels(sampler, levels):
    told = []

    def denoise(x, sigma):
        told.append(float(sigma[0]))
        return 0.1 * x

    sampler(denoise, column(1.0), [4.0, 1.0, 0.0])
    assert told == pytest.approx(levels)

"""Noise schedules: the published numbers, their ends, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.networks.noise import squared_cosine_betas
from policysmith.networks.schedules import (
    SCHEDULES,
    cosine_beta,
    exponential,
    improved_ddpm,
    karras,
    linear,
    schedule_named,
    variance_preserving,
)

BESO = {"sigma_min": 0.005, "sigma_max": 1.0}
EDM = {"sigma_min": 0.002, "sigma_max": 80.0}


@pytest.mark.parametrize(
    ("sigmas", "expected"),
    [
        (exponential(3, **BESO), [1, 0.070711, 0.005, 0]),
        (linear(3, **BESO), [1, 0.5025, 0.005, 0]),
        (karras(3, rho=5, **BESO), [1, 0.138356, 0.005, 0]),
        (karras(5, **EDM), [80, 17.52783, 2.515219, 0.169753, 0.002, 0]),
        (karras(4, **EDM), [80, 9.723201, 0.469979, 0.002, 0]),
    ],
    ids=["exponential", "linear", "karras", "karras-synther", "karras-pgd"],
)
def test_levels_are_the_published_ones(sigmas, expected):
    assert sigmas.tolist() == pytest.approx(expected, rel=1e-6, abs=5e-7)


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 30),
    name=st.sampled_from(["exponential", "linear", "karras", "variance_preserving"]),
    low=st.floats(1e-3, 0.5),
    ratio=st.floats(1.5, 1000),
)
def test_a_schedule_falls_from_the_highest_level_to_the_lowest_and_then_to_zero(steps, name, low, ratio):
    sigmas = schedule_named(name)(steps, sigma_min=low, sigma_max=low * ratio)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert float(sigmas[0]) == pytest.approx(low * ratio, rel=1e-6)
    assert steps == 1 or float(sigmas[-2]) == pytest.approx(low, rel=1e-6)
    assert float(sigmas[-1]) == 0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_one_step_is_from_about_the_highest_level_to_zero(name):
    first, last = schedule_named(name)(1, **BESO).tolist()
    assert first == pytest.approx(1, rel=0.01)
    assert last == 0


def test_karras_with_rho_one_is_linear_and_with_large_rho_exponential():
    torch.testing.assert_close(karras(6, rho=1, **BESO), linear(6, **BESO))
    torch.testing.assert_close(karras(6, rho=1e5, **BESO), exponential(6, **BESO), rtol=1e-3, atol=1e-6)


def test_variance_preserving_levels_are_even_in_the_time_of_their_process():
    def sigma(time: float) -> float:
        return math.sqrt(math.exp(19.9 * time**2 / 2 + 0.1 * time) - 1)

    sigmas = variance_preserving(5, sigma_min=sigma(1e-3), sigma_max=sigma(1.0))
    times = [1 - i * (1 - 1e-3) / 4 for i in range(5)]
    assert sigmas.tolist() == pytest.approx([*(sigma(time) for time in times), 0], rel=1e-6)


def test_improved_ddpm_takes_levels_of_the_cosine_schedule():
    # The signal left at level j of a thousand is sin^2(pi/2 j / 1008), relative to that at the clean end.
    sigmas = improved_ddpm(7, **BESO)[:-1]
    signal = math.sin(math.pi / 2 / 1.008) ** 2 / (1 + sigmas.square())
    level = torch.asin(signal.sqrt()) * 2 / math.pi * 1008
    torch.testing.assert_close(level, level.round(), atol=1e-6, rtol=0)
    assert bool((sigmas.diff() < 0).all())
    assert 0.005 <= float(sigmas[-1]) < 0.007
    assert 0.998 < float(sigmas[0]) <= 1


def test_improved_ddpm_has_no_more_levels_than_lie_in_the_range():
    with pytest.raises(SettingError, match="600 were asked for"):
        improved_ddpm(600, **BESO)


def test_cosine_beta_reads_betas_as_levels():
    assert cosine_beta(4, **BESO)[:-1].tolist() == squared_cosine_betas(4)[::-1]
    doubled = cosine_beta(4, sigma_min=0.005, sigma_max=2.0)
    torch.testing.assert_close(doubled, 2 * cosine_beta(4, **BESO))
    with pytest.raises(SettingError, match="goes down to") as caught:
        cosine_beta(50, **BESO)
    assert "fewer steps" in caught.value.cure


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(name, steps):
    with pytest.raises(SettingError, match=f"{steps} steps"):
        schedule_named(name)(steps, **BESO)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-0.1, 1.0), (0.1, math.inf), (math.nan, 1.0)]
)
def test_an_empty_range_or_a_level_of_zero_or_below_is_refused(name, low, high):
    with pytest.raises(SettingError, match="sigma_min") as caught:
        schedule_named(name)(3, sigma_min=low, sigma_max=high)
    assert caught.value.expected == "0 < sigma_min < sigma_max"


def test_rho_must_be_above_zero_and_unknown_names_are_told_the_known_ones():
    with pytest.raises(SettingError, match="rho"):
        karras(3, rho=0, **BESO)
    with pytest.raises(UnknownNameError, match="exponential"):
        schedule_named("expnential")

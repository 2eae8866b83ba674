"""Rectified flow: hand numbers, convergence with its order to what is exact for Gaussian data, times."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.networks.flow import (
    clean_from_velocity,
    even_times,
    flow_euler,
    flow_midpoint,
    interpolate,
    logit_normal_time,
    sway_times,
    uniform_time,
    velocity_from_clean,
)
from policysmith.networks.guidance import guided
from policysmith.networks.walk import holding

MEAN, DEVIATION = 0.3, 0.5


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(x: torch.Tensor, time: torch.Tensor, mean: float = MEAN) -> torch.Tensor:
    """The mean of clean - noise given x_t, where clean values are normal: mean 0.3, deviation 0.5."""
    t = time.view(-1, 1, 1)
    spread = t.square() * DEVIATION**2 + (1 - t).square()
    return mean + (t * DEVIATION**2 - (1 - t)) / spread * (x - t * mean)


def quantiles() -> torch.Tensor:
    return torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1)


def test_a_path_goes_straight_from_noise_to_data():
    clean, noise = torch.tensor([[[4.0]], [[4.0]], [[4.0]]]), torch.tensor([[[2.0]], [[2.0]], [[2.0]]])
    assert interpolate(clean, noise, torch.tensor([0.0, 0.25, 1.0])).flatten().tolist() == [2.0, 2.5, 4.0]


@pytest.mark.parametrize("sampler", [flow_euler(), flow_midpoint()], ids=["euler", "midpoint"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_single_data_point_is_reached_in_one_step(sampler, steps):
    noise, clean = torch.randn(4, 3, 2, generator=rng()), torch.randn(4, 3, 2, generator=rng(1))
    x = sampler(lambda x, time: clean - noise, noise, even_times(steps))
    torch.testing.assert_close(x, clean)


@pytest.mark.parametrize(("make", "order"), [(flow_euler, 1), (flow_midpoint, 2)])
def test_the_error_falls_with_the_order_of_the_sampler(make, order):
    """Data are -1 or 1. In one dimension a flow keeps the order: x_t has the quantile that the noise had."""

    def velocity(x, time):
        t = time.view(-1, 1, 1)
        return (torch.tanh(x * t / (1 - t).square()) - x) / (1 - t)

    def error(steps: int, time: float = 0.7) -> float:
        x = make()(velocity, quantiles(), time * even_times(steps))
        share = sum(torch.special.ndtr((x - time * clean) / (1 - time)) for clean in (-1, 1)) / 2
        return float((share - torch.special.ndtr(quantiles())).abs().max())

    errors = [error(steps) for steps in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert errors[-1] < (0.01 if order == 1 else 1e-4)


@pytest.mark.parametrize("sampler", [flow_euler(), flow_midpoint()], ids=["euler", "midpoint"])
def test_quantiles_of_the_noise_are_carried_to_quantiles_of_the_data(sampler):
    x = sampler(exact, quantiles(), even_times(200))
    torch.testing.assert_close(x, MEAN + DEVIATION * quantiles(), atol=0.01, rtol=0)


@pytest.mark.parametrize(("sampler", "calls"), [(flow_euler(), 5), (flow_midpoint(), 10)])
def test_network_calls_are_as_many_as_announced_and_none_is_at_the_end(sampler, calls):
    told = []

    def velocity(x, time):
        assert time.shape == (3,)
        told.append(float(time[0]))
        return x

    sampler(velocity, torch.ones(3, 4, 2), even_times(5))
    assert len(told) == calls == sampler.network_calls(5)
    assert min(told) == 0
    assert max(told) < 1


def test_a_walk_may_stop_early_and_go_on_to_the_same_result():
    times = even_times(8)
    start = quantiles()
    halfway = flow_euler()(exact, start, times[:4])
    on = flow_euler()(exact, halfway, times[3:])
    torch.testing.assert_close(on, flow_euler()(exact, start, times), rtol=0, atol=1e-15)


def test_held_positions_are_right_in_all_the_network_sees_and_in_the_result():
    where = torch.tensor([True, False, False]).view(1, 3, 1)

    def velocity(x, time):
        assert float(x[0, 0]) == 9.0
        return -x

    x = flow_midpoint()(velocity, torch.ones(1, 3, 1), even_times(4), keep=holding(where, torch.tensor(9.0)))
    assert float(x[0, 0]) == 9.0
    assert float(x[0, 1]) < 1


def test_the_estimate_of_the_clean_sample_is_the_velocity_followed_to_the_end():
    noise, clean = torch.randn(3, 2, 2, generator=rng()), torch.randn(3, 2, 2, generator=rng(1))
    time = torch.tensor([0.0, 0.3, 0.9])
    estimate = clean_from_velocity(lambda x, time: clean - noise)(interpolate(clean, noise, time), time)
    torch.testing.assert_close(estimate, clean)
    back = velocity_from_clean(clean_from_velocity(exact))
    x, time = torch.randn(3, 2, 2, generator=rng(2)), torch.tensor([0.0, 0.5, 0.95])
    torch.testing.assert_close(back(x, time), exact(x, time), atol=1e-5, rtol=1e-5)


def test_guiding_the_estimate_of_a_flow_is_exact_for_gaussian_data_and_a_linear_density():
    def variance(time):
        return DEVIATION**2 * (1 - time).square() / (time.square() * DEVIATION**2 + (1 - time).square())

    tilted = velocity_from_clean(
        guided(clean_from_velocity(exact), lambda clean: 1.7 * clean.sum(dim=(1, 2)), scale=variance)
    )
    x, time = torch.randn(3, 2, 2, generator=rng(), dtype=torch.float64), torch.tensor([0.0, 0.5, 0.9])
    torch.testing.assert_close(tilted(x, time.double()), exact(x, time.double(), MEAN + 1.7 * DEVIATION**2))


def test_gradients_reach_the_starting_noise():
    start = quantiles().requires_grad_()
    flow_midpoint()(exact, start, even_times(50)).sum().backward()
    torch.testing.assert_close(start.grad, torch.full_like(start, DEVIATION), atol=2e-3, rtol=0)


def test_times_are_drawn_uniformly_or_with_a_normal_logit():
    uniform = uniform_time()(50_000, rng())
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) <= 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.002)
    logits = torch.logit(logit_normal_time(-0.4, 0.8)(50_000, rng()).double())
    assert float(logits.mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(SettingError, match="logit"):
        logit_normal_time(0.0, 0.0)


def test_swayed_times_are_worked_by_hand():
    assert even_times(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert torch.equal(sway_times(4, sway=0), even_times(4))
    # sway -1: t = 1 - cos(pi u / 2)
    expected = [1 - math.cos(math.pi / 2 * u) for u in (0, 0.25, 0.5, 0.75, 1)]
    assert sway_times(4).tolist() == pytest.approx(expected, abs=1e-12)
    for sway in (-1.0, -0.3, 1.0, 1.75):
        times = sway_times(30, sway=sway)
        assert bool((times.diff() > 0).all())
        assert times[[0, -1]].tolist() == [0, 1]
    with pytest.raises(SettingError, match="sway"):
        sway_times(4, sway=-1.1)


@pytest.mark.parametrize(
    "times", [[0.0], [0.0, 0.5, 0.5, 1.0], [0.5, 0.2], [-0.1, 1.0], [0.0, 1.1], [math.nan, 1]]
)
def test_times_that_do_not_rise_from_noise_to_data_are_refused(times):
    with pytest.raises(SettingError, match="times of a flow"):
        flow_euler()(exact, quantiles(), times)


def test_no_steps_are_refused():
    with pytest.raises(SettingError, match="0 steps"):
        even_times(0)

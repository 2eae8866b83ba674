"""What all samplers have in common: holding positions, adjusting x, levels that fall to zero."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.networks.samplers import SAMPLERS, Churn, euler, heun, sampler_named
from policysmith.networks.schedules import exponential
from policysmith.networks.walk import Place, Sampler, holding

BESO = {"sigma_min": 0.005, "sigma_max": 1.0}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", [*(make() for make in SAMPLERS.values()), heun(Churn(80))])
def test_held_positions_are_right_in_all_the_network_sees_and_in_the_result(sampler):
    where = torch.zeros(1, 4, 1, dtype=torch.bool)
    where[:, :3] = True
    value = torch.randn(2, 4, 3, generator=rng(1))
    shown = []

    def denoise(x, sigma):
        shown.append(x)
        return x.mean(1, keepdim=True).expand_as(x)

    start = torch.randn(2, 4, 3, generator=rng(2))
    x = sampler(denoise, start, exponential(4, **BESO), rng=rng(), keep=holding(where, value))
    assert len(shown) == sampler.network_calls(4)
    for seen in [*shown, x]:
        assert torch.equal(seen[:, :3], value[:, :3])
        assert not torch.equal(seen[:, 3], value[:, 3])


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_held_positions_leave_the_others_as_if_the_network_had_always_known_them(name):
    """Holding two of three coordinates of a correlated Gaussian draws the third given them."""
    known = torch.tensor([[0.4, -0.2, 0.0]]).unsqueeze(-1)
    where = torch.tensor([True, True, False]).view(1, 3, 1)

    def denoise(x, sigma):  # the third coordinate is the sum of the clean first two
        return torch.cat([x[:, :2], x[:, :2].sum(1, keepdim=True)], dim=1)

    start = torch.randn(1, 3, 1, generator=rng())
    x = sampler_named(name)(denoise, start, exponential(5, **BESO), rng=rng(), keep=holding(where, known))
    torch.testing.assert_close(x.flatten(), torch.tensor([0.4, -0.2, 0.2]))


def test_a_keep_of_ones_own_is_told_the_level_and_at_the_end_zero():
    told = []

    def keep(x, level):
        told.append(level)
        return x

    euler()(lambda x, sigma: x, torch.ones(1, 1, 1), [2.0, 1.0, 0.0], keep=keep)
    assert sorted(set(told), reverse=True) == [2.0, 1.0, 0.0]
    assert told[-1] == 0.0


def test_adjusting_moves_x_once_before_each_step():
    """With D = 0 a step multiplies x by sigma' / sigma: here it halves what it finds."""
    start, moves = torch.zeros(1, 1, 1, dtype=torch.float64), []

    def adjust(x, index):
        moves.append((index, float(x)))
        return x + 1.0 if index < 2 else x

    x = heun()(lambda x, sigma: torch.zeros_like(x), start, [4.0, 2.0, 1.0, 0.0], adjust=adjust)
    assert [index for index, _ in moves] == [0, 1, 2]
    assert [value for _, value in moves] == pytest.approx([0.0, 0.5, 0.75])
    assert float(x) == 0.0


def test_what_is_adjusted_has_its_positions_held_before_and_after():
    value, where = torch.full((1, 2, 1), 5.0), torch.tensor([True, False]).view(1, 2, 1)
    seen = []

    def adjust(x, index):
        seen.append(x)
        return x + 1

    def denoise(x, sigma):
        assert float(x[0, 0]) == 5.0
        return x

    x = euler()(denoise, torch.zeros(1, 2, 1), [1.0, 0.5, 0.0], keep=holding(where, value), adjust=adjust)
    assert [float(x[0, 0]) for x in seen] == [5.0, 5.0]
    assert x.flatten().tolist() == [5.0, 2.0]


def test_rows_of_a_batch_do_not_mix():
    def denoise(x, sigma):
        return torch.tanh(x) * sigma.view(-1, 1, 1)

    start, sigmas = torch.randn(5, 3, 2, generator=rng()), exponential(4, **BESO)
    for name in ("ddim", "heun", "dpm_solver_plus_2m"):
        whole = sampler_named(name)(denoise, start, sigmas)
        torch.testing.assert_close(sampler_named(name)(denoise, start[3:4], sigmas), whole[3:4])


def test_a_rule_of_ones_own_is_told_where_it_stands():
    places: list[Place] = []

    def step(place: Place):
        places.append(place)
        clean = place.denoise(place.x, place.sigma)
        return place.x - 1, clean

    x = Sampler(step)(lambda x, sigma: 10 * x, torch.full((1, 1, 1), 3.0), [2.0, 1.0, 0.0])
    assert float(x) == 1.0
    assert [(place.sigma, place.after, place.index) for place in places] == [(2.0, 1.0, 0), (1.0, 0.0, 1)]
    assert places[0].previous is None
    assert float(places[1].previous) == 30.0


@pytest.mark.parametrize(
    "sigmas", [[1.0], [1.0, 0.5], [0.5, 1.0, 0.0], [1.0, 1.0, 0.0], [math.inf, 1.0, 0.0], [math.nan, 0.0], []]
)
def test_levels_that_do_not_fall_to_zero_are_refused(sigmas):
    with pytest.raises(SettingError, match="noise levels of a walk") as caught:
        euler()(lambda x, sigma: x, torch.ones(1, 1, 1), sigmas)
    assert "schedule" in caught.value.cure


def test_the_start_is_not_written_to():
    start = torch.ones(2, 3, 1)
    euler()(lambda x, sigma: 0.5 * x, start, [1.0, 0.5, 0.0])
    assert torch.equal(start, torch.ones(2, 3, 1))

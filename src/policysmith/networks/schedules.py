"""Noise schedules: the levels sigma_0 > sigma_1 > ... > 0 that a sampler walks down, chosen after training.

A schedule is a function `(steps, sigma_min=, sigma_max=) -> sigmas [steps + 1]` (float64): `steps` levels
from about `sigma_max` to about `sigma_min`, then 0, so that a sampler takes `steps` steps. The
variance-exploding schedule of Song et al. is the exponential one. All raise `SettingError` unless there is at
least one step and 0 < sigma_min < sigma_max.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.networks.noise import squared_cosine_betas


class Schedule(Protocol):
    """(steps, sigma_min, sigma_max) -> falling levels [steps + 1], the last 0."""

    def __call__(self, steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
        """The levels, float64."""
        ...


def exponential(steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
    """Each level is the same fraction of the one before: even steps in ln sigma.

    Source: Song et al. 2021 (score-based generative modelling through SDEs), the variance-exploding SDE.
    """
    share = _share(steps, sigma_min, sigma_max)
    return _with_zero(torch.exp(math.log(sigma_max) + share * math.log(sigma_min / sigma_max)))


def linear(steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
    """Even steps in sigma."""
    return _with_zero(sigma_max + _share(steps, sigma_min, sigma_max) * (sigma_min - sigma_max))


def karras(steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float[Tensor, "levels"]:
    """Even steps in sigma^(1/rho): the larger `rho` (above 0), the more of the levels are small.

    Source: Karras et al. 2022 (EDM), equation 5.
    """
    if not rho > 0:
        raise SettingError(f"the schedule's rho is {rho}", expected="above 0 (7 as in EDM)")
    most, least = sigma_max ** (1 / rho), sigma_min ** (1 / rho) if sigma_min > 0 else 0.0
    return _with_zero((most + _share(steps, sigma_min, sigma_max) * (least - most)) ** rho)


_SLOWEST, _RISE = 0.1, 19.9
"""Rate of the variance-preserving SDE at time 0, and how much it rises until time 1."""


def variance_preserving(steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
    """Even steps in the time t of the variance-preserving SDE, sigma(t)^2 = exp(19.9 t^2 / 2 + 0.1 t) - 1.

    The SDE's own range, t from 1 to 1/1000, is sigma from 152.2 to 0.0105. Source: Song et al. 2021; Karras
    et al. 2022, table 1.
    """

    def time(sigma: float) -> float:
        return (math.sqrt(_SLOWEST**2 + 2 * _RISE * math.log1p(sigma**2)) - _SLOWEST) / _RISE

    share = _share(steps, sigma_min, sigma_max)
    times = time(sigma_max) + share * (time(sigma_min) - time(sigma_max))
    return _with_zero(torch.expm1(_RISE * times.square() / 2 + _SLOWEST * times).sqrt())


def improved_ddpm(steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
    """Evenly chosen among those of the cosine schedule's thousand levels that lie in the range.

    Raises `SettingError` where fewer than `steps` of them do. Source: Nichol and Dhariwal 2021, in the form
    of Karras et al. 2022, table 1 (C_1 = 0.001, C_2 = 0.008).
    """
    share = _share(steps, sigma_min, sigma_max)
    levels = [sigma for sigma in _cosine_levels(1000) if sigma_min <= sigma <= sigma_max]
    if len(levels) < steps:
        raise SettingError(
            f"the improved-DDPM schedule has {len(levels)} levels between {sigma_min} and {sigma_max}, and "
            f"{steps} were asked for",
            expected="no more steps than levels",
        )
    index = torch.floor(share * (len(levels) - 1) + 0.5).long()
    return _with_zero(torch.tensor(levels, dtype=torch.float64)[index])


def cosine_beta(steps: int, *, sigma_min: float, sigma_max: float) -> Float[Tensor, "levels"]:
    """The betas of the cosine schedule, last first, as fractions of `sigma_max`.

    BESO's code reads betas as sigmas (with sigma_max = 1); it is here to be compared with. The levels do not
    depend on `sigma_min`, below which a network was not trained: `SettingError` where the last one falls
    below. Source: Reuss et al. 2023 (BESO), their code.
    """
    _share(steps, sigma_min, sigma_max)
    levels = sigma_max * torch.tensor(squared_cosine_betas(steps), dtype=torch.float64).flip(0)
    if float(levels[-1]) < sigma_min:
        raise SettingError(
            f"the cosine-beta schedule of {steps} steps goes down to {float(levels[-1]):.3g}",
            expected=f"no lower than sigma_min = {sigma_min}",
            cure="take fewer steps, or another schedule",
        )
    return _with_zero(levels)


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "exponential": exponential,
        "linear": linear,
        "karras": karras,
        "variance_exploding": exponential,
        "variance_preserving": variance_preserving,
        "improved_ddpm": improved_ddpm,
        "cosine_beta": cosine_beta,
    }
)
"""The schedules by name, for settings."""


def schedule_named(name: str) -> Schedule:
    """The schedule of this name; `UnknownNameError` listing the names there are."""
    if name not in SCHEDULES:
        raise UnknownNameError(f"no noise schedule is called '{name}'", expected=f"one of {list(SCHEDULES)}")
    return SCHEDULES[name]


def check_sigma_range(sigma_min: float, sigma_max: float) -> None:
    """Raise `SettingError` unless 0 < sigma_min < sigma_max and both are finite."""
    if not (0 < sigma_min < sigma_max < math.inf):
        raise SettingError(
            f"the noise range goes from sigma_min = {sigma_min} to sigma_max = {sigma_max}",
            expected="0 < sigma_min < sigma_max",
        )


def _share(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """How far along each level is, 0 for the first and 1 for the last; checks the arguments of a schedule."""
    if steps < 1:
        raise SettingError(f"a noise schedule of {steps} steps was asked for", expected="at least one step")
    check_sigma_range(sigma_min, sigma_max)
    return torch.linspace(0, 1, steps, dtype=torch.float64)


def _with_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _cosine_levels(count: int) -> list[float]:
    """The cosine schedule's levels as sigmas, from the highest down; 0 is left out."""

    def signal(index: int) -> float:
        return math.sin(math.pi / 2 * index / count / 1.008) ** 2

    sigmas = [0.0]
    for index in range(count, 0, -1):
        kept = max(signal(index - 1) / signal(index), 0.001)
        sigmas.append(math.sqrt((sigmas[-1] ** 2 + 1) / kept - 1))
    return sigmas[:0:-1]

"""Samplers over continuous noise levels: from noise at sigma_0 down a schedule to a clean sample.

They stand on a bound denoiser D(x, sigma) alone, an estimate of the clean sample, and follow

    dx / dsigma = (x - D(x, sigma)) / sigma,

some of them adding noise and taking it away again. A sampler is chosen after training:

    sample = heun()
    x = sample(denoise, sigmas[0] * noise, sigmas)

`walk` says what every sampler can do besides: hold positions, adjust x before each step, count its calls.

Sources: Karras et al. 2022 (EDM); Song et al. 2021 (DDIM); Lu et al. 2022 (DPM-Solver, DPM-Solver++).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.networks.walk import Place, Sampler

# ---- first order -------------------------------------------------------------------------------------


def ddim() -> Sampler:
    """x <- r x + (1 - r) D with r = sigma_next / sigma: at sigma_next = 0 it returns D exactly.

    DPM-Solver-1 by another name, and Euler without churn in these coordinates. Source: Song et al. 2021.
    """

    def step(place: Place) -> tuple[Tensor, Tensor]:
        clean = place.denoise(place.x, place.sigma)
        return _toward(place.x, clean, place.sigma, place.after), clean

    return Sampler(step)


@dataclass(frozen=True)
class Churn:
    """Noise added before a step and removed by it, which corrects errors of earlier steps.

    At a level in [`lowest`, `highest`] sigma grows by the factor 1 + min(amount / steps, sqrt(2) - 1), and
    the noise that is added is `inflation` times as large as that asks for. Source: Karras et al. 2022,
    algorithm 2 (S_churn, S_tmin, S_tmax, S_noise).
    """

    amount: float = 0.0
    lowest: float = 0.0
    highest: float = math.inf
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.amount >= 0 and self.inflation >= 0 and 0 <= self.lowest <= self.highest):
            raise SettingError(
                f"the churn is {self}", expected="nothing below 0, and lowest no larger than highest"
            )

    def apply(self, place: Place) -> tuple[Tensor, float]:
        """x with the noise added, and its level."""
        rise = min(self.amount / (len(place.sigmas) - 1), math.sqrt(2) - 1)
        if rise == 0 or not self.lowest <= place.sigma <= self.highest:
            return place.x, place.sigma
        raised = place.sigma * (1 + rise)
        added = math.sqrt(raised**2 - place.sigma**2) * self.inflation
        return place.x + added * place.normal(), raised


def euler(churn: Churn = Churn()) -> Sampler:
    """Steps along the slope at the level that is left, with churn if asked for."""

    def step(place: Place) -> tuple[Tensor, Tensor]:
        x, sigma = churn.apply(place)
        clean = place.denoise(x, sigma)
        return _toward(x, clean, sigma, place.after), clean

    return Sampler(step, deterministic=churn.amount == 0)


def euler_ancestral(eta: float = 1.0) -> Sampler:
    """Euler down to below the next level, then noise up to it; `eta` 0 is Euler, 1 the ancestral process.

    With s the level and s' the next: up = min(s', eta s' sqrt(s^2 - s'^2) / s), down = sqrt(s'^2 - up^2).
    Source: Song et al. 2021, equation 16, in the coordinates of Karras et al. 2022.
    """
    if not eta >= 0:
        raise SettingError(f"eta of the ancestral sampler is {eta}", expected="0 or more (1 as a rule)")

    def step(place: Place) -> tuple[Tensor, Tensor]:
        clean = place.denoise(place.x, place.sigma)
        down, up = ancestral_levels(place.sigma, place.after, eta=eta)
        x = _toward(place.x, clean, place.sigma, down)
        return (x + up * place.normal() if up > 0 and place.after > 0 else x), clean

    return Sampler(step, deterministic=eta == 0)


def ancestral_levels(sigma: float, after: float, *, eta: float = 1.0) -> tuple[float, float]:
    """(level to step down to, deviation of the noise to add), which together make `after`."""
    up = min(after, eta * after * math.sqrt(sigma**2 - after**2) / sigma)
    return math.sqrt(after**2 - up**2), up


# ---- second order ------------------------------------------------------------------------------------


def heun(churn: Churn = Churn()) -> Sampler:
    """Euler, then again with the mean of the slopes at both ends; plain Euler to 0. Two calls per step.

    Source: Karras et al. 2022, algorithm 2.
    """

    def step(place: Place) -> tuple[Tensor, Tensor]:
        x, sigma = churn.apply(place)
        after = place.after
        clean = place.denoise(x, sigma)
        reached = _toward(x, clean, sigma, after)
        if after == 0:
            return reached, clean
        slope = (x - clean) / sigma + (reached - place.denoise(reached, after)) / after
        return x + (after - sigma) / 2 * slope, clean

    return Sampler(step, calls=2, deterministic=churn.amount == 0)


def dpm_solver_2(churn: Churn = Churn()) -> Sampler:
    """The slope half way in ln sigma, for the whole step; plain Euler to 0. Two calls per step.

    Source: Lu et al. 2022 (DPM-Solver), algorithm 1, in the coordinates of Karras et al. 2022.
    """

    def step(place: Place) -> tuple[Tensor, Tensor]:
        x, sigma = churn.apply(place)
        clean = place.denoise(x, sigma)
        if place.after == 0:
            return _toward(x, clean, sigma, 0.0), clean
        middle = math.sqrt(sigma * place.after)
        halfway = _toward(x, clean, sigma, middle)
        slope = (halfway - place.denoise(halfway, middle)) / middle
        return x + (place.after - sigma) * slope, clean

    return Sampler(step, calls=2, deterministic=churn.amount == 0)


def dpm_solver_plus_2s() -> Sampler:
    """DPM-Solver++(2S): the estimate half way in ln sigma, for the whole step. Two calls per step, one to 0.

    Source: Lu et al. 2022 (DPM-Solver++), algorithm 1.
    """

    def step(place: Place) -> tuple[Tensor, Tensor]:
        x, sigma = place.x, place.sigma
        clean = place.denoise(x, sigma)
        if place.after > 0:
            middle = math.sqrt(sigma * place.after)
            clean = place.denoise(_toward(x, clean, sigma, middle), middle)
        return _toward(x, clean, sigma, place.after), clean

    return Sampler(step, calls=2)


def dpm_solver_plus_2m() -> Sampler:
    """DPM-Solver++(2M): extrapolates from this estimate and the one before, so one call per step is enough.

    With h the step in -ln sigma, D + (h / 2 h_before) (D - D_before) takes the place of D; the first step and
    the step to 0 are DDIM's. Source: Lu et al. 2022 (DPM-Solver++), algorithm 2.
    """

    def step(place: Place) -> tuple[Tensor, Tensor]:
        clean = place.denoise(place.x, place.sigma)
        toward = clean
        if place.previous is not None and place.after > 0:
            before = place.sigmas[place.index - 1]
            ratio = math.log(place.sigma / place.after) / math.log(before / place.sigma)
            toward = clean + ratio / 2 * (clean - place.previous)
        return _toward(place.x, toward, place.sigma, place.after), clean

    return Sampler(step)


SAMPLERS: Mapping[str, Callable[[], Sampler]] = MappingProxyType(
    {
        "ddim": ddim,
        "euler": euler,
        "euler_ancestral": euler_ancestral,
        "heun": heun,
        "dpm_solver_2": dpm_solver_2,
        "dpm_solver_plus_2s": dpm_solver_plus_2s,
        "dpm_solver_plus_2m": dpm_solver_plus_2m,
    }
)
"""The samplers by name with their default options, for settings."""


def sampler_named(name: str) -> Sampler:
    """The sampler of this name; `UnknownNameError` listing the names there are."""
    if name not in SAMPLERS:
        raise UnknownNameError(f"no sampler is called '{name}'", expected=f"one of {list(SAMPLERS)}")
    return SAMPLERS[name]()


def _toward(x: Tensor, clean: Tensor, sigma: float, after: float) -> Tensor:
    """From level sigma to `after` where the clean sample is known: the noise shrinks in proportion."""
    ratio = after / sigma
    return ratio * x + (1 - ratio) * clean

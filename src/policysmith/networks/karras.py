"""Continuous noise levels: a denoiser well scaled at every sigma, and the densities sigma is drawn from.

A noisy sample is x = clean + sigma noise. Around a network F, with d the deviation of the data,

    D(x; sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4),
    c_skip = d^2 / (sigma^2 + d^2),  c_out = sigma d / sqrt(sigma^2 + d^2),  c_in = 1 / sqrt(sigma^2 + d^2),

so that what F is shown and what it has to say have variance one at every level. D estimates the clean sample;
samplers, guidance and losses need nothing else.

Source: Karras et al. 2022 (EDM), table 1 and equation 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import BoundDenoiser, Denoiser
from policysmith.networks.schedules import check_sigma_range

SigmaDensity = Callable[[int, torch.Generator], Tensor]
"""(batch, rng) -> levels sigma [batch], on the generator's device."""

_SMALLEST = 1e-20
"""The network is told this sigma where a position is clean; D is then x itself, whatever it answers."""


@saveable
class KarrasDenoiser(Denoiser):
    """A network preconditioned for continuous noise: (noisy, sigma, condition) -> clean estimate.

    `sigma_data` is the deviation of the clean samples (0.5 where they lie in [-1, 1], 1 where they are
    standardised). Sizes, level positions and the lengths it takes are the network's.
    """

    def __init__(self, network: Denoiser, *, sigma_data: float) -> None:
        super().__init__(
            network.action_size,
            network.horizon,
            network.condition_size,
            level_positions=network.level_positions,
        )
        if not 0 < sigma_data < math.inf:
            raise SettingError(f"sigma_data is {sigma_data}", expected="above 0: the deviation of the data")
        self.network = network
        self.sigma_data = sigma_data

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        level: Float[Tensor, "batch"] | Float[Tensor, "batch horizon"],
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch horizon action"]:
        """Estimate the clean sample; `level` is sigma itself, 0 where a position is clean and stays."""
        level = self.check(noisy, level, condition)
        return self._precondition(noisy, level, lambda shown, told: self.network(shown, told, condition))

    def bind(self, condition: Float[Tensor, "batch condition"]) -> BoundDenoiser:
        """A function (noisy, sigma) -> estimate of the clean sample, with what the network does once done."""
        network = self.network.bind(condition)

        def denoise(noisy: Tensor, level: Tensor) -> Tensor:
            return self._precondition(noisy, self.check(noisy, level, condition), network)

        return denoise

    def check(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """As the network checks it: some take sequences shorter than the horizon."""
        return self.network.check(noisy, level, condition)

    def _precondition(self, noisy: Tensor, sigma: Tensor, network: BoundDenoiser) -> Tensor:
        skip, out, into = (_like(value, noisy) for value in scalings(sigma, sigma_data=self.sigma_data))
        return skip * noisy + out * network(into * noisy, sigma.clamp(min=_SMALLEST).log() / 4)


def scalings(
    sigma: Float[Tensor, "*shape"], *, sigma_data: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """(c_skip, c_out, c_in) at each level. Source: Karras et al. 2022, table 1."""
    spread = (sigma.square() + sigma_data**2).sqrt()
    return (sigma_data / spread).square(), sigma * sigma_data / spread, 1 / spread


def add_noise(
    clean: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "batch *shape"],
    sigma: Float[Tensor, "batch"] | Float[Tensor, "batch horizon"],
) -> Float[Tensor, "batch *shape"]:
    """clean + sigma noise, sigma per sample or per position."""
    return clean + _like(sigma, clean) * noise


def log_normal(mean: float = -1.2, deviation: float = 1.2) -> SigmaDensity:
    """ln sigma is normal; the defaults are EDM's. Source: Karras et al. 2022, table 1."""
    if not deviation > 0:
        raise SettingError(f"the deviation of ln sigma is {deviation}", expected="above 0")

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        return torch.exp(mean + deviation * torch.randn(batch, generator=rng, device=rng.device))

    return draw


def log_logistic(*, sigma_min: float, sigma_max: float, location: float, scale: float = 0.5) -> SigmaDensity:
    """ln sigma is logistic around `location` with the given scale, cut off outside the range.

    BESO puts the location at ln(sigma_data). `SettingError` unless 0 < sigma_min < sigma_max and scale > 0.
    Source: Reuss et al. 2023 (BESO), section on training; the density is that of Crowson's k-diffusion.
    """
    check_sigma_range(sigma_min, sigma_max)
    if not scale > 0:
        raise SettingError(f"the scale of ln sigma is {scale}", expected="above 0")

    def below(sigma: float) -> float:
        return 1 / (1 + math.exp((location - math.log(sigma)) / scale))

    low, high = below(sigma_min), below(sigma_max)

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        # In double precision, in which the tails of the logistic are still told apart.
        uniform = torch.rand(batch, generator=rng, device=rng.device, dtype=torch.float64)
        sigma = torch.exp(location + scale * torch.logit(low + (high - low) * uniform))
        return sigma.float().clamp(sigma_min, sigma_max)

    return draw


def _like(value: Tensor, sample: Tensor) -> Tensor:
    """A value per sample or position, with trailing axes until it broadcasts against the sample."""
    return value.reshape(*value.shape, *[1] * (sample.dim() - value.dim()))

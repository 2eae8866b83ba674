"""A diffusion model of single transitions: whole rows (s, a, r, s', d) are denoised at once.

    loss = (sigma^2 + 1) / sigma^2  |D(z + sigma n; sigma) - z|^2 / columns,    ln sigma ~ N(-1.2, 1.2^2)

with D the preconditioned denoiser of `networks.karras`. Rows are drawn by the stochastic sampler of second
order, which adds a little noise at every step and so corrects the errors of the steps before.

Source: Lu et al. 2023 (SynthER), section 3 and appendix B; Karras et al. 2022 (EDM), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.saving import saveable
from policysmith.networks.karras import KarrasDenoiser, add_noise, log_normal
from policysmith.networks.rows import RowDenoiser
from policysmith.networks.samplers import Churn, heun
from policysmith.networks.schedules import karras
from policysmith.objectives.denoising import preconditioned_error
from policysmith.synthesis.generator import GeneratorSettings, TransitionModel, generator_run
from policysmith.synthesis.rows import Layout
from policysmith.training.loop import Progress, RunState

SIGMA_DATA, SIGMA_MIN, SIGMA_MAX = 1.0, 0.002, 80.0
"""Deviation of the standardised columns, and the range of noise."""


@dataclass(frozen=True)
class DiffusionSettings(GeneratorSettings):
    """Settings of the diffusion model beside those of `GeneratorSettings`.

    - `width`, `depth`, `level_size`: of the residual MLP, see `RowDenoiser`.
    - `sampling_steps`: levels that a sample is walked down.
    - `churn`: the noise added on the way as a total over all steps, the lowest and highest level at which it
      is added, and by what factor it is inflated (S_churn, S_tmin, S_tmax, S_noise).

    The defaults are the authors' (config/resmlp_denoiser.gin).
    """

    width: int = 2048
    depth: int = 6
    level_size: int = 128
    sampling_steps: int = 128
    churn: tuple[float, float, float, float] = (80.0, 0.05, 50.0, 1.003)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "depth", "level_size", "sampling_steps"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        Churn(*self.churn)


@saveable
class TransitionDiffusion(TransitionModel):
    """Makes transitions by diffusion; arguments as in `DiffusionSettings`."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        terminals: bool = True,
        bounded: bool = False,
        width: int = DiffusionSettings.width,
        depth: int = DiffusionSettings.depth,
        level_size: int = DiffusionSettings.level_size,
        sampling_steps: int = DiffusionSettings.sampling_steps,
        churn: tuple[float, ...] = DiffusionSettings.churn,
    ) -> None:
        super().__init__(observation_size, action_size, terminals=terminals, bounded=bounded)
        network = RowDenoiser(self.layout.size, width=width, depth=depth, level_size=level_size)
        self.denoiser = KarrasDenoiser(network, sigma_data=SIGMA_DATA)
        self.sampler = heun(Churn(*churn))
        self.sigmas = karras(sampling_steps, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX)

    def forward(
        self, noisy: Float[Tensor, "row column"], sigma: Float[Tensor, "row"]
    ) -> Float[Tensor, "row column"]:
        """Estimate the clean scaled rows."""
        return self.denoiser(noisy[:, None], sigma, noisy.new_empty(len(noisy), 0))[:, 0]

    def draw(self, count: int, *, rng: torch.Generator) -> Float[Tensor, "row column"]:
        """So many scaled rows, walked down from noise."""
        noise = torch.randn(count, self.layout.size, generator=rng, device=rng.device)
        start = float(self.sigmas[0]) * noise.to(self.normalizer.scale.device)
        return self.sampler(self, start, self.sigmas.tolist(), rng=rng)


def diffusion_loss(
    model: TransitionDiffusion, batch: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """The preconditioned error per row; the batch holds `row` (scaled), `noise` and `sigma`."""
    row, sigma = batch["row"], batch["sigma"]
    estimate = model(add_noise(row, batch["noise"], sigma), sigma)
    return preconditioned_error(estimate, row, sigma, sigma_data=SIGMA_DATA), {}


def diffusion_run(
    transitions: Mapping[str, Tensor],
    *,
    settings: DiffusionSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit a diffusion model to transitions, from scratch; see `generator_run`."""
    layout = Layout.of(transitions, terminals=settings.terminals)
    with seeded_initialisation(seed):
        model = TransitionDiffusion(
            layout.observation_size,
            layout.action_size,
            terminals=settings.terminals,
            bounded=settings.range_scaled,
            width=settings.width,
            depth=settings.depth,
            level_size=settings.level_size,
            sampling_steps=settings.sampling_steps,
            churn=settings.churn,
        )
    density = log_normal()

    def prepare(rows: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(rows.shape, generator=rng)
        return {"noise": noise, "sigma": density(len(rows), rng)}

    return generator_run(
        model, diffusion_loss, transitions, prepare=prepare, settings=settings, seed=seed, state=state
    )

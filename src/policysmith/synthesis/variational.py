"""A variational autoencoder of single transitions: what diffusion is compared with.

    loss = |z - decode(h)|^2 / 2 + beta KL(N(mean(z), deviation(z)^2) || N(0, 1)),    h = mean + deviation n

Rows are made by decoding h ~ N(0, 1), without the noise that the squared error stands for.

Source: Kingma and Welling 2014, equation 10.
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
from policysmith.networks.mlp import mlp
from policysmith.synthesis.generator import GeneratorSettings, TransitionModel, generator_run
from policysmith.synthesis.rows import Layout
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class VariationalSettings(GeneratorSettings):
    """Settings of the autoencoder beside those of `GeneratorSettings`.

    - `hidden`: widths of the encoder's hidden layers and, reversed, of the decoder's.
    - `latent_size`: numbers in a code; None takes twice as many as an observation and an action have.
    - `beta`: what the divergence of the code counts.
    """

    hidden: tuple[int, ...] = (256, 256)
    latent_size: int | None = None
    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_size is not None and self.latent_size < 1:
            raise SettingError(f"latent_size is {self.latent_size}", expected="at least 1")
        if not self.beta >= 0:
            raise SettingError(f"beta is {self.beta}", expected="0 or more")


@saveable
class TransitionAutoencoder(TransitionModel):
    """Makes transitions by decoding normal noise; arguments as in `VariationalSettings`."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        terminals: bool = True,
        bounded: bool = False,
        hidden: tuple[int, ...] = VariationalSettings.hidden,
        latent_size: int = 16,
    ) -> None:
        super().__init__(observation_size, action_size, terminals=terminals, bounded=bounded)
        self.latent_size = latent_size
        self.encoder = mlp([self.layout.size, *hidden, 2 * latent_size])
        self.decoder = mlp([latent_size, *reversed(hidden), self.layout.size])

    def forward(
        self, row: Float[Tensor, "row column"], noise: Float[Tensor, "row latent"]
    ) -> tuple[Float[Tensor, "row column"], Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        """(decoded row, mean of the code, logarithm of its deviation)."""
        mean, log_deviation = self.encoder(row).chunk(2, dim=1)
        log_deviation = log_deviation.clamp(-8.0, 4.0)
        return self.decoder(mean + log_deviation.exp() * noise), mean, log_deviation

    def draw(self, count: int, *, rng: torch.Generator) -> Float[Tensor, "row column"]:
        """So many scaled rows, decoded."""
        code = torch.randn(count, self.latent_size, generator=rng, device=rng.device)
        return self.decoder(code.to(self.normalizer.scale.device))


def variational_loss(
    model: TransitionAutoencoder, batch: Mapping[str, Tensor], *, beta: float
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Half the squared error plus `beta` times the divergence, per row, and the divergence in nats."""
    decoded, mean, log_deviation = model(batch["row"], batch["noise"])
    divergence = ((2 * log_deviation).exp() + mean.square() - 1 - 2 * log_deviation).sum(1) / 2
    return (decoded - batch["row"]).square().sum(1) / 2 + beta * divergence, {"divergence": divergence}


def variational_run(
    transitions: Mapping[str, Tensor],
    *,
    settings: VariationalSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit an autoencoder to transitions; see `generator_run`."""
    layout = Layout.of(transitions, terminals=settings.terminals)
    latent_size = settings.latent_size or 2 * (layout.observation_size + layout.action_size)
    with seeded_initialisation(seed):
        model = TransitionAutoencoder(
            layout.observation_size,
            layout.action_size,
            terminals=settings.terminals,
            bounded=settings.range_scaled,
            hidden=settings.hidden,
            latent_size=latent_size,
        )
    return generator_run(
        model,
        lambda model, batch: variational_loss(model, batch, beta=settings.beta),
        transitions,
        prepare=lambda rows, rng: {"noise": torch.randn(len(rows), latent_size, generator=rng)},
        settings=settings,
        seed=seed,
        state=state,
    )

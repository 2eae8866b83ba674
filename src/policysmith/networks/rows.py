"""A denoiser of single rows: a residual MLP for vectors that have no order and no neighbours in time.

A transition, a state, a set of latents is one such row. The network has no normalisation layers and is wide
rather than deep: x <- x + Linear(relu(x)), a few times.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.saving import saveable
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.embeddings import RandomFourierEmbedding


@saveable
class RowDenoiser(Denoiser):
    """A denoiser of rows of `size` numbers (a sequence of one position, without a condition).

    The row goes through Linear to `level_size` and has the embedded level added to it, then through Linear to
    `width`, `depth` residual layers, ReLU and Linear back. The level is embedded by `frequencies` random
    Fourier features, Linear to `level_size`, SiLU and Linear. Source: Lu et al. 2023 (SynthER), appendix B
    and their code.
    """

    def __init__(
        self, size: int, *, width: int = 2048, depth: int = 6, level_size: int = 128, frequencies: int = 16
    ) -> None:
        super().__init__(size, 1, 0)
        self.level_encoder = nn.Sequential(
            RandomFourierEmbedding(frequencies),
            nn.Linear(frequencies + 1, level_size),
            nn.SiLU(),
            nn.Linear(level_size, level_size),
        )
        self.input = nn.Linear(size, level_size)
        self.widen = nn.Linear(level_size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.output = nn.Linear(width, size)

    def forward(
        self,
        noisy: Float[Tensor, "batch 1 size"],
        level: Float[Tensor, "batch"],
        condition: Float[Tensor, "batch 0"],
    ) -> Float[Tensor, "batch 1 size"]:
        """Predict from noisy rows; see `Denoiser.forward`."""
        level = self.check(noisy, level, condition)
        hidden = self.widen(self.input(noisy[:, 0]) + self.level_encoder(level))
        for layer in self.layers:
            hidden = hidden + layer(torch.relu(hidden))
        return self.output(torch.relu(hidden))[:, None]

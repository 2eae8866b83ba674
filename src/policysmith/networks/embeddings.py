"""Embeddings of scalars as vectors: what tells a network at which noise level, time or position it is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError


class SinusoidalEmbedding(nn.Module):
    """Sines then cosines of a value at size/2 frequencies from 1 down to 1/10000; nothing is learnt.

    With half = size/2, frequency i is exp(-ln(10000) i / (half - 1)), as Diffusion Policy has it.
    `SettingError` unless the size is even and at least 4.
    """

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 4 or size % 2:
            raise SettingError(
                f"a sinusoidal embedding of size {size} was asked for", expected="an even size of at least 4"
            )
        index = torch.arange(size // 2)
        frequencies = torch.exp(index * (-math.log(10_000) / (size // 2 - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, value: Tensor) -> Float[Tensor, "*shape size"]:
        """Embed values (integer or float) of any shape."""
        angle = value.unsqueeze(-1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

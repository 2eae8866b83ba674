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


class ScalarEncoding(nn.Module):
    """A scalar setting as sines and cosines in turn, at size/2 frequencies from 1 down; nothing is learnt.

        e[2i] = sin(x / base^(2i / size)),   e[2i + 1] = cos(x / base^(2i / size))

    It is how a policy is told a number that it is conditioned on (a balance, a preference): neighbouring
    numbers look alike, and all entries stay in [-1, 1] whatever the number's range. `SettingError` unless
    the size is even and positive and the base above 1. Source: Vaswani et al. 2017, section 3.5, with the
    scalar in place of the position; so FamO2O (Wang et al. 2023) encodes its balance coefficient.
    """

    frequencies: Tensor

    def __init__(self, size: int = 6, *, base: float = 10_000.0) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise SettingError(
                f"an encoding of size {size} was asked for",
                expected="the encoding size must be even, from 2 on",
            )
        if not 1 < base < math.inf:
            raise SettingError(f"the base of an encoding is {base}", expected="finite, and above 1")
        self.size = size
        exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
        self.register_buffer("frequencies", (base**-exponents).float(), persistent=False)

    def forward(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape size"]:
        """Encode scalars of any shape."""
        angle = value.unsqueeze(-1) * self.frequencies
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class RandomFourierEmbedding(nn.Module):
    """A value itself, then sines and cosines of 2 pi w value at size/2 frequencies w drawn from N(0, 1).

    The frequencies stay as they were drawn and are saved with the weights. The result is one wider than
    `size`. `SettingError` unless the size is even and at least 2. Source: Tancik et al. 2020, with the value
    kept beside them as in Lu et al. 2023 (SynthER), their code.
    """

    frequencies: Tensor

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise SettingError(
                f"a random Fourier embedding of size {size} was asked for",
                expected="an even size of at least 2",
            )
        self.register_buffer("frequencies", torch.randn(size // 2))

    def forward(self, value: Tensor) -> Float[Tensor, "*shape size+1"]:
        """Embed values of any shape."""
        value = value.unsqueeze(-1)
        angle = 2 * math.pi * value * self.frequencies
        return torch.cat([value, angle.sin(), angle.cos()], dim=-1)

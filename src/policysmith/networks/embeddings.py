"""Embeddings of scalars as vectors: what tells a network at which noise level, time or position it is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError


def check_embedding_size(size: int) -> None:
    """Raise `SettingError` unless `sinusoidal_embedding` can make vectors of this size."""
    if size < 4 or size % 2:
        raise SettingError(
            f"a sinusoidal embedding of size {size} was asked for", expected="an even size of at least 4"
        )


def sinusoidal_embedding(value: Tensor, size: int) -> Float[Tensor, "*shape size"]:
    """Sines then cosines of `value` at size/2 frequencies from 1 down to 1/10000.

    `value` is an integer or float tensor of any shape. With half = size/2, frequency i is
    exp(-ln(10000) i / (half - 1)), as Diffusion Policy has it; the size is even and at least 4.
    """
    half = size // 2
    index = torch.arange(half, device=value.device, dtype=torch.float32)
    angle = value.unsqueeze(-1) * torch.exp(index * (-math.log(10_000) / (half - 1)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)

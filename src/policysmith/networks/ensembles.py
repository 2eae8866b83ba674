"""Several MLPs of one shape as one: every layer is a single batched product.

    y[m] = x[m] W[m] + b[m]     for all members m at once

A member costs its arithmetic and nothing else: ten critics take as many calls into the library as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError


class EnsembleLinear(nn.Module):
    """`members` linear maps; each starts as PyTorch's own layer does."""

    def __init__(self, members: int, before: int, after: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(before)
        self.weight = nn.Parameter(torch.empty(members, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, after).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "member row before"]) -> Float[Tensor, "member row after"]:
        """Each member's map of its own rows."""
        if self.weight.shape[2] == 1:
            # A product with a single column is no matrix product to the library, and four times as slow.
            return (x * self.weight.transpose(1, 2)).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """Layer normalisation with a scale and shift per member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Float[Tensor, "member row width"]) -> Float[Tensor, "member row width"]:
        """Normalised over the width."""
        return torch.addcmul(self.bias, F.layer_norm(x, (self.width,)), self.weight)


class EnsembleMLP(nn.Module):
    """`members` MLPs of the same sizes (input, hidden..., output); hidden layers as in `networks.mlp.mlp`.

    `early_dropout` puts dropout before the normalisation, as RLPD's networks do.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
        early_dropout: bool = False,
    ) -> None:
        super().__init__()
        if members < 1 or len(sizes) < 2:
            raise SettingError(
                f"an ensemble of {members} MLPs with the sizes {list(sizes)}",
                expected="at least one member, and an input and an output size",
            )
        self.members = members
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes[:-1]):
            drop = [nn.Dropout(dropout)] if dropout > 0 else []
            norm = [EnsembleLayerNorm(members, after)] if layer_norm else []
            layers.append(EnsembleLinear(members, before, after))
            layers += [*drop, *norm, activation()] if early_dropout else [*norm, activation(), *drop]
        layers.append(EnsembleLinear(members, sizes[-2], sizes[-1]))
        self.layers = nn.Sequential(*layers)

    def forward(
        self, x: Float[Tensor, "row input"] | Float[Tensor, "member row input"]
    ) -> Float[Tensor, "member row output"]:
        """Every member's output, for rows they share or for rows of their own."""
        return self.layers(x.expand(self.members, *x.shape) if x.dim() == 2 else x)

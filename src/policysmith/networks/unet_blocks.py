"""The parts of the U-Net: convolution blocks, residual blocks told by FiLM, and stages of two of these.

Sequences are [batch, time, channel]. Every part knows the length of the sequences it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policysmith.networks.activations import mish
from policysmith.networks.convolutions import Convolution


def under_transform() -> bool:
    """Whether a `torch.func` transform is at work, under which one tensor may stand for many."""
    return torch._C._are_functorch_transforms_active()


class ConvolutionWeights(NamedTuple):
    """What a convolution block has learnt: [kernel * before, after] and three vectors [after]."""

    weight: Tensor
    bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor


class ConvolutionBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, before: int, after: int, kernel: int, *, groups: int, length: int) -> None:
        super().__init__()
        self.before, self.after, self.length = before, after, length
        self.convolution = Convolution(before, after, kernel, length=length)
        self.norm = nn.GroupNorm(groups, after)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, before] -> [batch, time, after]."""
        channels = self.convolution(x).transpose(1, 2)
        if under_transform():
            return mish(self.norm(channels).transpose(1, 2))
        # [batch, channel, 1, time] over memory in which channels come last: PyTorch has a kernel for that,
        # which `vmap` does not know.
        return mish(self.norm(channels.unsqueeze(2)).squeeze(2).transpose(1, 2))

    def weights(self) -> ConvolutionWeights:
        """The parameters, gathered for a sampling loop (looking one up in a module takes time)."""
        convolution, norm = self.convolution, self.norm
        return ConvolutionWeights(convolution.weight, convolution.bias, norm.weight, norm.bias)


class ResidualBlock(nn.Module):
    """mish(norm(conv(mish(norm(conv(x))) * scale + bias))) + shortcut(x)."""

    def __init__(self, before: int, after: int, kernel: int, *, groups: int, length: int) -> None:
        super().__init__()
        self.first = ConvolutionBlock(before, after, kernel, groups=groups, length=length)
        self.second = ConvolutionBlock(after, after, kernel, groups=groups, length=length)
        self.shortcut = nn.Linear(before, after) if before != after else nn.Identity()

    def forward(self, x: Tensor, films: Iterator[Tensor]) -> Tensor:
        """Take scale and bias [batch, 1, after] from `films`, which all blocks share in running order."""
        scale, bias = next(films), next(films)
        hidden = torch.addcmul(bias, self.first(x), scale)
        return self.second(hidden) + self.shortcut(x)


class Stage(nn.Module):
    """Two residual blocks and what resamples their output on its way to the next stage."""

    def __init__(self, first: ResidualBlock, second: ResidualBlock, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.resample = first, second, resample

    def forward(self, x: Tensor, films: Iterator[Tensor]) -> Tensor:
        """The output before it is resampled, which is what a later stage joins to its input."""
        return self.second(self.first(x, films), films)

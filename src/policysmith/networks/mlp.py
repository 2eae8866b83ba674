"""Multi-layer perceptrons: the plain stack, and a residual one that denoises short sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import BoundDenoiser, Denoiser
from policysmith.networks.embeddings import SinusoidalEmbedding


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    layer_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers of the given sizes (input, hidden..., output); nothing follows the last.

    Each hidden layer is Linear, LayerNorm if asked for, activation, dropout if above 0. `SettingError` for
    fewer than two sizes.
    """
    if len(sizes) < 2:
        raise SettingError(
            f"an MLP was given the sizes {list(sizes)}", expected="input and output size at least"
        )
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers.append(nn.Linear(before, after))
        if layer_norm:
            layers.append(nn.LayerNorm(after))
        layers.append(activation())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """x + Linear(act(Linear(norm(dropout(x))))), four times as wide inside.

    Source: Hansen-Estruch et al. 2023 (IDQL), the LN_Resnet.
    """

    def __init__(
        self, width: int, activation: Callable[[], nn.Module], *, layer_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *([nn.Dropout(dropout)] if dropout > 0 else []),
            *([nn.LayerNorm(width)] if layer_norm else []),
            nn.Linear(width, 4 * width),
            activation(),
            nn.Linear(4 * width, width),
        )

    def forward(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Add the block's output to its input."""
        return hidden + self.body(hidden)


@saveable
class ResidualMLPDenoiser(Denoiser):
    """A denoiser that flattens the sequence: for one action or a short chunk of them.

    The flattened sequence, the embedded level and the condition pass through one Linear to `width`, `depth`
    residual blocks, and activation and Linear back to the sequence. The level embedding is sinusoidal of
    `level_size`, then Linear to twice that, Mish, and Linear back; with `level_positions` = horizon the
    embeddings of all positions are concatenated first.
    """

    def __init__(
        self,
        action_size: int,
        horizon: int,
        condition_size: int,
        *,
        width: int = 256,
        depth: int = 3,
        level_size: int = 64,
        level_positions: int = 1,
        layer_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(action_size, horizon, condition_size, level_positions=level_positions)
        self.level_embedding = SinusoidalEmbedding(level_size)
        self.level_encoder = mlp([level_positions * level_size, 2 * level_size, level_size], nn.Mish)
        self.input = nn.Linear(horizon * action_size + level_size + condition_size, width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(width, nn.Mish, layer_norm=layer_norm, dropout=dropout) for _ in range(depth))
        )
        self.output = nn.Sequential(nn.Mish(), nn.Linear(width, horizon * action_size))

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        level: Tensor,
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch horizon action"]:
        """Predict from a noisy sequence; see `Denoiser.forward`."""
        level = self.check(noisy, level, condition)
        return self._denoise(noisy, level, self._of_condition(condition))

    def bind(self, condition: Float[Tensor, "batch condition"]) -> BoundDenoiser:
        """A function (noisy, level) -> prediction that has the condition's share of the first layer ready."""
        of_condition = self._of_condition(condition)

        def denoise(noisy: Tensor, level: Tensor) -> Tensor:
            return self._denoise(noisy, self.check(noisy, level, condition), of_condition)

        return denoise

    def _of_condition(self, condition: Tensor) -> Tensor:
        first = self.input.in_features - self.condition_size
        return torch.addmm(self.input.bias, condition, self.input.weight[:, first:].t())

    def _denoise(self, noisy: Tensor, level: Tensor, of_condition: Tensor) -> Tensor:
        embedded = self.level_encoder(self.level_embedding(level).flatten(1))
        told = torch.cat([noisy.flatten(1), embedded], dim=1)
        hidden = torch.addmm(of_condition, told, self.input.weight[:, : told.shape[1]].t())
        return self.output(self.blocks(hidden)).view_as(noisy)

"""Heads: features read as a distribution over actions.

Every head maps features [row, width] to a `Distribution`: draws with an explicit generator,
log-probabilities, entropies, and the action it would take if it took no chances. Actions are in the
environment's units; the density of a squashed head is that of its action scaled to [-1, 1], as entropies are
compared in those units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.scaling import limits
from policysmith.policies.distributions import (
    Categoricals,
    Certain,
    Gaussian,
    Greedy,
    SquashedGaussian,
)


@saveable
class GaussianHead(nn.Module):
    """A Gaussian with a deviation that does not depend on the observation; draws are not clipped.

    `squash_mean` takes the mean through a hyperbolic tangent, to the limits `low` and `high` (-1 to 1
    without); the deviation is in the action's own units. The last layer starts orthogonal times `gain`,
    or with 0 as PyTorch's layers do.
    """

    offset: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        width: int,
        action_size: int,
        *,
        initial_log_deviation: float = 0.0,
        log_deviation_range: Sequence[float] = (-20.0, 2.0),
        squash_mean: bool = False,
        low: Sequence[float] = (),
        high: Sequence[float] = (),
        gain: float = 0.0,
    ) -> None:
        super().__init__()
        offset, scale = limits(low, high)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.action_size, self.squash_mean = action_size, squash_mean
        self.range = tuple(log_deviation_range)
        self.mean = nn.Linear(width, action_size)
        self.log_deviation = nn.Parameter(torch.full((action_size,), float(initial_log_deviation)))
        if gain:
            orthogonal(self.mean, gain)

    def forward(self, features: Float[Tensor, "row width"], mask: Tensor | None = None) -> Gaussian:
        """The distribution; there is nothing to mask."""
        mean = self.mean(features)
        if self.squash_mean:
            mean = mean.tanh()
            if self.scale is not None and self.offset is not None:
                mean = self.offset + self.scale * mean
        return Gaussian(mean, self.log_deviation.clamp(*self.range))


@saveable
class SquashedGaussianHead(nn.Module):
    """tanh of a Gaussian, scaled to the limits; mean and log-deviation both depend on the observation.

    `log_deviation_range` clips the log-deviation (SAC: -20 to 2).
    """

    offset: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        width: int,
        low: Sequence[float],
        high: Sequence[float],
        *,
        log_deviation_range: Sequence[float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        self.action_size = len(low)
        self.range = tuple(log_deviation_range)
        self.both = nn.Linear(width, 2 * self.action_size)
        offset, scale = limits(low, high)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, features: Float[Tensor, "row width"], mask: Tensor | None = None) -> SquashedGaussian:
        """The distribution; there is nothing to mask."""
        mean, log_deviation = self.both(features).chunk(2, -1)
        return SquashedGaussian(mean, log_deviation.clamp(*self.range), self.offset, self.scale)


@saveable
class DeterministicHead(nn.Module):
    """One action, tanh scaled to the limits (DDPG, TD3)."""

    offset: Tensor | None
    scale: Tensor | None

    def __init__(self, width: int, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        self.action_size = len(low)
        self.action = nn.Linear(width, self.action_size)
        offset, scale = limits(low, high)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, features: Float[Tensor, "row width"], mask: Tensor | None = None) -> Certain:
        """The action; there is nothing to mask."""
        unit = self.action(features).tanh()
        return Certain(unit if self.scale is None or self.offset is None else self.offset + self.scale * unit)


@saveable
class CategoricalHead(nn.Module):
    """One or several numbers with `choices` each: Discrete, MultiDiscrete and MultiBinary spaces.

    A mask [row, all choices in a row] says which are allowed; the others get no probability.
    """

    def __init__(self, width: int, choices: Sequence[int], *, gain: float = 0.0) -> None:
        super().__init__()
        if not choices or min(choices) < 1:
            raise SettingError(f"a head for the choices {list(choices)}", expected="at least one each")
        self.action_size, self.choices = len(choices), tuple(choices)
        self.logits = nn.Linear(width, sum(choices))
        if gain:
            orthogonal(self.logits, gain)

    def forward(
        self, features: Float[Tensor, "row width"], mask: Bool[Tensor, "row choice"] | None = None
    ) -> Categoricals:
        """The distribution over what the mask allows."""
        return Categoricals(by_number(self.logits(features), self.choices, mask))


@saveable
class GreedyHead(nn.Module):
    """The choice of the highest value, the features being values [row, choice] themselves (DQN).

    `draw` takes a random choice (of those that the mask allows) with probability `epsilon`, an attribute.
    """

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.action_size, self.choices = 1, (choices,)
        self.epsilon = 0.0

    def forward(self, features: Float[Tensor, "row choice"], mask: Tensor | None = None) -> Greedy:
        """What is done in every row."""
        return Greedy(features if mask is None else features.masked_fill(~mask, -torch.inf), self.epsilon)


def by_number(
    logits: Float[Tensor, "row choice"], choices: Sequence[int], mask: Bool[Tensor, "row choice"] | None
) -> Float[Tensor, "row number choice"]:
    """Logits side by side as [row, number, choice], -inf where the mask forbids or a number has fewer."""
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    if len(set(choices)) == 1:
        return logits.unflatten(-1, (len(choices), choices[0]))
    parts = logits.split(list(choices), -1)
    return torch.stack(
        [F.pad(part, (0, max(choices) - part.shape[-1]), value=-torch.inf) for part in parts], -2
    )


def orthogonal(layer: nn.Linear, gain: float) -> None:
    """Start `layer` orthogonal, scaled by `gain`, with biases of zero, drawing from the global generator."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)

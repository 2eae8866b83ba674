"""A one-step model of a world: the observation after an action, next = observation + f(observation, action).

What is learnt is the change, because most of an observation is still there a step later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.saving import saveable
from policysmith.networks.mlp import mlp


@saveable
class NextObservation(nn.Module):
    """Predicts the next observation (a vector); actions within `low` and `high` are scaled to [-1, 1]."""

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        observation_size: int,
        low: Sequence[float],
        high: Sequence[float],
        *,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        self.change = mlp((observation_size + len(low), *hidden, observation_size))
        lower, upper = torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)
        self.register_buffer("offset", (upper + lower) / 2, persistent=False)
        self.register_buffer("scale", 2 / (upper - lower), persistent=False)

    def forward(
        self, observation: Float[Tensor, "row observation"], action: Float[Tensor, "row action"]
    ) -> Float[Tensor, "row observation"]:
        """The observation that is expected next."""
        unit = (action - self.offset) * self.scale
        return observation + self.change(torch.cat([observation, unit], -1))

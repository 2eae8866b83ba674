"""Critics: what observations and actions are worth.

- `QEnsemble`: several Q(s, a) for continuous actions, evaluated as one;
- `ValueNetwork`: V(s), a number or one per objective or quantile;
- `DuellingQ`: Q(s, .) for all choices of a discrete action at once, Q = V + A - mean A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation
from policysmith.common.saving import saveable
from policysmith.networks.bodies import Body, activation_named
from policysmith.networks.ensembles import EnsembleMLP
from policysmith.networks.scaling import limits


@saveable
class QEnsemble(nn.Module):
    """`members` estimates of Q(s, a), every layer one batched product.

    - `low`, `high`: the action's limits; actions come in the environment's units and are scaled to [-1, 1].
    - `hidden`, `activation`, `layer_norm`, `dropout`, `early_dropout`: see `EnsembleMLP`.
    - `outputs`: 1 for a value, more for a vector or for quantiles, which then come as a last axis.
    - `body`: reads observations that are not one vector; its features are shared by the members.
    """

    offset: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        observation_size: int,
        low: Sequence[float],
        high: Sequence[float],
        *,
        members: int = 2,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        early_dropout: bool = False,
        outputs: int = 1,
        body: Body | None = None,
    ) -> None:
        super().__init__()
        if len(low) != len(high) or not len(low):
            raise SettingError(f"action limits {list(low)} and {list(high)}", expected="as many of each")
        self.members, self.outputs, self.body = members, outputs, body
        features = observation_size if body is None else body.width
        self.network = EnsembleMLP(
            members,
            (features + len(low), *hidden, outputs),
            activation_named(activation),
            layer_norm=layer_norm,
            dropout=dropout,
            early_dropout=early_dropout,
        )
        offset, scale = limits(low, high)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(
        self, observation: Observation, action: Float[Tensor, "row action"]
    ) -> Float[Tensor, "member row *output"]:
        """Every member's value; without the last axis where there is one output."""
        if self.scale is not None and self.offset is not None:
            action = (action - self.offset) / self.scale
        seen: Any = observation if self.body is None else self.body(observation)
        value = self.network(torch.cat([seen, action], -1))
        return value.squeeze(-1) if self.outputs == 1 else value


@saveable
class ValueNetwork(nn.Module):
    """V(s) behind a body; `outputs` above 1: a vector (objectives, quantiles)."""

    def __init__(self, body: Body, *, outputs: int = 1) -> None:
        super().__init__()
        self.body, self.outputs = body, outputs
        self.value = nn.Linear(body.width, outputs)

    def forward(self, observation: Observation) -> Float[Tensor, "row *output"]:
        """The values; without the last axis where there is one output."""
        return self.of_features(self.body(observation))

    def of_features(self, features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch *output"]:
        """The values of features of the body."""
        value = self.value(features)
        return value.squeeze(-1) if self.outputs == 1 else value


@saveable
class DuellingQ(nn.Module):
    """Q(s, .) for every choice: value and advantages apart, Q = V + A - mean A.

    Source: Wang et al. 2016, equation 9.

    `duelling` False gives the plain network. `outputs` above 1: quantiles per choice, [row, choice, output].
    `width` is the number of choices, so that it can stand where a policy has a body.
    """

    def __init__(self, body: Body, choices: int, *, duelling: bool = True, outputs: int = 1) -> None:
        super().__init__()
        self.body, self.choices, self.duelling, self.outputs = body, choices, duelling, outputs
        self.advantage = nn.Linear(body.width, choices * outputs)
        self.value = nn.Linear(body.width, outputs) if duelling else None
        # What a policy asks of its body.
        self.observation_size, self.goal_size, self.pictures = (
            body.observation_size,
            body.goal_size,
            body.pictures,
        )
        self.width, self.memory_size = choices, 0

    def forward(self, observation: Observation) -> Float[Tensor, "row choice *output"]:
        """Values of every choice."""
        features = self.body(observation)
        q = self.advantage(features).unflatten(-1, (self.choices, self.outputs))
        if self.value is not None:
            q = self.value(features)[:, None] + q - q.mean(1, keepdim=True)
        return q.squeeze(-1) if self.outputs == 1 else q

"""A family of policies in one network, and a second, small network that chooses the member for each state.

    balance = chooser(observation)                              in [low, high]
    action ~ actor(observation, encoding of the balance)

The *balance* says how far a member goes beyond the data that it learnt from: a low one imitates, a high one
improves as its critics say. Any actor becomes a family by reading six numbers more.

Source: Wang et al. 2023, Train Once, Get a Family (FamO2O), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.embeddings import ScalarEncoding
from policysmith.networks.mlp import mlp
from policysmith.policies.actors import NetworkPolicy, counted
from policysmith.policies.distributions import SquashedGaussian
from policysmith.policies.protocol import Policy


@saveable
class BalanceChooser(nn.Module):
    """A squashed Gaussian over the balance: low + (tanh(u) + 1) / 2 (high - low), u normal.

    Its mean depends on the observation, its deviation does not. Log-probabilities are those of tanh(u), in
    units in which the range is [-1, 1]. `SettingError` unless `low` is below `high`.
    """

    def __init__(
        self,
        observation_size: int,
        low: float,
        high: float,
        *,
        hidden: Sequence[int] = (256, 256),
        log_deviation_range: Sequence[float] = (-10.0, 2.0),
    ) -> None:
        super().__init__()
        check_range((low, high))
        self.low, self.high = low, high
        self.range = tuple(log_deviation_range)
        self.mean = mlp((observation_size, *hidden, 1))
        self.log_deviation = nn.Parameter(torch.zeros(1))

    def forward(self, observation: Float[Tensor, "row observation"]) -> Float[Tensor, "row"]:
        """The balance of each row without chance: that of the mean."""
        return self._in_range(self._distribution(observation).mode())

    def draw(
        self, observation: Float[Tensor, "row observation"], rng: torch.Generator
    ) -> tuple[Float[Tensor, "row"], Float[Tensor, "row"]]:
        """A balance per row, reparameterised, and its log-probability."""
        unit, log_prob = self._distribution(observation).draw(rng)
        return self._in_range(unit), log_prob

    def act(self, observation: Float[Tensor, "row observation"], rng: torch.Generator) -> Tensor:
        """The balance to act with: without chance."""
        return self(observation)

    def _distribution(self, observation: Tensor) -> SquashedGaussian:
        return SquashedGaussian(self.mean(observation), self.log_deviation.clamp(*self.range), None, None)

    def _in_range(self, unit: Tensor) -> Tensor:
        return self.low + (unit[:, 0] + 1) / 2 * (self.high - self.low)


@saveable
class UniformChooser(nn.Module):
    """Any balance of the range, whatever the state; `forward` gives the middle."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        check_range((low, high))
        self.low, self.high = low, high

    def forward(self, observation: Float[Tensor, "row observation"]) -> Float[Tensor, "row"]:
        """The middle of the range for every row."""
        return torch.full_like(observation[:, 0], (self.low + self.high) / 2)

    def act(self, observation: Float[Tensor, "row observation"], rng: torch.Generator) -> Tensor:
        """A balance per row, uniform in the range."""
        unit = torch.rand(len(observation), generator=rng, device=observation.device)
        return self.low + unit * (self.high - self.low)

    def draw(self, observation: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A balance per row, and its log-probability in units in which the range is [-1, 1]."""
        balance = self.act(observation, rng)
        return balance, torch.full_like(balance, -math.log(2))


@saveable
class FixedChooser(nn.Module):
    """The same balance for every state."""

    def __init__(self, balance: float) -> None:
        super().__init__()
        self.fixed = balance

    def forward(self, observation: Float[Tensor, "row observation"]) -> Float[Tensor, "row"]:
        """The balance, for each row."""
        return torch.full_like(observation[:, 0], self.fixed)

    def act(self, observation: Float[Tensor, "row observation"], rng: torch.Generator) -> Tensor:
        """The balance, for each row."""
        return self(observation)


@saveable
class FamilyPolicy(Policy):
    """An actor that is told its balance, and what chooses the balance.

    `actor` reads the observation with the encoded balance behind it (see `ScalarEncoding` for its size and
    base); `chooser` is one of the three above. `deterministic` True takes the actor's mode.
    """

    def __init__(
        self,
        actor: NetworkPolicy,
        chooser: BalanceChooser | UniformChooser | FixedChooser,
        *,
        encoding_size: int = 6,
        encoding_base: float = 10_000.0,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.actor, self.chooser = actor, chooser
        self.encoding = ScalarEncoding(encoding_size, base=encoding_base)
        self.deterministic = deterministic
        self.observation_size = actor.observation_size - encoding_size
        self.action_size = actor.action_size

    def act(
        self, observation: Float[Tensor, "batch 1 observation"], state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """One action per row: of the member that the chooser takes for its state."""
        self.check_batch(observation, state)
        newest = observation[:, -1]
        distribution = self.actor.distribution(self.told(newest, self.chooser.act(newest, rng)))
        action = distribution.mode() if self.deterministic else distribution.draw(rng)[0]
        return action[:, None], counted(state)

    def told(
        self, observation: Float[Tensor, "row observation"], balance: Float[Tensor, "row"]
    ) -> Float[Tensor, "row wider"]:
        """The observation that the actor reads: with the encoded balance behind it."""
        return torch.cat([observation, self.encoding(balance)], dim=-1)

    def draw(
        self,
        observation: Float[Tensor, "row observation"],
        balance: Float[Tensor, "row"],
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "row action"], Float[Tensor, "row"]]:
        """An action per row of the member with its balance, and its log-probability; reparameterised."""
        return self.actor.draw(self.told(observation, balance), rng)

    def log_prob(
        self,
        observation: Float[Tensor, "row observation"],
        action: Float[Tensor, "row action"],
        balance: Float[Tensor, "row"] | None = None,
    ) -> Float[Tensor, "row"]:
        """Log-probability of given actions under the members of the balances, by default the chooser's."""
        chosen = self.chooser(observation) if balance is None else balance
        return self.actor.log_prob(self.told(observation, chosen), action)


def member(policy: FamilyPolicy, balance: float) -> FamilyPolicy:
    """The one member of a family that has this balance in every state; it shares the family's weights."""
    return _changed(policy, chooser=FixedChooser(balance))


def quiet(policy: FamilyPolicy) -> FamilyPolicy:
    """The same family without the noise of its actions; it shares the weights."""
    return _changed(policy, deterministic=True)


def check_range(given: Sequence[float]) -> None:
    """Raise `SettingError` unless a range of balances is two finite numbers, the lower one first."""
    if len(given) != 2 or not all(map(math.isfinite, given)) or not given[0] < given[1]:
        raise SettingError(
            f"a range of balances from {' to '.join(map(str, given)) or 'nothing'}",
            expected="two finite numbers, the lower one first",
        )


def _changed(policy: FamilyPolicy, **changes: Any) -> FamilyPolicy:
    saved: dict[str, Any] = {**policy.saved_arguments, **changes}  # type: ignore[attr-defined]
    return FamilyPolicy(**saved).eval()

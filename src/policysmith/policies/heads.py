"""Heads: features read as a distribution over actions.

Every head maps features [row, width] to a `Distribution`: draws with an explicit generator,
log-probabilities, entropies, and the action it would take if it took no chances. Actions are in the
environment's units; the density of a squashed head is that of its action scaled to [-1, 1], as entropies are
compared in those units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.saving import saveable

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """Over one action per row."""

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Float[Tensor, "row"]]:
        """An action per row and its log-probability; reparameterised where actions are continuous."""
        ...

    def log_prob(self, action: Tensor) -> Float[Tensor, "row"]:
        """Log-probability of given actions."""
        ...

    def entropy(self) -> Float[Tensor, "row"]:
        """In nats."""
        ...

    def mode(self) -> Tensor:
        """The action taken where no chances are."""
        ...


class Gaussian:
    """Independent Gaussians; `log_deviation` [action] or [row, action]."""

    def __init__(self, mean: Float[Tensor, "row action"], log_deviation: Tensor) -> None:
        self.mean, self.log_deviation = mean, log_deviation

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean plus noise."""
        noise = torch.randn(self.mean.shape, generator=rng, device=self.mean.device)
        action = self.mean + self.log_deviation.exp() * noise
        log_prob = (-0.5 * noise.square() - self.log_deviation - HALF_LOG_TWO_PI).sum(-1)
        return action, log_prob

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density."""
        standard = (action - self.mean) * (-self.log_deviation).exp()
        return (-0.5 * standard.square() - self.log_deviation - HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        """The same for every row where the deviation is."""
        entropy = (self.log_deviation + 0.5 + HALF_LOG_TWO_PI).sum(-1)
        return entropy.expand(self.mean.shape[:-1])

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean


class SquashedGaussian:
    """tanh of Gaussians, scaled to the action's limits: a = offset + scale tanh(u).

    The log-density is that of tanh(u), in the unit cube:

        log p(tanh u) = log N(u) - sum log(1 - tanh^2 u),  log(1 - tanh^2 u) = 2 (log 2 - u - softplus(-2u))
    """

    def __init__(
        self, mean: Tensor, log_deviation: Tensor, offset: Tensor | None, scale: Tensor | None
    ) -> None:
        self.inner = Gaussian(mean, log_deviation)
        self.offset, self.scale = offset, scale

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A squashed draw, reparameterised."""
        inner, log_prob = self.inner.draw(rng)
        return self._in_units(inner.tanh()), log_prob - _log_slope(inner)

    def log_prob(self, action: Tensor) -> Tensor:
        """Of given actions within the limits (at them, of the nearest one inside that float32 can tell)."""
        unit = action
        if self.scale is not None and self.offset is not None:
            unit = (action - self.offset) / self.scale
        inner = unit.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return self.inner.log_prob(inner) - _log_slope(inner)

    def entropy(self) -> Tensor:
        """It has no closed form: `CapabilityError`."""
        raise CapabilityError(
            "the entropy of a squashed Gaussian has no closed form", cure="estimate it: -log_prob of draws"
        )

    def mode(self) -> Tensor:
        """The squashed mean."""
        return self._in_units(self.inner.mean.tanh())

    def _in_units(self, unit: Tensor) -> Tensor:
        return unit if self.scale is None or self.offset is None else self.offset + self.scale * unit


class Categoricals:
    """One choice or several independent ones; `logits` [row, number, choice], -inf for what is no choice."""

    def __init__(self, logits: Float[Tensor, "row number choice"]) -> None:
        self.log_p = logits.log_softmax(-1)

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The largest of log-probabilities with Gumbel noise."""
        with torch.no_grad():
            noise = torch.empty_like(self.log_p).exponential_(generator=rng)
            action = (self.log_p - noise.log_()).argmax(-1)
        return action, self.log_prob(action)

    def log_prob(self, action: Int[Tensor, "row number"]) -> Tensor:
        """Of given choices."""
        return self.log_p.gather(-1, action[..., None]).squeeze(-1).sum(-1)

    def entropy(self) -> Tensor:
        """Summed over the numbers."""
        finite = self.log_p.clamp(min=torch.finfo(self.log_p.dtype).min)
        return -(self.log_p.exp() * finite).sum((-1, -2))

    def mode(self) -> Tensor:
        """The likeliest choices."""
        return self.log_p.argmax(-1)


class Certain:
    """A single action: no density."""

    def __init__(self, action: Tensor) -> None:
        self.action = action

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The action itself."""
        return self.action, torch.zeros(len(self.action), device=self.action.device)

    def log_prob(self, action: Tensor) -> Tensor:
        """`CapabilityError`: a deterministic policy has no density."""
        raise CapabilityError("a deterministic policy has no density", expected="a Gaussian or squashed head")

    def entropy(self) -> Tensor:
        """`CapabilityError`: a deterministic policy has no entropy."""
        raise CapabilityError("a deterministic policy has no entropy", expected="a Gaussian or squashed head")

    def mode(self) -> Tensor:
        """The action."""
        return self.action


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


class Greedy:
    """The best choice, or with probability `epsilon` any that is allowed (a value above -inf)."""

    def __init__(self, values: Float[Tensor, "row choice"], epsilon: float) -> None:
        self.values, self.epsilon = values, epsilon

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A choice per row and its log-probability."""
        best, allowed = self.mode(), self.values > -torch.inf
        noise = torch.empty_like(self.values).exponential_(generator=rng)
        anything = (noise * allowed).argmax(-1, keepdim=True)
        explores = torch.rand(len(best), 1, generator=rng) < self.epsilon
        action = torch.where(explores, anything, best)
        return action, self.log_prob(action)

    def log_prob(self, action: Tensor) -> Tensor:
        """log(epsilon / allowed + [best] (1 - epsilon))."""
        share = self.epsilon / (self.values > -torch.inf).sum(-1)
        return (share + (action == self.mode())[:, 0] * (1 - self.epsilon)).log()

    def entropy(self) -> Tensor:
        """Of the mixture of the best choice and any."""
        allowed = (self.values > -torch.inf).sum(-1)
        other = self.epsilon / allowed
        best = other + 1 - self.epsilon
        return -(torch.special.xlogy(best, best) + (allowed - 1) * torch.special.xlogy(other, other))

    def mode(self) -> Tensor:
        """The best choice [row, 1]."""
        return self.values.argmax(-1, keepdim=True)


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


def limits(low: Sequence[float], high: Sequence[float]) -> tuple[Tensor | None, Tensor | None]:
    """(offset, scale) that take [-1, 1] to the limits; None for both where that changes nothing."""
    if all(a == -1 for a in low) and all(b == 1 for b in high):
        return None, None
    lower, upper = torch.tensor(low), torch.tensor(high)
    return (upper + lower) / 2, (upper - lower) / 2


def orthogonal(layer: nn.Linear, gain: float) -> None:
    """Start `layer` orthogonal, scaled by `gain`, with biases of zero, drawing from the global generator."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def _log_slope(inner: Tensor) -> Tensor:
    """Sum over the action of log(1 - tanh^2 u)."""
    return (2 * (math.log(2) - inner - F.softplus(-2 * inner))).sum(-1)

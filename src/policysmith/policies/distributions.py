"""Distributions over actions, one per row: draws with an explicit generator, log-probabilities, entropies.

Actions are in the environment's units; the density of a squashed action is that of the action scaled to
[-1, 1], as entropies are compared in those units.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import CapabilityError

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


def _log_slope(inner: Tensor) -> Tensor:
    """Sum over the action of log(1 - tanh^2 u)."""
    return (2 * (math.log(2) - inner - F.softplus(-2 * inner))).sum(-1)

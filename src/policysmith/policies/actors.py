"""Actors with a density: a network's output read as a Gaussian or a categorical distribution.

Both wrap any body that maps one observation [batch, observation] to features, sample with an explicit
generator, and give log-probabilities and entropies for policy-gradient objectives.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.saving import saveable
from policysmith.networks.mlp import mlp
from policysmith.policies.protocol import Policy


@saveable
class GaussianActor(Policy):
    """A diagonal Gaussian over actions with a deviation that does not depend on the observation.

    `deterministic` True acts the mean.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden: tuple[int, ...] = (64, 64),
        initial_log_deviation: float = 0.0,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.observation_size, self.action_size = observation_size, action_size
        self.deterministic = deterministic
        self.mean = mlp((observation_size, *hidden, action_size), nn.Tanh)
        self.log_deviation = nn.Parameter(torch.full((action_size,), float(initial_log_deviation)))

    def act(
        self, observation: Float[Tensor, "batch 1 observation"], state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """One draw per row (or the mean); one network call."""
        self.check_batch(observation, state)
        action = self.mean(observation[:, -1])
        if not self.deterministic:
            noise = torch.randn(action.shape, generator=rng, device=self.device)
            action = action + self.log_deviation.exp() * noise
        return action[:, None], counted(state)

    def log_prob(
        self, observation: Float[Tensor, "batch observation"], action: Float[Tensor, "batch action"]
    ) -> Float[Tensor, "batch"]:
        """Log-density of the actions, summed over dimensions."""
        standard = (action - self.mean(observation)) / self.log_deviation.exp()
        density = -0.5 * standard.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)
        return density.sum(-1)

    def entropy(self) -> Float[Tensor, ""]:
        """Entropy in nats, the same for every observation."""
        return (self.log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum()


@saveable
class CategoricalActor(Policy):
    """A categorical distribution over `choices` discrete actions; actions are [batch, 1, 1] integers."""

    def __init__(
        self,
        observation_size: int,
        choices: int,
        *,
        hidden: tuple[int, ...] = (64, 64),
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.observation_size, self.action_size = observation_size, 1
        self.deterministic = deterministic
        self.logits = mlp((observation_size, *hidden, choices), nn.Tanh)

    def act(
        self, observation: Float[Tensor, "batch 1 observation"], state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Int[Tensor, "batch 1 1"], TensorDict]:
        """One draw per row (or the likeliest); one network call."""
        self.check_batch(observation, state)
        logits = self.logits(observation[:, -1])
        if self.deterministic:
            choice = logits.argmax(-1, keepdim=True)
        else:
            choice = torch.multinomial(logits.softmax(-1), 1, generator=rng)
        return choice[:, None], counted(state)

    def log_prob(
        self, observation: Float[Tensor, "batch observation"], action: Int[Tensor, "batch 1"]
    ) -> Float[Tensor, "batch"]:
        """Log-probability of the chosen actions."""
        return self.logits(observation).log_softmax(-1).gather(-1, action)[:, 0]

    def entropy(self, observation: Float[Tensor, "batch observation"]) -> Float[Tensor, "batch"]:
        """Entropy in nats per observation."""
        log_prob = self.logits(observation).log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)


def counted(state: TensorDict) -> TensorDict:
    """The state with one more network call in every row."""
    state = state.clone(recurse=False)
    state["network_calls"] = state["network_calls"] + 1
    return state

"""Policies for behaviour cloning: an MLP from the last observations to the next actions.

`RegressionPolicy` answers with one action, `MixturePolicy` with a mixture of Gaussians, which can hold
several answers to one observation. Both read windows of states (and goals, where there are any), answer with
chunks of actions, and carry the scales of the data they were trained on.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.observations import GOAL, STATE, Observation
from policysmith.common.saving import saveable
from policysmith.networks.mlp import mlp
from policysmith.networks.normalizers import Normalizer
from policysmith.objectives.cloning import mixture_log_prob
from policysmith.policies.actors import counted
from policysmith.policies.protocol import Policy


@saveable
class RegressionPolicy(Policy):
    """One action per observation; the output is a hyperbolic tangent, in units of the action's range."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        goal_size: int = 0,
        observation_steps: int = 1,
        action_steps: int = 1,
    ) -> None:
        super().__init__()
        self.observation_size, self.goal_size, self.action_size = observation_size, goal_size, action_size
        self.observation_steps, self.action_steps = observation_steps, action_steps
        self.observation_normalizer = Normalizer(observation_size + goal_size)
        self.action_normalizer = Normalizer(action_size)
        self.network = mlp(
            (observation_steps * self.observation_normalizer.size, *hidden, action_steps * action_size)
        )

    def act(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """The answer to each row; one network call, nothing is drawn."""
        self.check_batch(observation, state)
        return self.action_normalizer.inverse(self.predict(observation)), counted(state)

    def predict(self, observation: Observation) -> Float[Tensor, "batch step action"]:
        """The actions before they are scaled to the environment's units, within [-1, 1]."""
        seen = self.observation_normalizer(joined(observation)).flatten(1)
        return self.network(seen).tanh().unflatten(1, (self.action_steps, self.action_size))


@saveable
class MixturePolicy(Policy):
    """A mixture of `components` diagonal Gaussians over the chunk of actions.

    Means are hyperbolic tangents in units of the action's range, deviations a softplus plus
    `minimum_deviation` in the same units. Acting draws a component and returns its mean plus `spread` of its
    noise; `deterministic` returns the mean of the likeliest component. Source of the head: Mandlekar et al.
    2021 (2108.03298), BC with GMM, which acts with hardly any noise as `spread` 0 does.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        components: int = 5,
        hidden: tuple[int, ...] = (256, 256),
        goal_size: int = 0,
        observation_steps: int = 1,
        action_steps: int = 1,
        minimum_deviation: float = 1e-4,
        spread: float = 0.0,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        if components < 1 or minimum_deviation <= 0:
            raise SettingError(
                f"{components} components with deviations of at least {minimum_deviation}",
                expected="at least one component, and a deviation above 0",
            )
        self.observation_size, self.goal_size, self.action_size = observation_size, goal_size, action_size
        self.observation_steps, self.action_steps = observation_steps, action_steps
        self.components, self.minimum_deviation = components, minimum_deviation
        self.spread, self.deterministic = spread, deterministic
        self.observation_normalizer = Normalizer(observation_size + goal_size)
        self.action_normalizer = Normalizer(action_size)
        seen = observation_steps * (observation_size + goal_size)
        self.network = mlp((seen, *hidden, components * (1 + 2 * action_steps * action_size)))

    def act(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """One draw per row (or the likeliest component's mean); one network call."""
        self.check_batch(observation, state)
        if self.deterministic:
            logits, mean, _ = self.mixture(observation)
            scaled = mean[torch.arange(len(mean)), logits.argmax(-1)]
        else:
            scaled = self._draw(observation, 1, rng)[0]
        return self._in_units(scaled), counted(state)

    def sample(
        self, observation: Observation, count: int, *, rng: torch.Generator
    ) -> Float[Tensor, "count batch step action"]:
        """`count` independent draws per observation."""
        drawn = self._draw(observation, count, rng)
        return self._in_units(drawn.flatten(0, 1)).unflatten(0, (count, len(observation)))

    def log_prob(
        self,
        observation: Observation,
        action: Float[Tensor, "batch step action"],
    ) -> Float[Tensor, "batch"]:
        """Log-density of chunks of actions, in the environment's units; that of the whole mixture."""
        logits, mean, deviation = self.mixture(observation)
        value = self.action_normalizer(action).flatten(1)
        density = mixture_log_prob(value, logits=logits, mean=mean, deviation=deviation)
        return density - self.action_steps * self.action_normalizer.scale.log().sum()

    def mixture(
        self, observation: Observation
    ) -> tuple[
        Float[Tensor, "batch component"],
        Float[Tensor, "batch component size"],
        Float[Tensor, "batch component size"],
    ]:
        """Logits of the components, their means and deviations, in units of the action's range."""
        output = self.network(self.observation_normalizer(joined(observation)).flatten(1))
        logits, rest = output[:, : self.components], output[:, self.components :]
        mean, deviation = rest.unflatten(1, (2, self.components, -1)).unbind(1)
        return logits, mean.tanh(), nn.functional.softplus(deviation) + self.minimum_deviation

    def _draw(self, observation: Observation, count: int, rng: torch.Generator) -> Tensor:
        logits, mean, deviation = self.mixture(observation)
        chosen = torch.multinomial(logits.softmax(-1), count, replacement=True, generator=rng).T
        row = torch.arange(len(mean), device=mean.device)
        noise = torch.randn(count, *mean[:, 0].shape, generator=rng, device=self.device)
        return mean[row, chosen] + self.spread * deviation[row, chosen] * noise

    def _in_units(self, scaled: Float[Tensor, "batch size"]) -> Float[Tensor, "batch step action"]:
        chunk = scaled.unflatten(1, (self.action_steps, self.action_size))
        return self.action_normalizer.inverse(chunk)


def joined(observation: Observation) -> Float[Tensor, "*batch width"]:
    """State and goal as one vector, the goal last; whatever else there is to see is left out."""
    if isinstance(observation, Tensor):
        return observation
    parts = [observation[name] for name in (STATE, GOAL) if name in observation.keys()]  # noqa: SIM118
    return torch.cat(parts, dim=-1)

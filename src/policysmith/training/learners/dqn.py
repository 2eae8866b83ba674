"""DQN's learner: values of every choice, fitted to the reward and to the best value behind it.

    y = r + discount Q_target(s', argmax_a Q(s', a))          loss: Huber(y - Q(s, a))

The double estimate, the duelling network and returns of several steps are settings. `robust` adds SA-DQN's
regulariser: the margin of the greedy decision, at the state where it is smallest nearby, is to stay wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.observations import ACTION_MASK, STATE, Observation
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.spaces import DISCRETE
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Transitions
from policysmith.networks.critics import DuellingQ
from policysmith.networks.targets import TargetNetwork
from policysmith.objectives.attacks import projected_ascent
from policysmith.objectives.decisions import margin_hinge
from policysmith.objectives.values import double_q, huber_loss, td_target
from policysmith.policies.actors import NetworkPolicy, body_for, spaces_of, without_noise
from policysmith.policies.heads import GreedyHead
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import Explore, OffPolicySettings, UpdateOnce
from policysmith.training.learners.sac import adam
from policysmith.training.loop import RunState


@dataclass(frozen=True)
class DqnSettings(OffPolicySettings):
    """DQN on top of the off-policy loop.

    - `hidden`, `activation`, `layer_norm`: of the network; `duelling`: a value and advantages apart.
    - `double`: the network chooses the action that the target judges; otherwise the target does both.
    - `learning_rate`, `adam_epsilon`, `max_grad_norm`; `target_every`: updates between copies to the target.
    - `exploration`: the probability of a random action falls from 1 in a straight line, to `exploration` at
      the step `exploration_steps` of all environments together.
    """

    hidden: tuple[int, ...] = (512,)
    activation: str = "relu"
    layer_norm: bool = False
    duelling: bool = True
    double: bool = True
    learning_rate: float = 6.25e-5
    adam_epsilon: float = 1.5e-4
    max_grad_norm: float = 10.0
    target_every: int = 8000
    exploration: float = 0.01
    exploration_steps: int = 250_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_every", "exploration_steps"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "adam_epsilon", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if not 0 <= self.exploration <= 1:
            raise SettingError(f"exploration is {self.exploration}", expected="a probability")

    def epsilon(self, step: int) -> float:
        """The probability of a random action at a step of all environments together."""
        return max(self.exploration, 1 - (1 - self.exploration) * step / self.exploration_steps)


@dataclass(frozen=True)
class Robust:
    """SA-DQN's regulariser: `weight` max(margin, -`floor`) where observations moved by up to `size`.

    The state in the cube of half-width `size` where another action comes nearest to the decision is sought by
    `steps` steps of projected gradient ascent from a random start, within `low` and `high`. The size grows
    from 0 at the environments' step `grows_from` to the whole at `grows_until`, smoothly.
    """

    size: float = 1 / 255
    weight: float = 0.005
    floor: float = 1.0
    steps: int = 5
    low: float = 0.0
    high: float = 1.0
    grows_from: int = 1_500_000
    grows_until: int = 5_500_000

    def __post_init__(self) -> None:
        for name in ("size", "weight", "floor"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")
        if self.steps < 1 or not self.low < self.high or not 0 <= self.grows_from < self.grows_until:
            raise SettingError(
                f"{self.steps} steps within {self.low} and {self.high}, growing from step {self.grows_from} "
                f"to {self.grows_until}",
                expected="a step or more, low below high, and an end after the beginning",
            )

    def size_at(self, step: int) -> float:
        """The half-width at a step of all environments together: 3 t^2 - 2 t^3 of the whole way t."""
        way = min(1.0, max(0.0, (step - self.grows_from) / (self.grows_until - self.grows_from)))
        return self.size * way * way * (3 - 2 * way)


class DqnLearners:
    """The learner of Q and its target for an interaction's environments, and what is done with them.

    Raises `CapabilityError` where actions are not one choice, and for a `robust` one where the observation is
    not one vector.
    """

    def __init__(
        self, interaction: Interaction, settings: DqnSettings, *, seed: int, robust: Robust | None = None
    ) -> None:
        action, space = interaction.action_space, interaction.environments.observation_space
        action.require(DISCRETE, by="DQN", instead="sac or td3, or ppo, which serves every action space")
        if action.size != 1:
            raise CapabilityError(
                f"DQN chooses one action, and the environment asks for {action}",
                expected="a Discrete space",
                cure="use ppo, which chooses several numbers at once",
            )
        if robust is not None and list(spaces_of(space)) != [STATE]:
            raise CapabilityError(
                f"the observation has the parts {', '.join(spaces_of(space))}",
                expected="one vector, which can be moved a little",
            )
        self.interaction, self.settings, self.robust = interaction, settings, robust
        with seeded_initialisation(seed):
            self.policy = value_policy(interaction, settings)
        self.target = TargetNetwork(self.q, 1.0, every=settings.target_every)
        self.rng = generator(seed, "moved states")
        self.learner = Learner(
            self.policy,
            self.loss,
            optimizer=adam(self.policy, settings.learning_rate, eps=settings.adam_epsilon),
            max_grad_norm=settings.max_grad_norm,
            acts=without_noise,
        )

    @property
    def q(self) -> nn.Module:
        """The network of values: observations to [row, choice]."""
        return self.policy.body

    @property
    def explore(self) -> Explore:
        """The best choice or, with a probability that falls over the run, any."""

        def explore(observation: Observation, rng: torch.Generator) -> Tensor:
            self.policy.head.epsilon = self.settings.epsilon(self.interaction.count)  # type: ignore[assignment]
            return self.policy.draw(observation, rng)[0]

        return explore

    @property
    def update_once(self) -> UpdateOnce:
        """A step of the network; the target follows by its own count."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            prepared = batch | {"value_target": self.value_target(batch)}
            if self.robust is not None:
                prepared |= self.moved(batch["observation"], self.robust)
            metrics = self.learner.step(prepared)
            self.target.update()
            return metrics

        return update

    @torch.no_grad()
    def value_target(self, batch: Transitions) -> Float[Tensor, "row"]:
        """What Q of the chosen action is fitted to."""
        after = batch["next_observation"]
        there = self._allowed(self.target.module(after), after)
        chooses = self._allowed(self.q(after), after) if self.settings.double else there
        value = double_q(chooses, there)
        return td_target(
            batch["reward"],
            value,
            terminated=batch["terminated"],
            discount=batch.get("discount", self.settings.discount),
        )

    def loss(
        self, policy: NetworkPolicy, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """Huber's loss to `value_target`; of a robust one with the hinge at `moved_observation` added."""
        if self.robust is None:
            q = policy.body(batch["observation"])
            return _error(q, batch), {"q": q.amax(1)}
        q, moved = policy.body(torch.cat([batch["observation"], batch["moved_observation"]])).chunk(2)
        hinge = margin_hinge(moved, batch["decision"], floor=self.robust.floor)
        return _error(q, batch) + self.robust.weight * hinge, {"q": q.amax(1), "margin": hinge}

    def moved(self, states: Float[Tensor, "row state"], robust: Robust) -> dict[str, Tensor]:
        """Where in its neighbourhood each state's `decision` is nearest to being another's."""
        with torch.no_grad():
            decision = self.q(states).argmax(1)
        found = projected_ascent(
            self.q,
            states,
            decision,
            start=2 * torch.rand(states.shape, generator=self.rng) - 1,
            size=robust.size_at(self.interaction.count),
            steps=robust.steps,
            low=robust.low,
            high=robust.high,
        )
        return {"moved_observation": found, "decision": decision}

    def run_arguments(self) -> dict[str, Any]:
        """What `off_policy_run` is given of them."""
        return {
            "interaction": self.interaction,
            "settings": self.settings,
            "learners": {"policy": self.learner},
            "targets": {"q": self.target},
            "explore": self.explore,
            "update_once": self.update_once,
            "generators": {"moved states": self.rng},
        }

    def _allowed(self, q: Float[Tensor, "row choice"], observation: Observation) -> Tensor:
        mask = self.policy._mask(observation)
        return q if mask is None else q.masked_fill(~mask, -torch.inf)


def value_policy(interaction: Interaction, settings: DqnSettings) -> NetworkPolicy:
    """The policy that is greedy in a network of values for an interaction's spaces."""
    space = interaction.environments.observation_space
    (choices,) = interaction.action_space.choices
    body = body_for(
        space, hidden=settings.hidden, activation=settings.activation, layer_norm=settings.layer_norm
    )
    q: Any = DuellingQ(body, choices, duelling=settings.duelling)
    return NetworkPolicy(q, GreedyHead(choices), masked=ACTION_MASK in spaces_of(space))


def _error(q: Float[Tensor, "row choice"], batch: Transitions) -> Float[Tensor, "row"]:
    return huber_loss(batch["value_target"] - q.gather(1, batch["action"])[:, 0])

"""SAC's learners: a squashed Gaussian actor, an ensemble of critics with targets, and the temperature.

    y = r + discount (min over a subset of target critics Q'(s', a') - temperature log pi(a'|s'))
    critic:       mean over members (Q - y)^2
    actor:        temperature log pi(a|s) - Q(s, a)       with a drawn by reparameterisation
    temperature:  temperature (entropy - target entropy)

REDQ's and RLPD's many critics, their high update ratios and late policy updates are settings; what joins the
critics' opinions for the actor is a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.observations import STATE
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.spaces import CONTINUOUS, ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble
from policysmith.networks.targets import TargetNetwork, frozen
from policysmith.objectives.constraints import inverse_softplus, temperature_loss
from policysmith.objectives.values import clipped_double_q, soft_value, td_target
from policysmith.policies.actors import NetworkPolicy, actor_for, body_for, spaces_of, without_noise
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import Explore, OffPolicySettings, UpdateOnce
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam

Opinion = Callable[[Float[Tensor, "member row"]], Float[Tensor, "row"]]
"""How the critics' opinions of the actor's action become one."""


@dataclass(frozen=True)
class SacSettings(OffPolicySettings):
    """SAC on top of the off-policy loop.

    - `hidden`, `activation`, `layer_norm`: of actor and critics.
    - `members` critics, of which the target is the least of a `subset` drawn anew each time (0: of all).
    - `learning_rate` of the actor, `critic_learning_rate`, `temperature_learning_rate`; `rate`: of targets.
    - `initial_temperature`; `fixed_temperature` keeps it; `target_entropy` in nats (None: minus the number of
      action dimensions), `backup_entropy`: count the entropy in the critics' target.
    - `policy_every`: critic updates per update of actor and temperature.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: bool = False
    members: int = 2
    subset: int = 0
    learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    rate: float = 0.005
    initial_temperature: float = 1.0
    fixed_temperature: bool = False
    target_entropy: float | None = None
    backup_entropy: bool = True
    policy_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("members", "policy_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 <= self.subset <= self.members:
            raise SettingError(f"a subset of {self.subset}", expected=f"0 to {self.members}, the critics")
        for name in ("learning_rate", "critic_learning_rate", "temperature_learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if not self.initial_temperature > 0:
            raise SettingError(
                f"initial_temperature is {self.initial_temperature}", expected="a positive number"
            )
        if not 0 < self.rate <= 1:
            raise SettingError(f"rate is {self.rate}", expected="above 0, at most 1")


class Temperature(nn.Module):
    """softplus(raw): what a nat of entropy is worth; one, or one per task."""

    def __init__(self, start: float, *, tasks: int = 0) -> None:
        super().__init__()
        raw = inverse_softplus(start)
        self.raw = nn.Parameter(torch.full((tasks,) if tasks else (), raw))

    def forward(self) -> Tensor:
        """The temperature, with gradient."""
        return F.softplus(self.raw)


class SacLearners:
    """The three learners and the critics' target for an environment's spaces, and what is done with them.

    Pictures are read by one encoder, which the critics' loss trains and the actor only looks through; the
    target has a copy of it that follows, as of all else (DrQ, Yarats et al. 2021).
    `opinion` joins the critics for the actor: the least of them, or RLPD's mean. `make_actor` and
    `make_critic` make the networks, where they are not the usual ones; `tasks`: one temperature for each.
    """

    def __init__(
        self,
        space: gymnasium.Space,
        action: ActionSpace,
        settings: SacSettings,
        *,
        seed: int,
        opinion: Opinion = clipped_double_q,
        make_actor: Callable[..., NetworkPolicy] | None = None,
        make_critic: Callable[..., QEnsemble] | None = None,
        tasks: int = 0,
    ) -> None:
        action.require(CONTINUOUS, by="SAC", instead="dqn, or ppo, which serves every action space")
        self.settings, self.opinion = settings, opinion
        self.target_entropy = (
            -float(action.size) if settings.target_entropy is None else settings.target_entropy
        )
        with seeded_initialisation(seed):
            self.actor = (make_actor or squashed_actor)(space, action, settings)
            self.critic = (make_critic or critic_for)(space, action, settings)
            self.temperature = Temperature(settings.initial_temperature, tasks=tasks)
        sight = shared_sight(self.actor, self.critic)
        self.rng = generator(seed, "actions")
        self.target = TargetNetwork(self.critic, settings.rate)
        self.learners = {
            "policy": Learner(
                self.actor,
                self.actor_loss,
                optimizer=adam(self.actor, settings.learning_rate, without=sight),
                acts=without_noise,
            ),
            "critic": Learner(
                self.critic, critic_loss, optimizer=adam(self.critic, settings.critic_learning_rate)
            ),
            "temperature": Learner(
                self.temperature,
                self.temperature_loss,
                optimizer=adam(self.temperature, settings.temperature_learning_rate),
            ),
        }

    @property
    def explore(self) -> Explore:
        """Draws of the present policy."""
        return lambda observation, rng: self.actor.draw(observation, rng)[0]

    @property
    def update_once(self) -> UpdateOnce:
        """Critics and their target; every `policy_every`-th time actor and temperature too."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            found = self.learners["critic"].step(batch | {"value_target": self.value_target(batch)})
            self.target.update()
            metrics = {"critic_loss": found["loss"], "q": found["q"]}
            if (number + 1) % self.settings.policy_every == 0:
                metrics |= self.update_policy(batch)
            return metrics

        return update

    def update_policy(self, batch: Transitions) -> dict[str, float]:
        """A step of the actor, and one of the temperature on the entropy it was found to have."""
        found = self.learners["policy"].step(batch)
        metrics = {"actor_loss": found["loss"], "entropy": found["entropy"]}
        metrics["temperature"] = float(self.temperature().detach().mean())
        if not self.settings.fixed_temperature:
            self.learners["temperature"].step({"log_prob": torch.tensor([-found["entropy"]])})
        return metrics

    @torch.no_grad()
    def value_target(self, batch: Transitions) -> Float[Tensor, "row"]:
        """What the critics are fitted to."""
        action, log_prob = self.soft_draw(batch["next_observation"])
        q = self.target.module(batch["next_observation"], action)
        value = clipped_double_q(q, self._subset())
        if self.settings.backup_entropy:
            temperature = self.temperature_of(batch["next_observation"])
            value = soft_value(value, log_prob, temperature=temperature)
        return td_target(
            batch["reward"],
            value,
            terminated=batch["terminated"],
            discount=batch.get("discount", self.settings.discount),
        )

    def temperature_of(self, observation: Any) -> Tensor:
        """What entropy is worth where these observations were made: the same everywhere, or [row]."""
        return self.temperature()

    def soft_draw(self, observation: Any) -> tuple[Tensor, Float[Tensor, "row"]]:
        """What the policy would do next, for the critics' target."""
        return self.actor.draw(observation, self.rng)

    def actor_loss(
        self, actor: NetworkPolicy, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """temperature log pi - Q of a drawn action, the critics at rest."""
        action, log_prob = actor.draw(batch["observation"], self.rng)
        with frozen(self.critic):
            q = self.opinion(self.critic(batch["observation"], action))
        with torch.no_grad():
            temperature = self.temperature_of(batch["observation"])
        return temperature * log_prob - q, {"entropy": -log_prob}

    def temperature_loss(
        self, temperature: Temperature, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """The temperature falls where the policy is more random than asked for."""
        return temperature_loss(temperature(), batch["log_prob"], target_entropy=self.target_entropy), {}

    def _subset(self) -> Tensor | None:
        count = self.settings.subset
        if count in (0, self.settings.members):
            return None
        return torch.randint(self.settings.members, (count,), generator=self.rng)

    def run_arguments(self) -> dict[str, Any]:
        """What `off_policy_run` is given of them."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.target},
            "explore": self.explore,
            "update_once": self.update_once,
            "generators": {"actions": self.rng},
        }


def critic_loss(critic: QEnsemble, batch: Transitions) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Squared error to `value_target`, the mean over the members."""
    q = critic(batch["observation"], batch["action"])
    return (q - batch["value_target"]).square().mean(0), {"q": q.mean(0)}


def squashed_actor(space: gymnasium.Space, action: ActionSpace, settings: SacSettings) -> NetworkPolicy:
    """The actor for an environment's spaces."""
    return actor_for(
        space,
        action,
        squashed=True,
        hidden=settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
    )


def critic_for(space: gymnasium.Space, action: ActionSpace, settings: Any, **more: Any) -> QEnsemble:
    """Critics of whatever the environment shows; `more` goes to `QEnsemble`."""
    if "body" not in more:
        more["body"] = sight_of(space)
    body = more["body"]
    return QEnsemble(
        vector_size(space) if body is None else body.width,
        action.low,
        action.high,
        members=settings.members,
        hidden=settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        **more,
    )


def sight_of(space: gymnasium.Space, **settings: Any) -> Body | None:
    """What critics see by: a body without layers, whose features are state, goal and encoded pictures.

    None for one vector, which is seen as it is; `settings` go to `Body`.
    """
    return None if list(spaces_of(space)) == [STATE] else body_for(space, hidden=(), **settings)


def shared_sight(actor: NetworkPolicy, critic: QEnsemble) -> nn.Module | None:
    """Let the actor see pictures by the critics' encoder, and return it; None where there are no pictures."""
    if critic.body is None or critic.body.encoder is None:
        return None
    actor.body.look_through(critic.body)
    return actor.body.encoder


def vector_size(space: gymnasium.Space) -> int:
    """Width of an observation that is one vector; `SettingError` for any other."""
    spaces = spaces_of(space)
    if list(spaces) != [STATE]:
        raise SettingError(
            f"the observation has the parts {', '.join(spaces)}",
            expected="an observation that is one vector",
            cure="leave the parts out that are no vectors, or use sac, td3, dqn, serl or ppo, which read all",
        )
    return int(spaces[STATE].shape[0])


def mean_opinion(q: Float[Tensor, "member row"]) -> Float[Tensor, "row"]:
    """All critics' mean: what RLPD's actor follows."""
    return q.mean(0)

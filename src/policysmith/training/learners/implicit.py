"""IQL's learners: a value that is an expectile of Q, critics that back it up, imitation by advantage.

    value:   expectile loss of min Q'(s, a) - V(s)                    over the data's own actions
    critic:  mean over members (Q - (r + discount V(s')))^2
    policy:  -min(exp(beta (min Q'(s, a) - V(s))), cap) log pi(a|s)

Nothing ever asks what an action that is not in the data is worth. The order is value, policy, critic, target,
as in the authors' code: the policy is weighed by the new value, and the critics back it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble, ValueNetwork
from policysmith.networks.targets import TargetNetwork
from policysmith.objectives.values import (
    advantage_weight,
    advantage_weighted_loss,
    clipped_double_q,
    expectile_loss,
    td_target,
)
from policysmith.policies.actors import NetworkPolicy, without_noise
from policysmith.policies.heads import GaussianHead
from policysmith.training.learner import Learner, cosine_schedule
from policysmith.training.learners.off_policy import OfflineSettings, UpdateOnce
from policysmith.training.learners.sac import critic_loss
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam


@dataclass(frozen=True)
class ImplicitSettings(OfflineSettings):
    """IQL on data.

    - `expectile`: of the value; `beta`: how sharply the better actions are imitated (the inverse of a
      temperature), `cap`: most that an action counts.
    - `hidden`: of all networks; `learning_rate`: of all learners, the policy's falling along a half cosine
      where `cosine`; `rate`: of the critics' targets; `dropout` in the policy.
    """

    expectile: float = 0.7
    beta: float = 3.0
    cap: float = 100.0
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    cosine: bool = True
    rate: float = 0.005
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise SettingError(f"expectile is {self.expectile}", expected="above 0 and below 1")
        for name in ("cap", "learning_rate", "rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if self.beta < 0:
            raise SettingError(f"beta is {self.beta}", expected="0 or more")


class ImplicitLearners:
    """Value, policy and critics for one action space, and what is done with them.

    `policy` is by default a Gaussian with a squashed mean and a deviation of its own, as the authors'.
    """

    def __init__(
        self,
        observation_size: int,
        action: ActionSpace,
        settings: ImplicitSettings,
        *,
        seed: int,
        policy: nn.Module | None = None,
    ) -> None:
        self.settings = settings
        relu: dict[str, Any] = {"hidden": settings.hidden, "activation": "relu"}
        with seeded_initialisation(seed):
            self.policy = gaussian_policy(observation_size, action, settings) if policy is None else policy
            self.value = ValueNetwork(Body(observation_size, **relu))
            self.critic = QEnsemble(observation_size, action.low, action.high, hidden=settings.hidden)
        self.target = TargetNetwork(self.critic, settings.rate)
        rate = settings.learning_rate
        schedule = cosine_schedule(warmup=0, total=settings.steps) if settings.cosine else None
        self.learners = {
            "policy": Learner(
                self.policy, imitation_loss, optimizer=adam(self.policy, rate), schedule=schedule, acts=acting
            ),
            "value": Learner(self.value, self.value_loss, optimizer=adam(self.value, rate)),
            "critic": Learner(self.critic, critic_loss, optimizer=adam(self.critic, rate)),
        }

    @property
    def update_once(self) -> UpdateOnce:
        """Value, policy, critics, target."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            q = self.data_value(batch)
            value = self.learners["value"].step(batch | {"q": q})
            advantage = self.advantage(batch, q)
            policy = self.update_policy(batch, advantage)
            critic = self.update_critic(batch)
            return {"value_loss": value["loss"]} | policy | critic

        return update

    def update_policy(self, batch: Transitions, advantage: Tensor) -> dict[str, float]:
        """A step of the policy: the data's actions by their advantages."""
        weight = advantage_weight(advantage, beta=self.settings.beta, cap=self.settings.cap)
        found = self.learners["policy"].step(batch | {"imitation": weight})
        return {"actor_loss": found["loss"], "imitation": float(weight.mean())}

    def update_critic(self, batch: Transitions) -> dict[str, float]:
        """A step of the critics towards reward and value, and of their target."""
        with torch.no_grad():
            target = td_target(
                batch["reward"],
                self.value(batch["next_observation"]),
                terminated=batch["terminated"],
                discount=batch.get("discount", self.settings.discount),
            )
        found = self.learners["critic"].step(batch | {"value_target": target})
        self.target.update()
        return {"critic_loss": found["loss"], "q": found["q"]}

    @torch.no_grad()
    def data_value(self, batch: Transitions) -> Float[Tensor, "row"]:
        """The target critics' least opinion of the data's own actions."""
        return clipped_double_q(self.target.module(batch["observation"], batch["action"]))

    @torch.no_grad()
    def advantage(self, batch: Transitions, q: Float[Tensor, "row"]) -> Float[Tensor, "row"]:
        """By how much the data's actions are better than the value as it is now."""
        return q - self.value(batch["observation"])

    def value_loss(
        self, value: ValueNetwork, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """The expectile loss of Q less V."""
        return expectile_loss(batch["q"] - value(batch["observation"]), expectile=self.settings.expectile), {}

    def run_arguments(self) -> dict[str, Any]:
        """What `offline_run` is given of them."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.target},
            "update_once": self.update_once,
        }


def acting(policy: nn.Module) -> nn.Module:
    """A network policy without its noise, any other as it is."""
    return without_noise(policy) if isinstance(policy, NetworkPolicy) else policy


def imitation_loss(
    policy: NetworkPolicy, batch: Transitions
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Minus the log-density of the data's actions, by what each counts (`imitation`)."""
    log_prob = policy.log_prob(batch["observation"], batch["action"])
    return advantage_weighted_loss(log_prob, batch["imitation"]), {}


def gaussian_policy(observation_size: int, action: ActionSpace, settings: ImplicitSettings) -> NetworkPolicy:
    """A Gaussian whose mean is squashed, with a log-deviation of its own within [-5, 2]."""
    body = Body(observation_size, hidden=settings.hidden, activation="relu", dropout=settings.dropout)
    head = GaussianHead(
        body.width,
        action.size,
        squash_mean=True,
        low=action.low,
        high=action.high,
        log_deviation_range=(-5.0, 2.0),
    )
    return NetworkPolicy(body, head)

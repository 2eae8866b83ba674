"""TD3's learners: one certain actor, two critics, and targets of both that move when the actor does.

    a' = clip(pi'(s') + clip(noise))                       the target policy, smoothed
    y  = r + discount min_i Q'_i(s', a')
    critic:  mean over members (Q - y)^2
    actor:   -Q_1(s, pi(s)), every `policy_every`-th update

What the actor is pulled towards besides is a function at a seam: nothing for TD3, the data's action for
TD3+BC. Noise is given in halves of the action's range, so that settings do not depend on its units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.spaces import CONTINUOUS, ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.targets import TargetNetwork, frozen
from policysmith.objectives.cloning import action_error
from policysmith.objectives.values import clipped_double_q, improvement_scale, smoothed_action, td_target
from policysmith.policies.actors import NetworkPolicy, actor_for
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import Explore, UpdateOnce
from policysmith.training.learners.sac import critic_for, critic_loss, shared_sight, vector_size
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam

Follow = Callable[[Float[Tensor, "row"], Float[Tensor, "row action"], Transitions], Float[Tensor, "row"]]
"""(Q of the actor's actions, the actions, the batch) -> what the actor minimises, per row."""


@dataclass(frozen=True)
class Td3Settings:
    """What TD3's learners need, acting or not.

    - `hidden`, `activation`, `layer_norm`: of actor and critics, of which there are `members`.
    - `learning_rate` of the actor, `critic_learning_rate`; `rate`: of targets.
    - `smoothing`: deviation of the target policy's noise, `smoothing_limit`: what it is clipped to, both in
      halves of the action's range.
    - `policy_every`: critic updates per update of the actor and of all targets.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: bool = False
    members: int = 2
    learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    rate: float = 0.005
    smoothing: float = 0.2
    smoothing_limit: float = 0.5
    policy_every: int = 2

    def check(self) -> None:
        """Raise `SettingError` for what is out of its range."""
        for name in ("members", "policy_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "critic_learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        for name in ("smoothing", "smoothing_limit"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")
        if not 0 < self.rate <= 1:
            raise SettingError(f"rate is {self.rate}", expected="above 0, at most 1")


def improvement(q: Tensor, chosen: Tensor, batch: Transitions) -> Float[Tensor, "row"]:
    """TD3's actor: the critic's opinion and nothing else."""
    return -q


class Td3Learners:
    """Actor, critics and their targets for an environment's spaces, and what is done with them.

    `follow` says what the actor minimises. Where `observed` [step, observation] is given, actor and critics
    see observations standardised by its moments, which are saved with them.
    """

    def __init__(
        self,
        space: gymnasium.Space,
        action: ActionSpace,
        settings: Td3Settings,
        *,
        discount: float,
        seed: int,
        follow: Follow = improvement,
        observed: Observation | None = None,
    ) -> None:
        action.require(CONTINUOUS, by="TD3", instead="dqn, or ppo, which serves every action space")
        self.settings, self.discount, self.follow = settings, discount, follow
        shared: Any = {"normalise": observed is not None}
        reader: dict[str, Any] = {}
        if observed is not None:
            reader["body"] = Body(vector_size(space), hidden=(), **shared)
        with seeded_initialisation(seed):
            self.actor = actor_for(
                space,
                action,
                certain=True,
                hidden=settings.hidden,
                activation=settings.activation,
                layer_norm=settings.layer_norm,
                **shared,
            )
            self.critic = critic_for(space, action, settings, **reader)
        if observed is not None:
            self.actor.body.observe(observed)
            reader["body"].observe(observed)
        sight = shared_sight(self.actor, self.critic)
        self.low, self.high = torch.tensor(action.low), torch.tensor(action.high)
        self.half = (self.high - self.low) / 2
        self.rng = generator(seed, "smoothing")
        self.target = TargetNetwork(self.critic, settings.rate)
        self.target_actor = TargetNetwork(self.actor, settings.rate)
        self.learners = {
            "policy": Learner(
                self.actor, self.actor_loss, optimizer=adam(self.actor, settings.learning_rate, without=sight)
            ),
            "critic": Learner(
                self.critic, critic_loss, optimizer=adam(self.critic, settings.critic_learning_rate)
            ),
        }

    def explore(self, noise: float) -> Explore:
        """The actor's action with Gaussian noise, `noise` halves of its range in size, within the limits."""

        def act(observation: Observation, rng: torch.Generator) -> Tensor:
            action = self.actor.distribution(observation).mode()
            drawn = torch.randn(action.shape, generator=rng) * (noise * self.half)
            return torch.clamp(action + drawn, self.low, self.high)

        return act

    @property
    def update_once(self) -> UpdateOnce:
        """The critics; every `policy_every`-th time the actor, and then both targets."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            found = self.learners["critic"].step(batch | {"value_target": self.value_target(batch)})
            metrics = {"critic_loss": found["loss"], "q": found["q"]}
            if (number + 1) % self.settings.policy_every == 0:
                metrics["actor_loss"] = self.learners["policy"].step(batch)["loss"]
                self.target.update()
                self.target_actor.update()
            return metrics

        return update

    @torch.no_grad()
    def value_target(self, batch: Transitions) -> Float[Tensor, "row"]:
        """What the critics are fitted to."""
        settings, after = self.settings, batch["next_observation"]
        actor: Any = self.target_actor.module
        action = actor.distribution(after).mode()
        noise = torch.randn(action.shape, generator=self.rng) * (settings.smoothing * self.half)
        limit = settings.smoothing_limit * self.half
        action = smoothed_action(action, noise, clip=limit, low=self.low, high=self.high)
        return td_target(
            batch["reward"],
            clipped_double_q(self.target.module(after, action)),
            terminated=batch["terminated"],
            discount=batch.get("discount", self.discount),
        )

    def actor_loss(
        self, actor: NetworkPolicy, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """What `follow` makes of the first critic's opinion of the actor's action, the critics at rest."""
        action = actor.distribution(batch["observation"]).mode()
        with frozen(self.critic):
            q = self.critic(batch["observation"], action)[0]
        return self.follow(q, action, batch), {}

    def run_arguments(self) -> dict[str, Any]:
        """What a run without acting is given of them; one that acts is given `explore` too."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.target, "policy": self.target_actor},
            "update_once": self.update_once,
            "generators": {"smoothing": self.rng},
        }


def anchored(alpha: float, action: ActionSpace) -> Follow:
    """TD3+BC's actor: -Q at a scale of `alpha`, and the squared distance to the data's action.

    Both parts are of a size of their own: Q is divided by its mean size over the batch, and actions are
    measured in halves of their range. Source: Fujimoto and Gu 2021, equations 3 and 5.
    """
    half = (torch.tensor(action.high) - torch.tensor(action.low)) / 2

    def follow(q: Tensor, chosen: Tensor, batch: Transitions) -> Float[Tensor, "row"]:
        return action_error(chosen / half, batch["action"] / half) - improvement_scale(q, alpha=alpha) * q

    return follow

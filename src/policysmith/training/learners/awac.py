"""AWAC's learners: critics of the policy's own actions, and a policy that imitates the data by advantage.

    critic:     mean over members (Q - (r + discount min Q'(s', a')))^2     a' of the policy
    advantage:  A = min Q(s, a) - min Q(s, a'')                             a of the data, a'' of the policy
    policy:     -softmax(A / temperature) log pi(a|s)                       the softmax over the batch

Unlike TD3 or SAC the policy is never moved towards actions that the data lacks, and unlike with IQL the
critics do ask about them. Actions are judged as they are played, within their limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble
from policysmith.networks.targets import TargetNetwork
from policysmith.objectives.values import clipped_double_q, relative_advantage_weight, td_target
from policysmith.policies.actors import NetworkPolicy, without_noise
from policysmith.policies.heads import GaussianHead
from policysmith.training.learner import Learner
from policysmith.training.learners.implicit import imitation_loss
from policysmith.training.learners.off_policy import OfflineSettings, UpdateOnce
from policysmith.training.learners.sac import critic_loss
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam


@dataclass(frozen=True)
class AwacSettings(OfflineSettings):
    """AWAC on data.

    - `temperature`: of the advantages, in units of the reward's sum; a small one imitates the best alone.
    - `hidden` of the policy, `critic_hidden`; `members` critics; `log_deviation_range` of the policy.
    - `learning_rate` of the policy with `weight_decay`, `critic_learning_rate`; `rate`: of targets.
    """

    temperature: float = 1.0
    hidden: tuple[int, ...] = (256, 256, 256, 256)
    critic_hidden: tuple[int, ...] = (256, 256)
    members: int = 2
    log_deviation_range: tuple[float, float] = (-6.0, 0.0)
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    critic_learning_rate: float = 3e-4
    rate: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "learning_rate", "critic_learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if self.weight_decay < 0 or self.members < 1:
            raise SettingError(
                f"weight_decay is {self.weight_decay} and members {self.members}",
                expected="0 or more, and at least 1",
            )
        if not 0 < self.rate <= 1:
            raise SettingError(f"rate is {self.rate}", expected="above 0, at most 1")
        low, high = self.log_deviation_range
        if not low < high:
            raise SettingError(f"log_deviation_range is {low} to {high}", expected="two rising numbers")


class AwacLearners:
    """Policy and critics for one action space, and what is done with them."""

    def __init__(
        self, observation_size: int, action: ActionSpace, settings: AwacSettings, *, seed: int
    ) -> None:
        self.settings = settings
        low, high = settings.log_deviation_range
        with seeded_initialisation(seed):
            body = Body(observation_size, hidden=settings.hidden, activation="relu")
            head = GaussianHead(
                body.width,
                action.size,
                squash_mean=True,
                low=action.low,
                high=action.high,
                log_deviation_range=(low, high),
                initial_log_deviation=(low + high) / 2,
            )
            self.policy = NetworkPolicy(body, head)
            self.critic = QEnsemble(
                observation_size,
                action.low,
                action.high,
                members=settings.members,
                hidden=settings.critic_hidden,
            )
        self.low, self.high = torch.tensor(action.low), torch.tensor(action.high)
        self.rng = generator(seed, "actions")
        self.target = TargetNetwork(self.critic, settings.rate)
        optimizer = adam(self.policy, settings.learning_rate, weight_decay=settings.weight_decay)
        self.learners = {
            "policy": Learner(self.policy, imitation_loss, optimizer=optimizer, acts=without_noise),
            "critic": Learner(
                self.critic, critic_loss, optimizer=adam(self.critic, settings.critic_learning_rate)
            ),
        }

    @property
    def update_once(self) -> UpdateOnce:
        """Critics and their target, then the policy by the critics as they are now."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            critic = self.learners["critic"].step(batch | {"value_target": self.value_target(batch)})
            self.target.update()
            advantage = self.advantage(batch)
            weight = relative_advantage_weight(advantage, temperature=self.settings.temperature)
            policy = self.learners["policy"].step(batch | {"imitation": weight})
            return {
                "critic_loss": critic["loss"],
                "q": critic["q"],
                "actor_loss": policy["loss"],
                "advantage": float(advantage.mean()),
                # How many rows of the batch the weights amount to: near 1, one row decides.
                "effective_rows": float(weight.sum().square() / weight.square().sum()),
            }

        return update

    @torch.no_grad()
    def value_target(self, batch: Transitions) -> Float[Tensor, "row"]:
        """What the critics are fitted to."""
        after = batch["next_observation"]
        return td_target(
            batch["reward"],
            clipped_double_q(self.target.module(after, self.drawn(after))),
            terminated=batch["terminated"],
            discount=batch.get("discount", self.settings.discount),
        )

    @torch.no_grad()
    def advantage(self, batch: Transitions) -> Float[Tensor, "row"]:
        """By how much the data's actions are better than one of the policy's."""
        seen = batch["observation"]
        taken = clipped_double_q(self.critic(seen, batch["action"]))
        return taken - clipped_double_q(self.critic(seen, self.drawn(seen)))

    def drawn(self, observation: Observation) -> Float[Tensor, "row action"]:
        """The policy's actions, within their limits."""
        return torch.clamp(self.policy.draw(observation, self.rng)[0], self.low, self.high)

    def run_arguments(self) -> dict[str, Any]:
        """What `offline_run` is given of them."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.target},
            "update_once": self.update_once,
            "generators": {"actions": self.rng},
        }

"""A family over conservative Q-learning: the balance multiplies what is improved.

    actor:    T log pi(a | s, balance) - balance min Q(s, a)    on its own actions, T tuned to an entropy
    chooser:  -min Q(s, a)
    critics:  (Q - y)^2 + penalty (log of the integral of exp Q - Q of the data's action)

The critics back up their targets' opinion of the next action, without entropy. Actor, temperature, chooser
and critics of one update all learn from the critics as they were before it.

Source: Wang et al. 2023 (FamO2O), appendix on CQL, with Kumar et al. 2020 (CQL), and the authors' code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.critics import QEnsemble
from policysmith.networks.targets import TargetNetwork, frozen
from policysmith.objectives.values import clipped_double_q, conservative_penalty, td_target
from policysmith.policies.family import BalanceChooser, FamilyPolicy
from policysmith.policies.heads import SquashedGaussianHead
from policysmith.training.learner import Learner
from policysmith.training.learners.family import (
    FamilySettings,
    LogTemperature,
    Values,
    actor_learner,
    balances,
    entropy_loss,
    exploring,
    family_policy,
)
from policysmith.training.learners.off_policy import UpdateOnce
from policysmith.training.learners.sac import adam, critic_loss
from policysmith.training.loop import RunState


class ConservativeFamily:
    """Actor, chooser, temperature and conservative critics for one action space."""

    def __init__(
        self, observation_size: int, action: ActionSpace, settings: FamilySettings, *, seed: int
    ) -> None:
        self.settings, self.action, self.rng = settings, action, generator(seed, "balances")
        self.policy = family_policy(
            observation_size,
            lambda width: SquashedGaussianHead(width, action.low, action.high),
            settings,
            seed=seed,
        )
        with seeded_initialisation(seed):
            self.critic = QEnsemble(
                observation_size, action.low, action.high, hidden=settings.hidden, layer_norm=True
            )
        self.temperature = LogTemperature(settings.initial_temperature)
        self.target = TargetNetwork(self.critic, settings.rate)
        rate = settings.learning_rate
        self.learners = {
            "policy": actor_learner(self.policy, self.actor_loss, settings),
            "critic": Learner(self.critic, self.critic_loss, optimizer=adam(self.critic, rate)),
            "temperature": Learner(
                self.temperature, entropy_loss(-float(action.size)), optimizer=adam(self.temperature, rate)
            ),
        }
        if not settings.random_balances:
            chooser = self.policy.chooser
            self.learners["chooser"] = Learner(chooser, self.chooser_loss, optimizer=adam(chooser, rate))

    @property
    def update_once(self) -> UpdateOnce:
        """Actor, temperature, chooser, critics, target."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            balance, judged = self.drawn(state, batch)  # before any step
            found = self.learners["policy"].step(batch | {"balance": balance})
            self.learners["temperature"].step({"entropy": torch.tensor([found["entropy"]])})
            metrics = {"actor_loss": found["loss"], "entropy": found["entropy"]}
            if "chooser" in self.learners and (number + 1) % self.settings.chooser_every == 0:
                metrics["balance"] = self.learners["chooser"].step(batch)["balance"]
            found = self.learners["critic"].step(batch | judged)
            self.target.update()
            return metrics | {"critic_loss": found["loss"], "q": found["q"], "gap": found["gap"]}

        return update

    @torch.no_grad()
    def drawn(self, state: RunState, batch: Transitions) -> tuple[Float[Tensor, "row"], Transitions]:
        """The balances of the rows; and what the critics learn from: `value_target` and sampled actions."""
        settings, following = self.settings, batch["next_observation"]
        balance = balances(state, self.policy, batch["observation"], settings, self.rng)
        then = (
            balances(state, self.policy, following, settings, self.rng) if settings.balance_anew else balance
        )
        next_action, _ = self.policy.draw(following, then, self.rng)
        target = td_target(
            batch["reward"],
            clipped_double_q(self.target.module(following, next_action)),
            terminated=batch["terminated"],
            discount=batch.get("discount", settings.discount),
        )
        parts = [
            self._uniform(len(balance)),
            self._of(batch["observation"], balance),
            self._of(following, then),
        ]
        action, log_density = (torch.cat(some, 1) for some in zip(*parts, strict=True))
        return balance, {
            "value_target": target,
            "sampled_action": action,
            "sampled_log_density": log_density,
        }

    def actor_loss(self, policy: FamilyPolicy, batch: Transitions) -> Values:
        """temperature log pi - balance Q of a drawn action, the critics at rest."""
        action, log_prob = policy.draw(batch["observation"], batch["balance"], self.rng)
        with frozen(self.critic):
            q = clipped_double_q(self.critic(batch["observation"], action))
        with torch.no_grad():
            temperature = self.temperature()
        return temperature * log_prob - batch["balance"] * q, {"entropy": -log_prob.detach()}

    def chooser_loss(self, chooser: BalanceChooser, batch: Transitions) -> Values:
        """Minus what the critics say of the action that the choice leads to."""
        observation = batch["observation"]
        balance, _ = chooser.draw(observation, self.rng)
        with frozen(self.policy.actor, self.critic):
            action, _ = self.policy.draw(observation, balance, self.rng)
            q = clipped_double_q(self.critic(observation, action))
        return -q, {"balance": balance.detach()}

    def critic_loss(self, critic: QEnsemble, batch: Transitions) -> Values:
        """Squared error to `value_target` and the conservative penalty, means over the members."""
        values, statistics = critic_loss(critic, batch)
        sampled = batch["sampled_action"]
        rows, count = sampled.shape[:2]
        repeated = batch["observation"].repeat_interleave(count, 0)
        q = critic(repeated, sampled.flatten(0, 1)).unflatten(-1, (rows, count))
        data_q = critic(batch["observation"], batch["action"])
        gap = conservative_penalty(q, batch["sampled_log_density"], data_q).mean(0)
        return values + self.settings.penalty * gap, statistics | {"gap": gap.detach()}

    def run_arguments(self) -> dict[str, Any]:
        """What `off_policy_run` is given of them."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.target},
            "explore": exploring(self.policy),
            "update_once": self.update_once,
            "generators": {"balances": self.rng},
        }

    def _uniform(self, rows: int) -> tuple[Tensor, Tensor]:
        """Any actions [row, sample, action], and the logarithm of their density in the unit cube."""
        shape = (rows, self.settings.sampled_actions)
        low, high = torch.tensor(self.action.low), torch.tensor(self.action.high)
        action = low + torch.rand(*shape, self.action.size, generator=self.rng) * (high - low)
        return action, torch.full(shape, -self.action.size * math.log(2))

    def _of(self, observation: Tensor, balance: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of the members at the observations, and the logarithms of their densities."""
        count = self.settings.sampled_actions
        action, log_prob = self.policy.draw(
            observation.repeat_interleave(count, 0), balance.repeat_interleave(count), self.rng
        )
        return action.unflatten(0, (-1, count)), log_prob.unflatten(0, (-1, count))

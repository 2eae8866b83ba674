"""A family over implicit Q-learning: the balance is the inverse temperature of the regression.

    actor:    -min(exp(balance (Q - V)), cap) log pi(a | s, balance)    on the data's actions
    chooser:  T log p(balance | s) - Q(s, a)    by the target critics, T tuned to an entropy

Value, critics and targets are those of IQL. One update goes value, chooser, temperature, actor, critics,
targets, each learning from what those before it have become.

Source: Wang et al. 2023 (FamO2O), section 5, with Kostrikov et al. 2022 (IQL); the order is that of the
authors' code.
"""

from __future__ import annotations

from typing import Any

import torch

from policysmith.common.rng import generator
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.targets import frozen
from policysmith.objectives.values import advantage_weight, advantage_weighted_loss, clipped_double_q
from policysmith.policies.family import BalanceChooser, FamilyPolicy
from policysmith.policies.heads import GaussianHead
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
from policysmith.training.learners.implicit import ImplicitLearners, ImplicitSettings
from policysmith.training.learners.off_policy import UpdateOnce
from policysmith.training.learners.sac import adam
from policysmith.training.loop import RunState


class ImplicitFamily(ImplicitLearners):
    """IQL's learners with a family for a policy, and with a chooser and its temperature beside them."""

    policy: FamilyPolicy

    def __init__(
        self, observation_size: int, action: ActionSpace, settings: FamilySettings, *, seed: int
    ) -> None:
        def head(width: int) -> GaussianHead:
            return GaussianHead(
                width,
                action.size,
                squash_mean=True,
                low=action.low,
                high=action.high,
                log_deviation_range=(-5.0, 2.0),
            )

        policy = family_policy(observation_size, head, settings, seed=seed)
        super().__init__(observation_size, action, implicit_settings(settings), seed=seed, policy=policy)
        self.family, self.rng = settings, generator(seed, "balances")
        self.temperature = LogTemperature(settings.initial_temperature)
        self.learners["policy"] = actor_learner(policy, self.actor_loss, settings)
        if not settings.random_balances:
            self.learners["chooser"] = Learner(
                policy.chooser, self.chooser_loss, optimizer=adam(policy.chooser, settings.learning_rate)
            )
            self.learners["temperature"] = Learner(
                self.temperature,
                entropy_loss(settings.target_entropy),
                optimizer=adam(self.temperature, settings.learning_rate),
            )

    @property
    def update_once(self) -> UpdateOnce:
        """Value, chooser, temperature, actor, critics, target."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            q = self.data_value(batch)
            # From the chooser as it was before its step.
            balance = balances(state, self.policy, batch["observation"], self.family, self.rng)
            metrics = {"value_loss": self.learners["value"].step(batch | {"q": q})["loss"]}
            if "chooser" in self.learners and (number + 1) % self.family.chooser_every == 0:
                metrics |= self.update_chooser(batch)
            advantage = self.advantage(batch, q)
            weight = advantage_weight(advantage, beta=balance, cap=self.family.cap)
            found = self.learners["policy"].step(batch | {"balance": balance, "imitation": weight})
            metrics |= {"actor_loss": found["loss"], "imitation": float(weight.mean())}
            return metrics | self.update_critic(batch)

        return update

    def update_chooser(self, batch: Transitions) -> dict[str, float]:
        """A step of the chooser, and one of its temperature on the entropy it was found to have."""
        found = self.learners["chooser"].step(batch)
        self.learners["temperature"].step({"entropy": torch.tensor([found["entropy"]])})
        return {"balance": found["balance"], "balance_entropy": found["entropy"]}

    def actor_loss(self, policy: FamilyPolicy, batch: Transitions) -> Values:
        """Minus the log-density of the data's actions under their members, by what each counts."""
        log_prob = policy.log_prob(batch["observation"], batch["action"], batch["balance"])
        return advantage_weighted_loss(log_prob, batch["imitation"]), {}

    def chooser_loss(self, chooser: BalanceChooser, batch: Transitions) -> Values:
        """The price of certainty, less what the target critics say of the action that the choice leads to."""
        observation = batch["observation"]
        balance, log_prob = chooser.draw(observation, self.rng)
        with frozen(self.policy.actor):
            action, _ = self.policy.draw(observation, balance, self.rng)
        q = clipped_double_q(self.target.module(observation, action))
        with torch.no_grad():
            temperature = self.temperature()
        return temperature * log_prob - q, {"balance": balance.detach(), "entropy": -log_prob.detach()}

    def run_arguments(self) -> dict[str, Any]:
        """What `off_policy_run` is given of them."""
        return super().run_arguments() | {
            "explore": exploring(self.policy),
            "generators": {"balances": self.rng},
        }


def implicit_settings(settings: FamilySettings) -> ImplicitSettings:
    """What the base needs of a family's settings; it has no balance of its own."""
    return ImplicitSettings(
        steps=settings.steps,
        batch_size=settings.batch_size,
        discount=settings.discount,
        expectile=settings.expectile,
        cap=settings.cap,
        hidden=settings.hidden,
        learning_rate=settings.learning_rate,
        cosine=False,
        rate=settings.rate,
    )

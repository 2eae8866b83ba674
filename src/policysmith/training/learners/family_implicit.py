"""A family over implicit Q-learning: the balance is the inverse temperature of the regression.

    actor:    -min(exp(balance (Q - V)), cap) log pi(a | s, balance)    on the data's actions
    chooser:  T log p(balance | s) - Q(s, a)    with the target critics, T tuned to an entropy

Value, critics and targets are those of IQL. One update goes value, chooser, temperature, actor, critics,
targets, each learning from what those before it have become.

Source: Wang et al. 2023 (FamO2O), section 5, with Kostrikov et al. 2022 (IQL); the order is that of the
authors' code.
"""

from __future__ import annotations

import torch

from policysmith.common.spaces import ActionSpace
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble, ValueNetwork
from policysmith.networks.targets import TargetNetwork, frozen
from policysmith.objectives.values import (
    advantage_weight,
    advantage_weighted_loss,
    clipped_double_q,
    expectile_loss,
)
from policysmith.policies.family import BalanceChooser, FamilyPolicy
from policysmith.policies.heads import GaussianHead
from policysmith.training.learners.family import (
    Family,
    FamilySettings,
    Rows,
    Temperature,
    Values,
    balance_for,
    critic_loss,
    entropy_loss,
    family_policy,
    learner_of,
    named,
    one_step_target,
)
from policysmith.training.loop import RunState


def implicit_family(
    observation_size: int, space: ActionSpace, settings: FamilySettings, rng: torch.Generator
) -> Family:
    """A family over implicit Q-learning; balances and actions are drawn from `rng`."""
    policy = family_policy(
        observation_size,
        lambda width: GaussianHead(width, space.size, squash_mean=True, log_deviation_range=(-5.0, 2.0)),
        settings,
    )
    critics = QEnsemble(observation_size, space.low, space.high, hidden=settings.hidden)
    value = ValueNetwork(Body(observation_size, hidden=settings.hidden, activation="relu"))
    target = TargetNetwork(critics, settings.target_rate)

    def value_loss(value: ValueNetwork, batch: Rows) -> Values:
        said = value(batch["observation"])
        return expectile_loss(batch["q"] - said, expectile=settings.expectile), {"mean": said.detach()}

    def policy_loss(policy: FamilyPolicy, batch: Rows) -> Values:
        log_prob = policy.log_prob(batch["observation"], batch["action"], batch["balance"])
        weight = advantage_weight(batch["advantage"], beta=batch["balance"], cap=settings.weight_cap)
        return advantage_weighted_loss(log_prob, weight), {"weight": weight}

    def chooser_loss(chooser: BalanceChooser, batch: Rows) -> Values:
        balance, log_prob = chooser.draw(batch["observation"], rng)
        with frozen(policy.actor):
            action, _ = policy.draw(batch["observation"], balance, rng)
        q = clipped_double_q(target.module(batch["observation"], action))
        values = temperature.value.detach() * log_prob - q
        return values, {"balance": balance.detach(), "entropy": -log_prob.detach()}

    temperature = Temperature(settings.initial_temperature)
    learners = {
        "policy": learner_of(policy, policy_loss, settings, of=policy.actor),
        "critics": learner_of(critics, critic_loss, settings),
        "value": learner_of(value, value_loss, settings),
    }
    if not settings.random_balances:
        learners["chooser"] = learner_of(policy.chooser, chooser_loss, settings)
        learners["temperature"] = learner_of(temperature, entropy_loss(settings), settings)

    def update(state: RunState, batch: Rows) -> dict[str, float]:
        observation, metrics = batch["observation"], {}
        with torch.no_grad():
            q = clipped_double_q(target.module(observation, batch["action"]))
            # Drawn before the chooser's step: from the chooser as it was.
            balance = balance_for(state, policy, batch, settings, rng)
        metrics |= named("value", learners["value"].step(batch | {"q": q}))
        if "chooser" in learners and learners["value"].steps % settings.chooser_every == 0:
            metrics |= named("chooser", learners["chooser"].step(batch))
            entropy = torch.tensor([metrics["chooser/entropy"]])
            metrics |= named("temperature", learners["temperature"].step({"entropy": entropy}))
        with torch.no_grad():
            advantage = q - value(observation)
            next_value = value(batch["next_observation"])
        weighted = batch | {"balance": balance, "advantage": advantage}
        metrics |= named("policy", learners["policy"].step(weighted))
        y = one_step_target(batch, next_value, settings)
        metrics |= named("critics", learners["critics"].step(batch | {"target": y}))
        target.update()
        return metrics

    return Family(learners, {"critics": target}, update)

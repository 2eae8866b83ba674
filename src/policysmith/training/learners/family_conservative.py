"""A family over conservative Q-learning: the balance multiplies what is improved.

    actor:    T log pi(a | s, balance) - balance min Q(s, a)    on its own actions, T tuned to an entropy
    chooser:  -min Q(s, a)
    critics:  (Q - y)^2 + penalty (log of the integral of exp Q - Q of the data's action)

Actor, temperature, chooser and critics of one update all learn from the critics as they were before it.

Source: Wang et al. 2023 (FamO2O), appendix on CQL, with Kumar et al. 2020 (CQL), and the authors' code.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.spaces import ActionSpace
from policysmith.networks.critics import QEnsemble
from policysmith.networks.targets import TargetNetwork, frozen
from policysmith.objectives.values import clipped_double_q, conservative_penalty
from policysmith.policies.family import BalanceChooser, FamilyPolicy
from policysmith.policies.heads import SquashedGaussianHead
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


def conservative_family(
    observation_size: int, space: ActionSpace, settings: FamilySettings, rng: torch.Generator
) -> Family:
    """A family over conservative Q-learning on SAC; balances and actions are drawn from `rng`."""
    policy = family_policy(
        observation_size, lambda width: SquashedGaussianHead(width, space.low, space.high), settings
    )
    critics = QEnsemble(observation_size, space.low, space.high, hidden=settings.hidden, layer_norm=True)
    target = TargetNetwork(critics, settings.target_rate)
    temperature = Temperature(settings.initial_temperature)

    def policy_loss(policy: FamilyPolicy, batch: Rows) -> Values:
        balance = batch["balance"]
        action, log_prob = policy.draw(batch["observation"], balance, rng)
        with frozen(critics):
            q = clipped_double_q(critics(batch["observation"], action))
        values = temperature.value.detach() * log_prob - balance * q
        return values, {"entropy": -log_prob.detach(), "balance": balance}

    def chooser_loss(chooser: BalanceChooser, batch: Rows) -> Values:
        balance, _ = chooser.draw(batch["observation"], rng)
        with frozen(policy.actor, critics):
            action, _ = policy.draw(batch["observation"], balance, rng)
            q = clipped_double_q(critics(batch["observation"], action))
        return -q, {"balance": balance.detach()}

    def conservative_loss(critics: QEnsemble, batch: Rows) -> Values:
        values, statistics = critic_loss(critics, batch)
        observation, sampled = batch["observation"], batch["sampled_action"]
        rows, count = sampled.shape[:2]
        repeated = observation.repeat_interleave(count, 0)
        sampled_q = critics(repeated, sampled.flatten(0, 1)).unflatten(-1, (rows, count))
        data_q = critics(observation, batch["action"])
        gap = conservative_penalty(sampled_q, batch["sampled_log_density"], data_q).sum(0)
        return values + settings.penalty * gap, statistics | {"gap": gap.detach()}

    learners = {
        "policy": learner_of(policy, policy_loss, settings, of=policy.actor),
        "critics": learner_of(critics, conservative_loss, settings),
        "temperature": learner_of(temperature, entropy_loss(settings, target=-float(space.size)), settings),
    }
    if not settings.random_balances:
        learners["chooser"] = learner_of(policy.chooser, chooser_loss, settings)

    @torch.no_grad()
    def next_and_sampled(batch: Rows, balance: Tensor, next_balance: Tensor) -> Rows:
        """The next action, and the actions by which the penalty estimates its integral."""
        count, rows = settings.sampled_actions, len(balance)
        observation, following = batch["observation"], batch["next_observation"]
        anything = _uniform_actions(rows * count, space, rng)
        draws = [(anything, torch.full((rows * count,), -space.size * math.log(2)))]
        for seen, told in ((observation, balance), (following, next_balance)):
            draws.append(policy.draw(seen.repeat_interleave(count, 0), told.repeat_interleave(count), rng))
        action = torch.cat([one.unflatten(0, (rows, count)) for one, _ in draws], 1)
        log_density = torch.cat([one.unflatten(0, (rows, count)) for _, one in draws], 1)
        next_action, _ = policy.draw(following, next_balance, rng)
        next_q = clipped_double_q(target.module(following, next_action))
        return {
            "target": one_step_target(batch, next_q, settings),
            "sampled_action": action,
            "sampled_log_density": log_density,
        }

    def update(state: RunState, batch: Rows) -> dict[str, float]:
        with torch.no_grad():
            balance = next_balance = balance_for(state, policy, batch, settings, rng)
            if settings.next_balance_anew:
                following = {"observation": batch["next_observation"]}
                next_balance = balance_for(state, policy, following, settings, rng)
        # All draws before any step: everything below learns from the networks as they were.
        judged = batch | next_and_sampled(batch, balance, next_balance)
        metrics = named("policy", learners["policy"].step(batch | {"balance": balance}))
        entropy = torch.tensor([metrics["policy/entropy"]])
        metrics |= named("temperature", learners["temperature"].step({"entropy": entropy}))
        if "chooser" in learners and learners["policy"].steps % settings.chooser_every == 0:
            metrics |= named("chooser", learners["chooser"].step(batch))
        metrics |= named("critics", learners["critics"].step(judged))
        target.update()
        return metrics

    return Family(learners, {"critics": target}, update)


def _uniform_actions(rows: int, space: ActionSpace, rng: torch.Generator) -> Float[Tensor, "row action"]:
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    return low + torch.rand(rows, space.size, generator=rng) * (high - low)

"""PPO's loss at the seam of the on-policy loop, and the actor-critic its runs start from.

L = L_clip + value_weight L_value - entropy_weight H
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.rng import seeded_initialisation
from policysmith.experience.interaction import Interaction
from policysmith.networks.critics import ValueNetwork
from policysmith.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss
from policysmith.policies.actors import actor_for, body_for
from policysmith.policies.heads import orthogonal
from policysmith.training.learner import Loss
from policysmith.training.learners.on_policy import ActorCritic, OnPolicySettings, Rollout, on_policy_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class PpoSettings(OnPolicySettings):
    """PPO on top of the on-policy loop.

    - `clip`: range of the ratio; `value_clip`: range of the value's move per rollout (None: free).
    - `value_weight`, `entropy_weight`: of their losses.
    - `target_kl`: the passes over a rollout end when an optimiser step's estimate exceeds it (None: never).
    """

    clip: float = 0.2
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    target_kl: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip < 1:
            raise SettingError(f"clip is {self.clip}", expected="above 0 and below 1")
        for name in ("value_weight", "entropy_weight"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")


def actor_critic(
    interaction: Interaction, settings: OnPolicySettings, *, seed: int, objectives: int = 0
) -> ActorCritic:
    """Actor and critic for the spaces of an interaction, started orthogonally as PPO's usually are.

    With a cell, and where there are pictures or planes, both read one body; else each has its own.
    `objectives`: length of the reward vector, 0 for a number.
    """
    space = interaction.environments.observation_space
    body: dict[str, Any] = {
        "hidden": settings.hidden,
        "activation": settings.activation,
        "normalise": settings.normalise_observations,
    }
    with seeded_initialisation(seed):
        policy = actor_for(
            space,
            interaction.action_space,
            gain=0.01,
            cell=settings.cell,
            memory_width=settings.memory_width,
            **body,
        )
        outputs = max(1, objectives)
        shared = bool(settings.cell or policy.pictures or policy.body.convolutions is not None)
        critic = (
            nn.Linear(policy.body.width, outputs)
            if shared
            else ValueNetwork(body_for(space, **body), outputs=outputs)
        )
        agent = ActorCritic(policy, critic)
        for part in [policy.body] if isinstance(critic, nn.Linear) else [policy.body, critic.body]:
            for layer in part.layers:
                if isinstance(layer, nn.Linear):
                    orthogonal(layer, 2**0.5)
        orthogonal(critic if isinstance(critic, nn.Linear) else critic.value, 1.0)
    agent.objectives = objectives
    return agent


def ppo_loss(settings: PpoSettings) -> Loss:
    """The clipped loss per row, the value's and the entropy's added."""

    def loss(agent: ActorCritic, batch: Rollout) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        old, advantage = batch["behaviour_log_prob"].flatten(), batch["advantage"].flatten()
        deviation, mean = torch.std_mean(advantage)
        advantage = (advantage - mean) / (deviation + 1e-8)
        log_prob, entropy, value = agent.evaluate(batch)
        values = clipped_policy_loss(log_prob, old, advantage, low=settings.clip, high=settings.clip)
        error = value_error(value, batch, settings)
        values = values + settings.value_weight * error
        if settings.entropy_weight:
            values = values - settings.entropy_weight * entropy
        return values, statistics(log_prob, old, advantage, entropy, error, settings)

    return loss


def value_error(value: Tensor, batch: Rollout, settings: PpoSettings) -> Float[Tensor, "row"]:
    """Half the squared error of the values, clipped where asked for; the mean over objectives of a vector."""
    target = batch["value_target"].reshape(value.shape)
    if settings.value_clip is None:
        error = 0.5 * (value - target).square()
    else:
        before = batch["old_value"].reshape(value.shape)
        error = clipped_value_loss(value, before, target, low=settings.value_clip, high=settings.value_clip)
    return error.flatten(1).mean(1) if error.dim() > 1 else error


@torch.no_grad()
def statistics(
    log_prob: Tensor, old: Tensor, advantage: Tensor, entropy: Tensor, error: Tensor, settings: PpoSettings
) -> dict[str, Tensor]:
    """What a PPO run is watched by: entropy, value loss, clipped share, and the divergence moved (k3)."""
    moved = log_prob - old
    gone = moved.exp() - 1
    return {
        "entropy": entropy,
        "value_loss": error,
        # `objectives.policy_gradient.clipped_share` with one range, in half as many calls.
        "clipped": (gone * advantage.sign() > settings.clip).float(),
        "kl": gone - moved,
    }


def ppo_run(
    agent: ActorCritic,
    interaction: Interaction,
    *,
    settings: PpoSettings,
    seed: int,
    loss: Loss | None = None,
    advantage: Callable[[Rollout], Rollout] | None = None,
    label: Callable[[Rollout], Rollout] = lambda rollout: rollout,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """The on-policy run with PPO's loss (or another in its place)."""
    target = settings.target_kl
    return on_policy_run(
        agent,
        interaction,
        loss=ppo_loss(settings) if loss is None else loss,
        advantage=advantage,
        label=label,
        settings=settings,
        seed=seed,
        stop_early=(lambda metrics: False) if target is None else lambda metrics: metrics["kl"] > target,
        state=state,
    )

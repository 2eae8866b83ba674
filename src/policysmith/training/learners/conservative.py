"""CQL's learners: SAC's, with critics that are held down wherever the data has no actions.

    critic:  mean over members (Q - y)^2 + weight (log int exp Q(s, a) da - Q(s, a_data))

The integral is estimated by importance sampling from `samples` actions each of three proposals: uniform ones,
the policy's at s, and the policy's at s' (all judged at s). The penalty makes the critics' opinion of the
policy a lower bound of the truth, so that the actor can follow them as SAC's does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.critics import QEnsemble
from policysmith.objectives.values import conservative_penalty
from policysmith.policies.actors import NetworkPolicy, without_noise
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import OfflineSettings, UpdateOnce
from policysmith.training.learners.sac import SacLearners, SacSettings, critic_loss
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam

Draw = Callable[[Tensor], tuple[Tensor, Float[Tensor, "row"]]]
"""Observations [row, ...] -> an action of the policy for each, and its log-density in the unit cube."""


@dataclass(frozen=True)
class ConservativeSettings(OfflineSettings):
    """CQL on data.

    - `penalty_weight`: of holding the critics down; `samples`: actions of each of the three proposals.
    - `cloning_steps`: at first the actor imitates the data, with entropy, instead of following the critics.
    - `hidden`, `layer_norm`: of actor and critics; `learning_rate` of the actor and the temperature,
      `critic_learning_rate`; `rate`: of targets; `backup_entropy`: count the entropy in the critics' target.
    """

    penalty_weight: float = 5.0
    samples: int = 10
    cloning_steps: int = 40_000
    hidden: tuple[int, ...] = (256, 256, 256)
    layer_norm: bool = False
    learning_rate: float = 1e-4
    critic_learning_rate: float = 3e-4
    rate: float = 0.005
    backup_entropy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty_weight < 0 or self.cloning_steps < 0:
            raise SettingError(
                f"penalty_weight is {self.penalty_weight} and cloning_steps {self.cloning_steps}",
                expected="0 or more each",
            )
        if self.samples < 1:
            raise SettingError(f"samples is {self.samples}", expected="at least 1")
        self.sac()

    def sac(self) -> SacSettings:
        """The settings of the learners underneath; `SettingError` for what is out of its range."""
        return SacSettings(
            hidden=self.hidden,
            layer_norm=self.layer_norm,
            learning_rate=self.learning_rate,
            critic_learning_rate=self.critic_learning_rate,
            temperature_learning_rate=self.learning_rate,
            rate=self.rate,
            backup_entropy=self.backup_entropy,
            batch_size=self.batch_size,
            discount=self.discount,
        )


class ConservativeLearners:
    """SAC's learners with the penalty in the critics' loss, and imitation before the actor follows them."""

    def __init__(
        self, space: gymnasium.Space, action: ActionSpace, settings: ConservativeSettings, *, seed: int
    ) -> None:
        self.settings, self.action = settings, action
        self.sac = SacLearners(space, action, settings.sac(), seed=seed)
        actor, critic = self.sac.actor, self.sac.critic
        self.learners = self.sac.learners
        self.learners["policy"] = Learner(
            actor, self.actor_loss, optimizer=adam(actor, settings.learning_rate), acts=without_noise
        )
        self.learners["critic"] = Learner(
            critic, self.critic_loss, optimizer=adam(critic, settings.critic_learning_rate)
        )

    @property
    def update_once(self) -> UpdateOnce:
        """The critics and their target, then actor and temperature."""

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            sac = self.sac
            sampled, density = sampled_actions(
                batch,
                self.action,
                draw=lambda observation: sac.actor.draw(observation, sac.rng),
                samples=self.settings.samples,
                rng=sac.rng,
            )
            found = self.learners["critic"].step(
                batch | {"value_target": sac.value_target(batch), "sampled": sampled, "log_density": density}
            )
            sac.target.update()
            metrics = {"critic_loss": found["loss"], "q": found["q"], "penalty": found["penalty"]}
            return metrics | sac.update_policy(batch)

        return update

    def critic_loss(
        self, critic: QEnsemble, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """SAC's, and `penalty_weight` times the penalty."""
        error, statistics = critic_loss(critic, batch)
        held = penalty(critic, batch)
        return error + self.settings.penalty_weight * held, statistics | {"penalty": held}

    def actor_loss(
        self, actor: NetworkPolicy, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """SAC's; in the first `cloning_steps` steps log pi of the data's action in the critics' place."""
        if self.learners["policy"].steps >= self.settings.cloning_steps:
            return self.sac.actor_loss(actor, batch)
        _, log_prob = actor.draw(batch["observation"], self.sac.rng)
        imitated = actor.log_prob(batch["observation"], batch["action"])
        with torch.no_grad():
            temperature = self.sac.temperature()
        return temperature * log_prob - imitated, {"entropy": -log_prob}

    def run_arguments(self) -> dict[str, Any]:
        """What `offline_run` is given of them."""
        return {
            "learners": self.learners,
            "targets": {"critic": self.sac.target},
            "update_once": self.update_once,
            "generators": {"actions": self.sac.rng},
        }


def penalty(critic: QEnsemble, batch: Transitions) -> Float[Tensor, "row"]:
    """CQL's penalty for the batch's `sampled` actions and their `log_density`, the mean over the members."""
    observation, sampled = batch["observation"], batch["sampled"]
    rows, samples = sampled.shape[:2]
    # The data's action is one more sample, so that all are judged in one pass.
    actions = torch.cat([sampled, batch["action"][:, None]], 1).flatten(0, 1)
    q = critic(observation.repeat_interleave(samples + 1, 0), actions).unflatten(-1, (rows, samples + 1))
    return conservative_penalty(q[..., :-1], batch["log_density"], q[..., -1]).mean(0)


@torch.no_grad()
def sampled_actions(
    batch: Transitions, action: ActionSpace, *, draw: Draw, samples: int, rng: torch.Generator
) -> tuple[Float[Tensor, "row sample action"], Float[Tensor, "row sample"]]:
    """`samples` actions each of the three proposals, and how densely each was drawn, in the unit cube.

    `draw` is the policy; it is asked for actions at the batch's observations and at those that follow.
    """
    rows = len(batch["reward"])
    low, high = torch.tensor(action.low), torch.tensor(action.high)
    uniform = low + (high - low) * torch.rand(rows, samples, action.size, generator=rng)
    found, density = [uniform], [torch.full((rows, samples), -action.size * math.log(2))]
    for key in ("observation", "next_observation"):
        drawn, log_prob = draw(batch[key].repeat_interleave(samples, 0))
        found.append(drawn.unflatten(0, (rows, samples)))
        density.append(log_prob.unflatten(0, (rows, samples)))
    return torch.cat(found, 1), torch.cat(density, 1)

"""What IWOCS learns in a world beside SAC: what the actor can expect there, and what happens next.

SAC's own critics count entropy, at a temperature of their own, and cannot be compared between runs. A second
pair does not count it, and follows the same actor on the same rows:

    critics:    ( Q(s, a) - [ r + discount min Q_target(s', a') ] )^2,   a' ~ pi(s')
    predictor:  | T(s, a) - s' |_1

Source: Zouitine, Bertoin, Clavier, Geist and Rachelson 2024 (2410.06212), section 5.2.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.rng import derive, generator, seeded_initialisation
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Transitions
from policysmith.networks.predictor import NextObservation
from policysmith.networks.targets import TargetNetwork
from policysmith.objectives.values import clipped_double_q, td_target
from policysmith.policies.actors import NetworkPolicy
from policysmith.training.learner import Learner
from policysmith.training.learners.sac import SacSettings, adam, critic_for, critic_loss, vector_size

CRITIC, PREDICTOR = "plain critic", "predictor"
"""What the learners are called in a run's state; the critic's target is called as it is."""


class ExpertiseLearners:
    """Both learners and the critic's target, of the sizes and at the rate of SAC's own critics."""

    def __init__(
        self, space: gymnasium.Space, action: ActionSpace, settings: SacSettings, *, seed: int
    ) -> None:
        self.discount = settings.discount
        with seeded_initialisation(derive(seed, "expertise")):
            self.critic = critic_for(space, action, settings)
            self.predictor = NextObservation(
                vector_size(space), action.low, action.high, hidden=settings.hidden
            )
        self.rng = generator(seed, "expertise")
        self.target = TargetNetwork(self.critic, settings.rate)
        rate = settings.critic_learning_rate
        self.learners = {
            CRITIC: Learner(self.critic, critic_loss, optimizer=adam(self.critic, rate)),
            PREDICTOR: Learner(self.predictor, prediction_loss, optimizer=adam(self.predictor, rate)),
        }

    def update(self, actor: NetworkPolicy, batch: Transitions) -> dict[str, float]:
        """One step of both on `batch`, and of the target; the actor is only asked."""
        target = self.value_target(actor, batch)
        critic = self.learners[CRITIC].step(batch | {"value_target": target})
        predictor = self.learners[PREDICTOR].step(batch)
        self.target.update()
        return {"plain_critic_loss": critic["loss"], "prediction_error": predictor["loss"]}

    @torch.no_grad()
    def value_target(self, actor: NetworkPolicy, batch: Transitions) -> Float[Tensor, "row"]:
        """What the critic is fitted to: no entropy in it."""
        action, _ = actor.draw(batch["next_observation"], self.rng)
        value = clipped_double_q(self.target.module(batch["next_observation"], action))
        discount = batch.get("discount", self.discount)
        return td_target(batch["reward"], value, terminated=batch["terminated"], discount=discount)


def prediction_loss(
    predictor: NextObservation, batch: Transitions
) -> tuple[Float[Tensor, "row"], dict[str, Any]]:
    """The L1 distance of the prediction from what came."""
    predicted = predictor(batch["observation"], batch["action"])
    return (predicted - batch["next_observation"]).abs().sum(-1), {}

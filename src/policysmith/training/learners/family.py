"""Families of policies over offline learners: one actor for all balances, and a chooser trained beside it.

A family is made over a base, which brings the critics (`family_implicit`, `family_conservative`). What the
actor learns with depends on the run's phase: *offline* on balances drawn uniformly, one per row, *online* on
those that the chooser draws. The chooser learns in both, towards

    max E[ Q(s, a) ],    a ~ actor(s, encoding of balance),    balance ~ chooser(s)

by the gradient of the critic through action and encoding. Critics never see a balance.

Source: Wang et al. 2023, Train Once, Get a Family (FamO2O), sections 5.1 and 5.2, and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.rng import derive, seeded_initialisation
from policysmith.experience.replay import Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.embeddings import ScalarEncoding
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.family import (
    BalanceChooser,
    FamilyPolicy,
    UniformChooser,
    check_range,
    quiet,
)
from policysmith.training.learner import Learner, Loss
from policysmith.training.learners.fine_tuning import ONLINE, FineTuningSettings
from policysmith.training.learners.off_policy import Explore
from policysmith.training.learners.sac import adam
from policysmith.training.loop import RunState

Values = tuple[Float[Tensor, "row"], dict[str, Tensor]]


@dataclass(frozen=True)
class FamilySettings(FineTuningSettings):
    """A family over any base, learnt from data first and from experience after it.

    - `hidden`: of all networks; `learning_rate`: of all optimisers; `rate`: of the critics' targets.
    - `balance_range`: between which balances the members lie.
    - `encoding_size`, `encoding_base`: how the actor is told (see `networks.embeddings.ScalarEncoding`).
    - `chooser_every`: the chooser takes a step at every so many updates.
    - `random_balances`: members are taken at random and not by the state, online too (to see what the
      chooser is good for).
    - over IQL: `expectile` of the value, `cap` of the regression's weights, `initial_temperature` and
      `target_entropy` of the chooser.
    - over CQL: `penalty` of the conservative term over `sampled_actions` uniform, present and next actions
      each; `balance_anew`: the balance at the next state is chosen there, not carried over from the state
      before (the authors' code carries it over); `wide_chooser`: the chooser's range reaches as far below
      the lower end as the upper end lies above it, as in the authors' code.
    """

    reward_shift: float = -1.0
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    rate: float = 0.005
    balance_range: tuple[float, float] = (8.0, 14.0)
    encoding_size: int = 6
    encoding_base: float = 10_000.0
    chooser_every: int = 1
    random_balances: bool = False
    expectile: float = 0.9
    cap: float = 100.0
    initial_temperature: float = 1.0
    target_entropy: float = -0.5
    penalty: float = 1.0
    sampled_actions: int = 10
    balance_anew: bool = False
    wide_chooser: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.balance_range)
        ScalarEncoding(self.encoding_size, base=self.encoding_base)
        for name in ("chooser_every", "sampled_actions"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "cap", "initial_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and finite")
        for name in ("rate", "expectile"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and at most 1")


class LogTemperature(nn.Module):
    """What a nat of entropy is worth: exp of what is learnt."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Float[Tensor, ""]:
        """The temperature, with gradient."""
        return self.log.exp()


def family_policy(
    observation_size: int, head: Callable[[int], nn.Module], settings: FamilySettings, *, seed: int
) -> FamilyPolicy:
    """A family whose actor is an MLP under the head made by `head` from its width."""
    low, high = settings.balance_range
    reach = 2 * low - high if settings.wide_chooser else low
    with seeded_initialisation(derive(seed, "family")):
        body = Body(observation_size + settings.encoding_size, hidden=settings.hidden, activation="relu")
        return FamilyPolicy(
            NetworkPolicy(body, head(body.width)),
            UniformChooser(low, high)
            if settings.random_balances
            else BalanceChooser(observation_size, reach, high, hidden=settings.hidden),
            encoding_size=settings.encoding_size,
            encoding_base=settings.encoding_base,
        )


def actor_learner(policy: FamilyPolicy, loss: Loss, settings: FamilySettings) -> Learner:
    """The learner of a family's actor; what acts is the whole family, without the noise of actions."""
    return Learner(policy, loss, optimizer=adam(policy.actor, settings.learning_rate), acts=quiet)


def exploring(policy: FamilyPolicy) -> Explore:
    """What is done for the sake of learning: an action drawn, of the member that the chooser acts with."""
    return lambda observation, rng: policy.draw(observation, policy.chooser.act(observation, rng), rng)[0]  # type: ignore[arg-type]


@torch.no_grad()
def balances(
    state: RunState,
    policy: FamilyPolicy,
    observation: Float[Tensor, "row observation"],
    settings: FamilySettings,
    rng: torch.Generator,
) -> Float[Tensor, "row"]:
    """What the actor learns with: any balance of the range offline, what the chooser draws online."""
    if state.phase == ONLINE:
        return policy.chooser.draw(observation, rng)[0]  # type: ignore[union-attr]
    return UniformChooser(*settings.balance_range).act(observation, rng)


def entropy_loss(target: float) -> Loss:
    """T (entropy - target): T falls where there is more entropy than wanted and rises where there is less."""

    def loss(temperature: LogTemperature, batch: Transitions) -> Values:
        return temperature() * (batch["entropy"] - target), {}

    return loss

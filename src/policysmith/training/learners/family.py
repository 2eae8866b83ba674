"""Families of policies over offline learners: one actor for all balances, and a chooser trained beside it.

A family is made over a base, which brings the critics (`family_implicit`, `family_conservative`): learners,
target networks, and an update on one minibatch. The phase in which the loop hands it over decides what the
actor learns with: *offline* with balances drawn uniformly, one per row, *online* with those that the chooser
draws. The chooser learns in both, towards

    max E[ Q(s, a) ],    a ~ actor(s, encoding of balance),    balance ~ chooser(s)

by the gradient of the critic through action and encoding. Critics never see a balance.

Source: Wang et al. 2023, Train Once, Get a Family (FamO2O), sections 5.1 and 5.2, and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble
from policysmith.networks.embeddings import ScalarEncoding
from policysmith.networks.targets import TargetNetwork
from policysmith.objectives.values import td_target
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.family import BalanceChooser, FamilyPolicy, UniformChooser, check_range
from policysmith.training.learner import Learner, Loss
from policysmith.training.loop import RunState

Rows = dict[str, Any]
"""A minibatch of transitions; keys as in `common.keys`."""

Values = tuple[Float[Tensor, "row"], dict[str, Tensor]]

FamilyUpdate = Callable[[RunState, Rows], dict[str, float]]
"""One update of all learners on a minibatch, in the phase that the state says."""

ONLINE = "online"
"""The phase in which the chooser's balances are those that the actor learns with."""


@dataclass(frozen=True)
class FamilySettings:
    """What a family needs over any base.

    - `balance_range`: between which balances the members lie.
    - `encoding_size`, `encoding_base`: how the actor is told (see `networks.embeddings.ScalarEncoding`).
    - `chooser_every`: the chooser takes a step at every so many updates.
    - `random_balances`: members are chosen at random and not by the state, online too (to see what the
      chooser is good for).
    - `hidden`: of all networks; `learning_rate`: of all optimisers; `discount`; `target_rate`.
    - IQL: `expectile` of the value; `weight_cap` of the regression; `initial_temperature` and
      `target_entropy` of the chooser.
    - CQL: `penalty` of the conservative term over `sampled_actions` uniform, present and next actions each;
      `next_balance_anew`: the balance at the next state is chosen there and not carried over from the state
      before (the authors' code carries it over); `wide_chooser`: the chooser's range reaches as far below the
      lower end as the upper end lies above it, as the authors' code has it.
    """

    balance_range: tuple[float, float] = (8.0, 14.0)
    encoding_size: int = 6
    encoding_base: float = 10_000.0
    chooser_every: int = 1
    random_balances: bool = False
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    expectile: float = 0.9
    weight_cap: float = 100.0
    initial_temperature: float = 1.0
    target_entropy: float = -0.5
    penalty: float = 1.0
    sampled_actions: int = 10
    next_balance_anew: bool = False
    wide_chooser: bool = False

    def __post_init__(self) -> None:
        check_range(self.balance_range)
        ScalarEncoding(self.encoding_size, base=self.encoding_base)
        for name in ("learning_rate", "weight_cap", "initial_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and finite")
        for name in ("discount", "target_rate", "expectile"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and at most 1")
        for name in ("chooser_every", "sampled_actions"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")


@dataclass(frozen=True)
class Family:
    """The parts of a family over a base: what a run state holds, and the update."""

    learners: dict[str, Learner]
    targets: dict[str, TargetNetwork]
    update: FamilyUpdate

    @property
    def policy(self) -> FamilyPolicy:
        """What acts while it learns, with the noise of its actions."""
        return self.learners["policy"].module  # type: ignore[return-value]


# ---- the parts of a base -------------------------------------------------------------------------------


class Temperature(nn.Module):
    """The price of certainty: exp of what is learnt, so that it stays above 0."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))

    @property
    def value(self) -> Float[Tensor, ""]:
        """The temperature."""
        return self.log.exp()


def entropy_loss(settings: FamilySettings, target: float | None = None) -> Loss:
    """T (entropy - target): falls where there is more entropy than wanted, rises where there is less."""
    wanted = settings.target_entropy if target is None else target

    def loss(temperature: Temperature, batch: Rows) -> Values:
        value = temperature.value
        return value * (batch["entropy"] - wanted), {"value": value.detach()}

    return loss


def critic_loss(critics: QEnsemble, batch: Rows) -> Values:
    """The squared errors of all critics towards `target` [row], added up."""
    q = critics(batch["observation"], batch["action"])
    return (q - batch["target"]).square().sum(0), {"mean": q.detach().mean(0)}


def one_step_target(batch: Rows, next_value: Tensor, settings: FamilySettings) -> Tensor:
    """What the critics are fitted to: the reward, and behind it what follows unless that was a true end."""
    return td_target(batch["reward"], next_value, terminated=batch["terminated"], discount=settings.discount)


def balance_for(
    state: RunState, policy: FamilyPolicy, batch: Rows, settings: FamilySettings, rng: torch.Generator
) -> Float[Tensor, "row"]:
    """What the actor learns with: any balance of the range offline, the chooser's online."""
    if state.phase == ONLINE:
        return policy.chooser.draw(batch["observation"], rng)[0]  # type: ignore[union-attr]
    return UniformChooser(*settings.balance_range).act(batch["observation"], rng)


def family_policy(
    observation_size: int, head: Callable[[int], nn.Module], settings: FamilySettings
) -> FamilyPolicy:
    """A family whose actor is an MLP under the head made by `head` from its width."""
    low, high = settings.balance_range
    body = Body(observation_size + settings.encoding_size, hidden=settings.hidden, activation="relu")
    reach = 2 * low - high if settings.wide_chooser else low
    return FamilyPolicy(
        NetworkPolicy(body, head(body.width)),
        UniformChooser(low, high)
        if settings.random_balances
        else BalanceChooser(observation_size, reach, high, hidden=settings.hidden),
        encoding_size=settings.encoding_size,
        encoding_base=settings.encoding_base,
    )


def learner_of(
    module: nn.Module, loss: Loss, settings: FamilySettings, *, of: nn.Module | None = None
) -> Learner:
    """A learner of the module, or of the part `of` it, under Adam."""
    optimizer = torch.optim.Adam((of or module).parameters(), lr=settings.learning_rate, fused=True)
    return Learner(module, loss, optimizer=optimizer, acts=_without_noise)


def _without_noise(module: nn.Module) -> nn.Module:
    if isinstance(module, FamilyPolicy):
        module.deterministic = True
    return module


def named(name: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of one learner under its name."""
    return {f"{name}/{key}": value for key, value in metrics.items()}

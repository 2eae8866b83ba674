"""RLPD's learners: SAC that starts from a few demonstrations and learns many times from every step.

    batch        half demonstrations, half what was seen since; drawn anew for every critic update
    y            = r + discount min over two of ten target critics Q'(s', a')        (no entropy in it)
    critic       mean over all ten of (Q - y)^2, `updates` times per step
    actor        temperature log pi - mean over all ten Q, once per step
    temperature  temperature (entropy at next observations - target)

LayerNorm keeps the critics from believing in actions they have not seen, which is what makes it safe to learn
so often from so little. Observations may be brought to the demonstrations' scale first.

Sources: Ball et al. 2023 (RLPD), algorithm 1; Luo et al. 2024 (SERL), for the settings.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.common.observations import Observation, parts_of
from policysmith.common.spaces import ActionSpace
from policysmith.experience.episodes import Episodes
from policysmith.experience.mixtures import Mixed, joined
from policysmith.experience.replay import Replay, Source, Transitions
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble
from policysmith.policies.actors import NetworkPolicy, body_for, spaces_of
from policysmith.policies.heads import SquashedGaussianHead
from policysmith.training.learner import Schedule
from policysmith.training.learners.off_policy import UpdateOnce, check_transitions
from policysmith.training.learners.sac import SacLearners, SacSettings, critic_for, mean_opinion
from policysmith.training.loop import RunState

DEVIATIONS = (math.log(1e-5), math.log(5.0))
"""Limits of the actor's log-deviation."""


@dataclass(frozen=True)
class RlpdSettings(SacSettings):
    """RLPD on top of SAC.

    - `demonstration_share` of every batch is demonstrations; 0 learns without any.
    - `updates` critic updates per step, of `batch_size` rows each, then one of actor and temperature.
    - `actor_on_all`: the actor's step sees the rows of all these critic updates, not those of the last.
    - `dropout`: of the critics, before their LayerNorm.
    - `warmup_steps`: the rates of actor and critics rise to theirs over so many updates.
    - `normalise`: bring observations to mean 0 and deviation 1 of the demonstrations.
    """

    demonstration_share: float = 0.5
    actor_on_all: bool = False
    dropout: float = 0.0
    warmup_steps: int = 0
    normalise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.demonstration_share <= 1:
            raise SettingError(f"demonstration_share is {self.demonstration_share}", expected="0 to 1")
        if self.updates % self.policy_every:
            raise SettingError(
                f"{self.updates} critic updates per step, and the actor's after every {self.policy_every}",
                expected="the first a multiple of the second",
            )
        if not 0 <= self.dropout < 1 or self.warmup_steps < 0:
            raise SettingError(
                f"dropout is {self.dropout} and warmup_steps {self.warmup_steps}",
                expected="0 or more and below 1, and 0 or more",
            )


class RlpdLearners(SacLearners):
    """SAC's learners with RLPD's losses; `demonstrations` [row, observation] are what `normalise` is by."""

    def __init__(
        self,
        space: gymnasium.Space,
        action: ActionSpace,
        settings: RlpdSettings,
        *,
        seed: int,
        demonstrations: Observation | None = None,
    ) -> None:
        super().__init__(
            space,
            action,
            settings,
            seed=seed,
            opinion=mean_opinion,
            make_actor=rlpd_actor,
            make_critic=rlpd_critic,
        )
        self._next_entropy = 0.0
        self._seen: list[Transitions] = []
        if settings.normalise:
            if demonstrations is None:
                raise SettingError(
                    "observations are to be brought to the scale of demonstrations, and there are none",
                    cure="give demonstrations, or set normalise to False",
                )
            for body in (self.actor.body, self.critic.body, self.target.module.body):
                assert isinstance(body, Body)
                body.observe(demonstrations)
        if settings.warmup_steps:
            for name in ("policy", "critic"):
                self.learners[name].schedule = linear_warmup(settings.warmup_steps)

    @property
    def update_once(self) -> UpdateOnce:
        """SAC's, with the actor's step on all rows since its last one where asked for."""
        plain = super().update_once
        if not getattr(self.settings, "actor_on_all", False):
            return plain

        def update(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
            self._seen.append(batch)
            return plain(state, batch, number)

        return update

    def update_policy(self, batch: Transitions) -> dict[str, float]:
        """The actor's step; the temperature's, on the entropy at the next observations."""
        rows, self._seen = joined(self._seen) if self._seen else batch, []
        found = self.learners["policy"].step(rows)
        metrics = {"actor_loss": found["loss"], "entropy": found["entropy"]}
        metrics["temperature"] = float(self.temperature().detach())
        if not self.settings.fixed_temperature:
            self.learners["temperature"].step({"log_prob": torch.tensor([-self._next_entropy])})
        return metrics

    def soft_draw(self, observation: Any) -> tuple[Tensor, Tensor]:
        """The policy's answer to the next observations, whose entropy the temperature is to go by."""
        action, log_prob = super().soft_draw(observation)
        self._next_entropy = -float(log_prob.mean())
        return action, log_prob


def rlpd_actor(space: gymnasium.Space, action: ActionSpace, settings: RlpdSettings) -> NetworkPolicy:
    """A squashed Gaussian actor with deviations from 1e-5 to 5."""
    body = body_for(
        space,
        hidden=settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        normalise=settings.normalise,
    )
    head = SquashedGaussianHead(body.width, action.low, action.high, log_deviation_range=DEVIATIONS)
    return NetworkPolicy(body, head)


def rlpd_critic(space: gymnasium.Space, action: ActionSpace, settings: RlpdSettings) -> QEnsemble:
    """The ensemble, which reads observations as the actor does."""
    # A body without layers: the observation in other units.
    units = {"body": body_for(space, hidden=(), normalise=True)} if settings.normalise else {}
    return critic_for(space, action, settings, dropout=settings.dropout, early_dropout=True, **units)


def linear_warmup(steps: int) -> Schedule:
    """From 1 / `steps` to 1 in a straight line."""
    return lambda step: min(1.0, (step + 1) / steps)


def with_demonstrations(store: Replay, demonstrations: Replay | None, share: float) -> Source:
    """What RLPD draws from: `share` from the demonstrations, the rest from what was seen.

    Raises `DataError` where a share of demonstrations is wanted and there are none.
    """
    if share > 0 and (demonstrations is None or not len(demonstrations)):
        raise DataError(
            f"RLPD needs demonstrations: {share:g} of every batch is to be some, and there are none",
            cure="give demonstrations, or use the share 0 (--demonstration-share 0)",
        )
    if share == 0 or demonstrations is None:
        return store
    return Mixed([(store, 1 - share), (demonstrations, share)])


def check_shown(seen: Observation, space: gymnasium.Space) -> None:
    """Raise `ShapeError` where demonstrations [row, ...] show something else than the environment."""
    shown = {name: tuple(part.shape[1:]) for name, part in parts_of(seen).items()}
    wanted = {name: tuple(part.shape) for name, part in spaces_of(space).items()}
    if shown != wanted:
        raise ShapeError(
            f"the demonstrations show {_listed(shown)}",
            expected=f"{_listed(wanted)}, as the environment does",
            cure="load the cameras of the environment and no others (--cameras, --picture-size), or make the "
            "environment with those of the demonstrations (--pictures)",
        )


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def check_demonstrations(episodes: Episodes, *, low: Sequence[float], high: Sequence[float]) -> None:
    """Raise where actions are beyond the limits; warn where a time limit is stored as the task's end.

    A demonstration's action in other units or another frame shows as one beyond the limits, named with its
    episode and step.
    """
    check_transitions(episodes, low=low, high=high)
    both = episodes.steps["terminated"] & episodes.steps["truncated"]
    if both.any():
        step = int(both.nonzero()[0, 0])
        episode = int((episodes.starts <= step).sum()) - 1
        warnings.warn(
            f"{int(both.sum())} demonstrated steps are both terminated and truncated, the first at the end "
            f"of episode {episode}: nothing is expected behind them. Where the time limit cut the episode, "
            "store terminated as False.",
            stacklevel=3,
        )

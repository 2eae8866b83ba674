"""From data to experience: learn from recorded episodes first, then act, keep, and learn from both.

    offline_steps   updates on the data
    online_steps    a step in the environment and an update after each, drawn from one replay of both

The replay is the data's, to which what is seen is added; there is no fixed share of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Replay, Transitions, transitions_of
from policysmith.training.learner import Learner
from policysmith.training.learners.off_policy import (
    Explore,
    OffPolicySettings,
    UpdateOnce,
    check_transitions,
    off_policy_run,
)
from policysmith.training.learners.sac import vector_size
from policysmith.training.loop import Progress, RunState, Stateful

OFFLINE, ONLINE = "offline", "online"
"""The phases of a run, as its state says them."""


@dataclass(frozen=True)
class FineTuningSettings:
    """Two phases, and what is learnt from.

    - `offline_steps` updates on the data; then `online_steps` steps in the environment, an update after each.
    - `reward_scale`, `reward_shift`: rewards are learnt from as scale * reward + shift; `scale_by_returns`
      multiplies the scale by 1000 over the spread of the data's returns, as IQL does for locomotion.
    - `batch_size`, `replay_capacity`, `discount`.
    """

    offline_steps: int = 1_000_000
    online_steps: int = 1_000_000
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    scale_by_returns: bool = False
    batch_size: int = 256
    replay_capacity: int = 2_000_000
    discount: float = 0.99

    checkpoint_every: ClassVar[int] = 10_000
    """Steps between checkpoints, where nobody says otherwise: the replay is in each."""
    log_every: ClassVar[int] = 250
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        if self.offline_steps < 0:
            raise SettingError(f"offline_steps is {self.offline_steps}", expected="0 or more")
        for name in ("online_steps", "batch_size", "replay_capacity"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 <= self.discount <= 1:
            raise SettingError(f"discount is {self.discount}", expected="0 to 1")
        if not self.reward_scale > 0:
            raise SettingError(f"reward_scale is {self.reward_scale}", expected="above 0")

    @property
    def steps(self) -> int:
        """Steps of the run, both phases together."""
        return self.offline_steps + self.online_steps


def fine_tuning_run(
    episodes: Episodes,
    interaction: Interaction,
    *,
    learners: dict[str, Learner],
    targets: dict[str, Stateful],
    explore: Explore,
    update_once: UpdateOnce,
    settings: FineTuningSettings,
    seed: int,
    generators: Mapping[str, torch.Generator] | None = None,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes` and then in `interaction`, of one environment; `state.phase` says which.

    Raises `DataError` for actions outside the environment's limits, naming the worst, and for data that the
    replay cannot hold; `ShapeError` for observations of another width than the environment's.
    """
    space = interaction.action_space
    check_transitions(episodes, low=space.low, high=space.high)
    _check_widths(episodes, interaction)
    store = _filled(episodes, settings)
    scale = settings.reward_scale * (_by_returns(episodes) if settings.scale_by_returns else 1.0)

    def label(batch: Transitions) -> Transitions:
        return batch | {"reward": scale * batch["reward"] + settings.reward_shift}

    def name_phase(state: RunState) -> dict[str, float]:
        state.phase = OFFLINE if state.step < settings.offline_steps else ONLINE
        return {}

    yield from off_policy_run(
        learners=learners,
        targets=targets,
        interaction=interaction,
        explore=explore,
        update_once=update_once,
        settings=_acting(settings),
        seed=seed,
        store=store,
        label=label,
        pretraining=settings.offline_steps,
        before_step=name_phase,
        generators=generators,
        state=state,
    )


def _filled(episodes: Episodes, settings: FineTuningSettings) -> Replay:
    """The replay with the data in it, no larger than the run can fill."""
    rows = len(episodes.steps)
    if rows > settings.replay_capacity:
        raise DataError(
            f"the data have {rows} steps, and the replay holds {settings.replay_capacity}",
            cure="raise replay_capacity, or give fewer episodes",
        )
    store = Replay(min(settings.replay_capacity, rows + settings.online_steps), discount=settings.discount)
    store.extend(transitions_of(episodes))
    return store


def _acting(settings: FineTuningSettings) -> OffPolicySettings:
    """The online phase as the off-policy loop takes it."""
    return OffPolicySettings(
        environment_steps=settings.online_steps,
        random_steps=0,
        batch_size=settings.batch_size,
        replay_capacity=settings.replay_capacity,
        discount=settings.discount,
    )


def _check_widths(episodes: Episodes, interaction: Interaction) -> None:
    width = vector_size(interaction.environments.observation_space)
    if episodes.observation_size != width:
        raise ShapeError(
            f"the data's observations have {episodes.observation_size} numbers",
            expected=f"{width}, as the environment's",
            cure="record the data in the environment that is acted in",
        )


def _by_returns(episodes: Episodes) -> float:
    """1000 over the spread of the returns. Source: Kostrikov et al. 2022 (IQL), appendix B."""
    spread = float(episodes.returns.max() - episodes.returns.min())
    if spread <= 0:
        raise DataError(
            "all episodes of the data have the same return, by whose spread rewards are to be scaled",
            cure="switch scale_by_returns off",
        )
    return 1000 / spread

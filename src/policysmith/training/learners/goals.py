"""What learning from play has in common: hindsight goals, a transformer over states and goals, one run.

A system brings a policy with a `GoalCondition` and a loss, and says what else a batch needs (noise, for one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.observations import GOAL, STATE, parts_of
from policysmith.common.rng import generator, global_randomness, seeded_initialisation
from policysmith.experience.episodes import Episodes
from policysmith.experience.goals import HindsightWindows
from policysmith.networks.ema import ExponentialAverage, warm_decay
from policysmith.networks.transformer import TransformerDenoiser
from policysmith.policies.goals import GoalCondition
from policysmith.policies.protocol import Policy
from policysmith.training.learner import Learner, Loss, staircase_schedule
from policysmith.training.loop import Progress, RunState, run, step_policy

Prepare = Callable[[TensorDict, torch.Generator], TensorDict]
"""(batch, rng) -> the batch with what else its loss reads."""


@dataclass(frozen=True)
class GoalSettings:
    """Settings of learning from play; a system's configuration says where its values are from.

    - `window` W, `goal_steps` G: states (and actions) in a window, states in a goal.
    - `separation`: least number of steps between a window and its goal.
    - `goal_dimensions`: dimensions of the state that a goal gives; empty for all.
    - `goal_dropping`: probability that a goal is left out in training; with `drop_elements` every number of
      it is left out by itself, as in the authors' code of BESO, and not the goal as a whole.
    - `standardise`: scale states and actions to mean 0 and deviation 1; False leaves them as they are.
    - `width`, `depth`, `heads`, `attention_dropout`, `residual_dropout`: the transformer.
    - `steps`, `batch_size`: optimiser steps, and windows per step.
    - `learning_rate`, `adam_betas`, `weight_decay`: AdamW; the rate is multiplied by `decay` every
      `decay_every` steps.
    - `average_maximum`: the averaged weights decay with min(maximum, (1 + t) / (10 + t)).
    """

    window: int = 4
    goal_steps: int = 2
    separation: int = 0
    goal_dimensions: tuple[int, ...] = ()
    goal_dropping: float = 0.0
    drop_elements: bool = False
    standardise: bool = False
    width: int = 360
    depth: int = 6
    heads: int = 6
    attention_dropout: float = 0.3
    residual_dropout: float = 0.0
    steps: int = 40_000
    batch_size: int = 1024
    learning_rate: float = 1e-4
    adam_betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay: float = 0.99
    decay_every: int = 100
    average_maximum: float = 0.999

    def __post_init__(self) -> None:
        for name in ("window", "goal_steps", "width", "depth", "heads", "steps", "batch_size", "decay_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("goal_dropping", "attention_dropout", "residual_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and less than 1")
        for name in ("decay", "average_maximum"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 to 1")
        if self.separation < 0:
            raise SettingError(f"separation is {self.separation}", expected="0 or more")


def goal_condition(episodes: Episodes, settings: GoalSettings) -> GoalCondition:
    """The condition for the states of `episodes`, fitted to them where the settings say so.

    `ShapeError` where the episodes carry goals of their own that are of another width than the settings'.
    """
    parts = parts_of(episodes.steps["observation"])
    condition = GoalCondition(
        episodes.observation_size,
        goal_dimensions=settings.goal_dimensions,
        goal_steps=settings.goal_steps,
    )
    if GOAL in parts and parts[GOAL].shape[-1] != condition.goal_size:
        raise ShapeError(
            f"the episodes come with goals of width {parts[GOAL].shape[-1]} and states of width "
            f"{condition.observation_size}, and the policy is set to goals of width {condition.goal_size}",
            expected="goals that are states, or some of their dimensions",
            cure="set goal_dimensions to the dimensions of the state that the goal gives",
        )
    if settings.standardise:
        condition.normalizer.fit_moments(parts[STATE])
    return condition


def goal_transformer(
    condition: GoalCondition, size: int, *, settings: GoalSettings, seed: int
) -> TransformerDenoiser:
    """An untrained causal transformer over W positions of width `size`, under `condition`."""
    with seeded_initialisation(seed):
        return TransformerDenoiser(
            size,
            settings.window,
            condition.size(settings.window),
            observation_tokens=settings.window,
            goal_tokens=settings.goal_steps,
            width=settings.width,
            depth=settings.depth,
            heads=settings.heads,
            attention_dropout=settings.attention_dropout,
            residual_dropout=settings.residual_dropout,
        )


def kept_goals(batch: TensorDict, settings: GoalSettings, rng: torch.Generator) -> TensorDict:
    """The batch with `goal_mask` [row, G or 1, state or 1]: which goals, or numbers of goals, are told."""
    shape = batch["goal"].shape if settings.drop_elements else (len(batch), 1, 1)
    mask = batch["has_goal"][:, None, None].expand(shape)
    if settings.goal_dropping > 0:
        mask = mask & (torch.rand(shape, generator=rng) >= settings.goal_dropping)
    return batch.clone(recurse=False).update({"goal_mask": mask})


def goal_run(
    policy: Policy,
    loss: Loss,
    episodes: Episodes,
    *,
    settings: GoalSettings,
    seed: int,
    prepare: Prepare = lambda batch, rng: batch,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train `policy` on windows of `episodes` with hindsight goals, some of them left out."""
    learner = Learner(
        policy,
        loss,
        optimizer=torch.optim.AdamW(
            policy.parameters(),
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            weight_decay=settings.weight_decay,
            fused=True,
        ),
        schedule=staircase_schedule(every=settings.decay_every, factor=settings.decay),
        average=ExponentialAverage(policy, decay=warm_decay(settings.average_maximum)),
    )
    windows = HindsightWindows(
        episodes,
        window=settings.window,
        goal_steps=settings.goal_steps,
        separation=settings.separation,
        rng=generator(seed, "windows"),
    )
    names = ("noise", "dropout", "goals")
    run_state = RunState(
        learners={"policy": learner},
        generators={"windows": windows.rng, **{name: generator(seed, name) for name in names}},
        sources={"windows": windows},
    ).restored(state)

    def collect(state: RunState) -> TensorDict:
        batch = kept_goals(windows.sample(settings.batch_size), settings, state.generators["goals"])
        return prepare(batch, state.generators["noise"])

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        with global_randomness(state.generators["dropout"]):  # dropout draws from nothing else
            return step_policy(state, batch)

    return run(run_state, collect=collect, update=update, steps=settings.steps)

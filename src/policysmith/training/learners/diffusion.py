"""The diffusion learner: noise prediction on windows of actions, at levels that a regime draws.

What distinguishes one diffusion policy from another in training is the regime (how levels are drawn) and the
network; `diffusion_run` is the run they share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.observations import GOAL, STATE, parts_of
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.experience.episodes import Episodes
from policysmith.experience.windows import WindowSampler
from policysmith.networks.ema import ExponentialAverage, power_decay
from policysmith.networks.levels import Regime
from policysmith.networks.noise import DiscreteNoise, squared_cosine_betas
from policysmith.networks.unet import UNet1d
from policysmith.networks.vision import PictureEncoder
from policysmith.objectives.denoising import noise_prediction_error
from policysmith.policies.diffusion import ActionDiffusion, DiffusionPolicy
from policysmith.policies.streaming import StreamingPolicy
from policysmith.training.learner import Learner, cosine_schedule
from policysmith.training.loop import Progress, RunState, run, step_policy


@dataclass(frozen=True)
class DiffusionSettings:
    """What diffusion policies have in common; a system's configuration says where its values are from.

    - `horizon` Tp, `observation_steps` To, `action_steps` Ta: actions in a window, observations that
      condition it, actions played per decision; all in steps of the environment.
    - `noise_levels` N of a squared-cosine schedule; `sampling_steps` None walks all of them when acting
      (DDPM), a number that many strided ones (DDIM).
    - `widths`, `kernel`, `groups`, `level_size`: the U-Net over time.
    - `steps`, `batch_size`: optimiser steps and windows per step.
    - `learning_rate`, `adam_betas`, `weight_decay`: AdamW; `warmup_steps` linear, then a cosine to zero.
    - `average_power`, `average_maximum`: decay min(maximum, 1 - (1 + t)^-power) of the averaged weights.

    Of episodes with pictures only (see `networks.vision`):

    - `picture_crop`: the part of a picture's sides that is encoded, at random places in training and in the
      middle when acting.
    - `picture_widths`, `picture_features`: the encoder's channels, and what it makes of one picture.
    """

    horizon: int = 16
    observation_steps: int = 2
    action_steps: int = 8
    noise_levels: int = 100
    sampling_steps: int | None = None
    widths: tuple[int, ...] = (256, 512, 1024)
    kernel: int = 5
    groups: int = 8
    level_size: int = 256
    steps: int = 105_000
    batch_size: int = 256
    learning_rate: float = 1e-4
    adam_betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    warmup_steps: int = 500
    average_power: float = 0.75
    average_maximum: float = 0.9999
    picture_crop: float = 76 / 84
    picture_widths: tuple[int, ...] = (16, 32, 64)
    picture_features: int = 64

    def __post_init__(self) -> None:
        counts = ("horizon", "observation_steps", "action_steps", "noise_levels", "steps", "batch_size")
        for name in (*counts, "kernel", "groups", "level_size", "picture_features"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "average_power"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise SettingError(f"adam_betas are {self.adam_betas}", expected="0 or more, and less than 1")
        if not 0 <= self.average_maximum <= 1:
            raise SettingError(f"average_maximum is {self.average_maximum}", expected="0 to 1")
        if not 0 < self.picture_crop <= 1:
            raise SettingError(f"picture_crop is {self.picture_crop}", expected="more than 0, and at most 1")
        if not self.widths or min(self.widths) < 1:
            raise SettingError(f"widths are {self.widths}", expected="at least one, and each at least 1")
        multiple = UNet1d.horizon_multiple(self.widths)
        needed = self.observation_steps - 1 + self.action_steps
        if self.horizon < needed or self.horizon % multiple:
            smallest = -(-needed // multiple) * multiple
            raise SettingError(
                f"horizon {self.horizon} does not go with {self.observation_steps} observation steps, "
                f"{self.action_steps} action steps and a U-Net of {len(self.widths)} widths",
                expected=f"at least {needed} and a multiple of {multiple}: {smallest} or more",
            )


def action_diffusion(
    episodes: Episodes, *, settings: DiffusionSettings, level_per_position: bool, seed: int
) -> ActionDiffusion:
    """An untrained U-Net model of actions for what `episodes` hold, scaled to their range.

    Where they have pictures, it sees them through an encoder that is trained with it. Raises
    `CapabilityError` for episodes with a goal, which it does not read.
    """
    parts = parts_of(episodes.steps["observation"])
    if GOAL in parts:
        raise CapabilityError(
            "the episodes have a goal, and this policy reads states and pictures only",
            cure="join the goal to the state, or choose a system that takes goals",
        )
    with seeded_initialisation(seed):
        condition = settings.observation_steps * (
            episodes.observation_size + settings.picture_features * len(episodes.pictures)
        )
        network = UNet1d(
            episodes.action_size,
            settings.horizon,
            condition,
            widths=settings.widths,
            kernel=settings.kernel,
            groups=settings.groups,
            level_size=settings.level_size,
            level_positions=settings.horizon if level_per_position else 1,
        )
        eyes = picture_encoder(episodes.pictures, settings) if episodes.pictures else None
    model = ActionDiffusion(
        network,
        DiscreteNoise(squared_cosine_betas(settings.noise_levels)),
        observation_size=episodes.observation_size,
        observation_steps=settings.observation_steps,
        eyes=eyes,
    )
    if STATE in parts:
        model.observation_normalizer.fit_range(parts[STATE])
    model.action_normalizer.fit_range(episodes.steps["action"])
    return model


def picture_encoder(pictures: Mapping[str, tuple[int, int]], settings: DiffusionSettings) -> PictureEncoder:
    """An untrained encoder of pictures of these sizes, (height, width) by camera."""
    crops = [
        (max(1, round(settings.picture_crop * height)), max(1, round(settings.picture_crop * width)))
        for height, width in pictures.values()
    ]
    return PictureEncoder(
        list(pictures),
        list(pictures.values()),
        crops=crops,
        widths=settings.picture_widths,
        features=settings.picture_features,
    )


def noise_prediction_loss(
    policy: DiffusionPolicy | StreamingPolicy, batch: TensorDict
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Squared error of the predicted noise per row of a corrupted batch; `policy.model` is learnt."""
    return noise_prediction_error(policy.model.predict(batch), batch["noise"]), {}


def diffusion_run(
    policy: DiffusionPolicy | StreamingPolicy,
    episodes: Episodes,
    regime: Regime,
    *,
    settings: DiffusionSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a policy around an `ActionDiffusion` on windows of `episodes` with levels from `regime`."""
    model = policy.model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=settings.adam_betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    learner = Learner(
        policy,
        noise_prediction_loss,
        optimizer=optimizer,
        schedule=cosine_schedule(warmup=settings.warmup_steps, total=settings.steps),
        average=ExponentialAverage(
            policy, decay=power_decay(settings.average_power, settings.average_maximum)
        ),
    )
    windows = WindowSampler(
        episodes,
        horizon=model.horizon,
        observation_steps=model.observation_steps,
        action_steps=policy.action_steps,
        rng=generator(seed, "windows"),
    )
    run_state = RunState(
        learners={"policy": learner},
        generators={"windows": windows.rng, "noise": generator(seed, "noise")},
        sources={"windows": windows},
    ).restored(state)

    def collect(state: RunState) -> TensorDict:
        batch = windows.sample(settings.batch_size)
        level = regime(settings.batch_size, state.generators["noise"])
        return model.corrupt(batch, level, rng=state.generators["noise"])

    return run(run_state, collect=collect, update=step_policy, steps=settings.steps)

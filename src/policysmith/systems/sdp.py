"""Streaming Diffusion Policy: the same model told a noise level per position, acting from a rolling buffer.

The buffer of Tp actions is noisier the further ahead it looks: with h chunks of Ta actions, chunk c waits at
level L = floor(N (c + 1) / h) - 1. A decision finishes the first chunk in about N/h network calls instead of
N and rolls the buffer on. Training is Diffusion Policy's, but for how the levels of a batch are drawn: 80 %
of the batches follow the buffer's pattern, 20 % have one level throughout. No distillation, one training run.

Reference: Høeg, Du and Egeland 2024, Streaming Diffusion Policy: Fast Policy Synthesis with Variable Noise
Diffusion Models (2406.04806).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.episodes import Episodes
from policysmith.networks.levels import (
    Regime,
    chunkwise_levels,
    constant_levels,
    increasing_levels,
    independent_levels,
    mixed_levels,
)
from policysmith.policies.streaming import BufferStart, StreamingPolicy
from policysmith.training.learners.diffusion import DiffusionSettings, action_diffusion, diffusion_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(DiffusionSettings):
    """Defaults of the authors' state-based file (train_tedi_unet_lowdim_workspace.yaml), but where noted.

    Tp 20, To 2, Ta 8 (h = 2 chunks), N 100 with DDPM (their DDIM file: Ta 5, 16 sampling steps); network and
    training as Diffusion Policy's, see `DiffusionSettings`. Its own:

    - `regimes`: probabilities of constant, increasing, independent and chunk-wise levels in training.
    - `buffer_start`: how the buffer is filled at an episode's beginning; `position`: for `constant`, the
      dimensions of the observation that hold the current position in the action's units.
    - `noise_past` True: past actions are noised to their label, as the paper intends; False is the exact
      behaviour of the authors' code.
    """

    horizon: int = 20
    regimes: tuple[float, float, float, float] = (0.2, 0.0, 0.0, 0.8)
    buffer_start: BufferStart = "zero"
    position: tuple[int, ...] = ()
    noise_past: bool = True


PRESETS = {
    "paper": Config(),
    "pictures": Config(widths=(512, 1024, 2048), level_size=128, batch_size=64),
    "bench": Config(
        horizon=16,
        action_steps=4,
        noise_levels=50,
        widths=(64, 128),
        level_size=64,
        steps=3000,
        learning_rate=1e-3,
        warmup_steps=100,
    ),
    "tiny": Config(
        horizon=8,
        action_steps=2,
        noise_levels=6,
        widths=(8, 16),
        level_size=8,
        steps=6,
        batch_size=8,
        picture_widths=(8, 8),
        picture_features=8,
    ),
}
"""The paper's size for states and for pictures, a laptop's (1 M weights, minutes), and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Clone `episodes`; the policy so far is `progress.state.policy()`."""
    model = action_diffusion(episodes, settings=config, level_per_position=True, seed=seed)
    policy = StreamingPolicy(
        model,
        action_steps=config.action_steps,
        sampling_steps=config.sampling_steps,
        buffer_start=config.buffer_start,
        position=config.position,
        noise_past=config.noise_past,
    )
    return diffusion_run(policy, episodes, level_regime(config), settings=config, seed=seed, state=state)


def level_regime(config: Config) -> Regime:
    """How the levels of a training batch are drawn: the configured mixture of the four regimes.

    Raises `SettingError` listing the probabilities where they are not four, negative or do not sum to one.
    """
    steps, horizon = config.noise_levels, config.horizon
    kinds = (
        constant_levels(steps, horizon),
        increasing_levels(steps, horizon),
        independent_levels(steps, horizon),
        chunkwise_levels(steps, horizon, config.observation_steps, config.action_steps),
    )
    if len(config.regimes) != len(kinds):
        raise SettingError(
            f"the probabilities of the level regimes are {list(config.regimes)}",
            expected="four: constant, increasing, independent, chunk-wise",
        )
    return mixed_levels(list(zip(config.regimes, kinds, strict=True)))

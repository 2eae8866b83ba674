"""Diffusion Policy: behaviour cloning with a diffusion model over windows of actions.

At every decision a window of Tp actions is denoised from pure noise, given the last To observations, and Ta
of them are played. Trained to predict the noise at one level per window, uniform over the N levels. It keeps
the several modes that demonstrations have, at the price of N network calls a decision; `sdp` lowers that
price by keeping a buffer between decisions, `sampling_steps` by striding over the levels (DDIM).

Reference: Chi et al. 2023, Diffusion Policy: Visuomotor Policy Learning via Action Diffusion (2303.04137).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.networks.levels import constant_levels
from policysmith.policies.diffusion import DiffusionPolicy
from policysmith.training.learners.diffusion import DiffusionSettings, action_diffusion, diffusion_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(DiffusionSettings):
    """Defaults of the authors' state-based CNN policy (train_diffusion_unet_lowdim_workspace.yaml).

    Tp 16, To 2, Ta 8, N 100 with DDPM; U-Net 256-512-1024; AdamW 1e-4, batch 256, averaged weights. `steps`
    105,000 is about 1,050 passes over Push-T's 206 demonstrations. See `DiffusionSettings` for each setting.
    """


PRESETS = {
    "paper": Config(),
    "pictures": Config(widths=(512, 1024, 2048), level_size=128, batch_size=64),
    "bench": Config(
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
    model = action_diffusion(episodes, settings=config, level_per_position=False, seed=seed)
    policy = DiffusionPolicy(model, action_steps=config.action_steps, sampling_steps=config.sampling_steps)
    regime = constant_levels(config.noise_levels, config.horizon)
    return diffusion_run(policy, episodes, regime, settings=config, seed=seed, state=state)

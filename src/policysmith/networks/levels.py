"""Patterns of noise level over a sequence of actions: what a sequence denoiser is trained and run at.

A streaming policy keeps its next chunk of actions nearly clean and later ones noisier. With horizon Tp,
To observation steps, Ta actions per chunk and N levels there are h = floor((Tp - (To-1)) / Ta) chunks, and

    L(k) = floor(N (c(k) + 1) / h) - 1

is the level of position k in chunk c(k). Source: Høeg et al. 2024 (Streaming Diffusion Policy), and its code
for the positions at both ends.

A *regime* draws the levels of a training batch: `(batch size, rng) -> levels [batch, horizon]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from policysmith.common.errors import SettingError

Regime = Callable[[int, torch.Generator], Tensor]
"""(batch, rng) -> integer levels [batch, horizon]."""


def chunk_count(horizon: int, observation_steps: int, action_steps: int) -> int:
    """How many whole chunks of actions lie between now and the horizon; `SettingError` where not even one."""
    ahead = horizon - (observation_steps - 1)
    if observation_steps < 1 or not 1 <= action_steps <= ahead:
        raise SettingError(
            f"a horizon of {horizon} is too short for {observation_steps} observation steps and "
            f"{action_steps} action steps",
            expected=f"a horizon of at least {observation_steps - 1 + action_steps}, and one step of each",
        )
    return ahead // action_steps


def chunk_index(horizon: int, observation_steps: int, action_steps: int) -> Int[Tensor, "horizon"]:
    """The chunk of each position; past positions belong to the first, an incomplete tail to the last."""
    ahead = torch.arange(horizon) - (observation_steps - 1)
    chunks = chunk_count(horizon, observation_steps, action_steps)
    return (ahead.clamp(min=0) // action_steps).clamp(max=chunks - 1)


def streaming_levels(
    steps: int, horizon: int, observation_steps: int, action_steps: int
) -> Int[Tensor, "horizon"]:
    """The level pattern of a full buffer: about N/h - 1 in the chunk that is acted next, N - 1 in the last.

    Raises `SettingError` where there are fewer levels than chunks: a chunk would get no denoising step.
    """
    chunks = chunk_count(horizon, observation_steps, action_steps)
    if steps < chunks:
        raise SettingError(
            f"{steps} noise levels cannot be spread over {chunks} chunks of actions",
            expected="at least as many levels as chunks",
            cure=f"set the noise levels to {chunks} or more, or take longer chunks",
        )
    chunk = chunk_index(horizon, observation_steps, action_steps)
    return steps * (chunk + 1) // chunks - 1


def constant_levels(steps: int, horizon: int) -> Regime:
    """All positions of a sample share one level, uniform over the N levels: ordinary diffusion."""

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        return torch.randint(steps, (batch, 1), generator=rng, device=rng.device).expand(batch, horizon)

    return draw


def increasing_levels(steps: int, horizon: int) -> Regime:
    """Levels rise linearly from 0 at the first position to N-1 at the last; nothing is drawn."""

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        levels = torch.linspace(0, steps - 1, horizon, device=rng.device).round().long()
        return levels.expand(batch, horizon)

    return draw


def independent_levels(steps: int, horizon: int) -> Regime:
    """Every position has a level of its own, uniform over the N levels."""

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        return torch.randint(steps, (batch, horizon), generator=rng, device=rng.device)

    return draw


def chunkwise_levels(steps: int, horizon: int, observation_steps: int, action_steps: int) -> Regime:
    """The streaming pattern, lowered per sample by 0 to floor(N/h) - 1: every level met while acting."""
    pattern = streaming_levels(steps, horizon, observation_steps, action_steps)
    descents = steps // chunk_count(horizon, observation_steps, action_steps)

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        lowered = torch.randint(descents, (batch, 1), generator=rng, device=rng.device)
        return pattern.to(rng.device) - lowered

    return draw


def mixed_levels(regimes: Sequence[tuple[float, Regime]]) -> Regime:
    """One regime for the whole batch, drawn with the given probabilities.

    Raises `SettingError` listing the probabilities where they are negative or do not sum to one.
    """
    probabilities = [probability for probability, _ in regimes]
    if any(probability < 0 for probability in probabilities) or not abs(sum(probabilities) - 1) <= 1e-6:
        raise SettingError(
            f"the probabilities of the level regimes are {probabilities}",
            expected="none below zero, and a sum of 1",
        )
    weights = torch.tensor(probabilities)

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        chosen = int(torch.multinomial(weights.to(rng.device), 1, generator=rng))
        return regimes[chosen][1](batch, rng)

    return draw

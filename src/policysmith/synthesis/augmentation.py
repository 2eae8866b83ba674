"""Transitions disturbed on purpose: the cheap way to have more of them.

Additive noise moves state and next state alike, a factor stretches both alike, and dynamics noise stretches
the change between them. None knows the world, so that what is made need not be possible in it.

Source: Ball et al. 2021 (Augmented World Models), section 4, from Laskin et al. 2020; the baselines of
SynthER.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from policysmith.common.errors import SettingError

Disturb = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]
"""(transitions, rng) -> transitions, disturbed."""


def additive_noise(scale: float = 0.1) -> Disturb:
    """s + e and s' + e, with e normal and `scale` deviations of the states large, per dimension."""
    _check(scale)

    def disturb(transitions: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        state = transitions["observation"]
        moved = scale * state.std(0) * torch.randn(state.shape, generator=rng)
        return transitions | {
            "observation": state + moved,
            "next_observation": transitions["next_observation"] + moved,
        }

    return disturb


def multiplicative_noise(low: float = 0.8, high: float = 1.2) -> Disturb:
    """s e and s' e, with e uniform in [low, high], per dimension."""
    _check(high - low)

    def disturb(transitions: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        state = transitions["observation"]
        factor = low + (high - low) * torch.rand(state.shape, generator=rng)
        return transitions | {
            "observation": state * factor,
            "next_observation": transitions["next_observation"] * factor,
        }

    return disturb


def dynamics_noise(low: float = 0.5, high: float = 1.5) -> Disturb:
    """s stays, and s' becomes s + e (s' - s), with e uniform in [low, high], per dimension."""
    _check(high - low)

    def disturb(transitions: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        state, following = transitions["observation"], transitions["next_observation"]
        factor = low + (high - low) * torch.rand(state.shape, generator=rng)
        return transitions | {"next_observation": state + factor * (following - state)}

    return disturb


def disturbed(
    transitions: Mapping[str, Tensor], count: int, *, disturb: Disturb, rng: torch.Generator
) -> dict[str, Tensor]:
    """`count` transitions drawn with replacement, each disturbed in its own way."""
    if count < 1:
        raise SettingError(f"{count} transitions are to be made", expected="at least one")
    chosen = torch.randint(len(transitions["action"]), (count,), generator=rng)
    return disturb({key: value[chosen] for key, value in transitions.items()}, rng)


def _check(width: float) -> None:
    if not width >= 0:
        raise SettingError(f"the noise has width {width}", expected="0 or more")

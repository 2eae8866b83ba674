"""Rewards on a scale of their own: in units of how far they have spread over the whole run so far.

    normalise  R <- (R - mean) / deviation        scale  R <- R / deviation        then clip to +-c

A learnt reward has no natural zero and no natural unit. What a penalty for leaving a reference weighs, and
how far a critic is off, then depend on the reward model's whims, and drift as the policy climbs. Mean and
deviation are those of every reward of the run, the present batch included: it is merged before it is scaled.

Source: Zheng et al. 2023 (PPO-max), section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.keys import require_keys
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.networks.running import RunningMoments
from policysmith.policies.language.samples import Samples

How = Literal["normalise", "scale", "none"]

_WAYS: dict[str, Callable[[Tensor, RunningMoments], Tensor]] = {
    "normalise": lambda reward, moments: (reward - moments.mean) / moments.deviation,
    "scale": lambda reward, moments: reward / moments.deviation,
    "none": lambda reward, moments: reward,
}


def rescaled(
    reward: Float[Tensor, "row"],
    moments: RunningMoments,
    *,
    how: How = "normalise",
    clip: float | None = None,
) -> Float[Tensor, "row"]:
    """Rewards by the moments, which take them in first.

    Raises `SettingError` for a `clip` that is not above 0 (None: no clip) and another `how`.
    """
    check_rescaling(how=how, clip=clip)
    moments.update(reward)
    found = _WAYS[how](reward.double().cpu(), moments)
    if clip is not None:
        found = found.clamp(-clip, clip)
    return found.to(reward.dtype).to(reward.device)


def normalised(
    sampler: Sampler, moments: RunningMoments, *, how: How = "normalise", clip: float | None = None
) -> Sampler:
    """The answers of `sampler`, their `reward` rescaled; `score` and the log keep what was given.

    Put it around the sampler that gathers the answers of all processes, so that all of them have the same
    moments, and give `moments` to the run as a source, so that they are saved with it. Arguments as of
    `rescaled`.
    """
    check_rescaling(how=how, clip=clip)

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        samples = sampler(groups, rng=rng, version=version, copies=copies)
        require_keys(samples.batch, ["reward"], reader="normalising rewards")
        found = rescaled(samples.batch["reward"], moments, how=how, clip=clip)
        samples.batch["reward"] = found
        samples.log("reward_rescaled", found)
        if clip is not None:
            samples.log("reward_clipped", (found.abs() >= clip).float())
        return samples

    return sample


def check_rescaling(*, how: str, clip: float | None) -> None:
    """Raise `SettingError` for settings of `rescaled` that are out of their range."""
    if how not in _WAYS:
        raise SettingError(f"rewards rescaled by '{how}'", expected=", ".join(_WAYS))
    if clip is not None and not clip > 0:
        raise SettingError(f"rewards clipped to +-{clip}", expected="above 0, or None for no clip")

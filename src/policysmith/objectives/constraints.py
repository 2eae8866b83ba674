"""Objectives under constraints: multipliers that learn what a constraint costs, and barriers before it.

A constraint says violation <= 0. Its multiplier grows while it is broken, and the policy pays for it:

    policy:      loss + multiplier violation
    multiplier:  -multiplier violation,    multiplier = softplus(raw) > 0

The temperature of soft actor-critic is such a multiplier, of the constraint that the entropy is at least the
target. A log barrier pays before the constraint is broken: -log(slack) / sharpness.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError


def inverse_softplus(value: float) -> float:
    """The raw number whose softplus is `value`, where a multiplier is to start.

    Raises `SettingError` where it is not above 0, which softplus never reaches.
    """
    if not 0 < value < math.inf:
        raise SettingError(f"a multiplier of {value}", expected="above 0, and finite")
    return value + math.log(-math.expm1(-value))


def penalised_loss(
    loss: Float[Tensor, "row"], violation: Float[Tensor, "row"], *, multiplier: float | Float[Tensor, ""]
) -> Float[Tensor, "row"]:
    """loss + multiplier violation, the policy's side of the Lagrangian: no gradient to the multiplier."""
    return loss + torch.as_tensor(multiplier, dtype=loss.dtype, device=loss.device).detach() * violation


def multiplier_loss(multiplier: Float[Tensor, ""], violation: Float[Tensor, "row"]) -> Float[Tensor, "row"]:
    """-multiplier violation, the multiplier's side: it grows while the constraint is broken, else shrinks."""
    return -multiplier * violation.detach()


def temperature_loss(
    temperature: Float[Tensor, ""], log_prob: Float[Tensor, "row"], *, target_entropy: float
) -> Float[Tensor, "row"]:
    """temperature (entropy - target), the entropy being -log pi of an action drawn from the policy.

    The multiplier's loss for the constraint entropy >= `target_entropy`; gradient flows to the temperature
    alone. Source: Haarnoja et al. 2018 (SAC, 1812.05905), equation 18.
    """
    return multiplier_loss(temperature, target_entropy + log_prob)


def barrier_loss(
    ratio: Float[Tensor, "row"],
    mean_return: Float[Tensor, "objective"],
    threshold: Float[Tensor, "objective"],
    *,
    objective: int,
    clip: float = 0.2,
    sharpness: float = 20.0,
    floor: float = 1e-3,
) -> Float[Tensor, "row"]:
    """-log(slack) / sharpness, the mean over all objectives but the one that is improved.

    The slack of objective i is clip(ratio, 1 - clip, 1 + clip) mean_return_i - threshold_i, at least `floor`,
    `ratio` being pi / pi_old of the row's action: what the batch's mean return is expected to become.
    C-MORL's `threshold` is 0.9 of the mean return itself, or of what the policy had when it was chosen. Where
    the floor holds there is no gradient, and so no constraint: with the relative threshold that is every
    objective whose mean return is not above 0. Gradient flows through `ratio` alone.
    Source: Liu et al. 2024 (C-MORL, 2410.02236), the interior-point objective.
    """
    log_slack = _log_slack(ratio, mean_return, threshold, clip=clip, sharpness=sharpness, floor=floor)
    others = torch.arange(len(mean_return), device=ratio.device) != _checked(objective, len(mean_return))
    return -log_slack[:, others].mean(1) / sharpness


def row_dropping_barrier_loss(
    ratio: Float[Tensor, "row"],
    mean_return: Float[Tensor, "objective"],
    threshold: Float[Tensor, "objective"],
    *,
    objective: int,
    clip: float = 0.2,
    sharpness: float = 20.0,
    floor: float = 1e-3,
) -> Float[Tensor, "row"]:
    """The barrier as the authors' code has it: without row number `objective`, over all objectives.

    So the objective that is improved is constrained too, and one row of the minibatch is not. The mean over
    the rows is the code's number. Source: the authors' implementation of C-MORL.
    """
    log_slack = _log_slack(ratio, mean_return, threshold, clip=clip, sharpness=sharpness, floor=floor)
    kept = torch.arange(len(ratio), device=ratio.device) != _checked(objective, len(mean_return))
    return -torch.where(kept, log_slack.mean(1), 0.0) * (len(ratio) / kept.sum().clamp(min=1)) / sharpness


def _log_slack(
    ratio: Tensor, mean_return: Tensor, threshold: Tensor, *, clip: float, sharpness: float, floor: float
) -> Float[Tensor, "row objective"]:
    if mean_return.shape != threshold.shape or mean_return.dim() != 1 or len(mean_return) < 2:
        raise ShapeError(
            f"mean returns of shape {list(mean_return.shape)}, thresholds of {list(threshold.shape)}",
            expected="one of each for two objectives or more",
        )
    for name, value in (("clip", clip), ("sharpness", sharpness), ("floor", floor)):
        if not value > 0:
            raise SettingError(f"{name} is {value}", expected="above 0")
    expected = ratio.clamp(1 - clip, 1 + clip)[:, None] * mean_return.detach()
    return (expected - threshold.detach()).clamp(min=floor).log()


def _checked(objective: int, count: int) -> int:
    if not 0 <= objective < count:
        raise SettingError(f"objective number {objective}", expected=f"0 to {count - 1}")
    return objective

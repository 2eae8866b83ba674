"""Losses on answers that the policy did not sample from the prompt they are learnt on.

A refinement written with a critique in view, or an explanation written with the answer in view, is scored on
the bare prompt. Its importance ratio has no meaning there; what its tokens count is *shaped* by how likely
the policy finds them, f(p) = p / (p + gamma), whose pull is largest on tokens of probability gamma.

Sources: Yan et al. 2025 (LUFFY), policy shaping; Zhang et al. 2025 (Critique-GRPO).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.policy_gradient import clipped_policy_loss, importance_ratio


def shaped_probability(
    log_prob: Float[Tensor, "*shape"], *, gamma: float | None = 0.1
) -> Float[Tensor, "*shape"]:
    """p / (p + gamma) with p = exp(log_prob): rare tokens weigh more than their probability; p for None."""
    if gamma is None:
        return log_prob.exp()
    if gamma <= 0:
        raise SettingError(
            f"gamma is {gamma}", expected="above 0: the shape is not defined at p = 0 otherwise"
        )
    p = log_prob.exp()
    return p / (p + gamma)


def mixed_policy_loss(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    advantage: Float[Tensor, "row #time"],
    off_policy: Bool[Tensor, "row"],
    *,
    gamma: float | None = 0.1,
    clip: float | None = None,
) -> Float[Tensor, "row time"]:
    """-A rho on sampled rows; -A f(p) on `off_policy` rows, whatever `old_log_prob` is there.

    With `clip`, sampled rows have PPO's loss, clipped that far on either side.
    """
    if off_policy.shape != log_prob.shape[:1]:
        raise ShapeError(
            f"off-policy marks of shape {list(off_policy.shape)}",
            expected=f"[{len(log_prob)}]: a row is off policy as a whole or not at all",
        )
    advantage = advantage.detach()
    if clip is None:
        sampled = -advantage * importance_ratio(log_prob, old_log_prob)
    else:
        sampled = clipped_policy_loss(log_prob, old_log_prob, advantage, low=clip, high=clip)
    given = -advantage * shaped_probability(log_prob, gamma=gamma)
    return torch.where(off_policy[:, None], given, sampled)

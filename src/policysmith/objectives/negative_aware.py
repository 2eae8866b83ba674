"""Likelihood on right and wrong answers: the wrong ones through the policy they imply.

An answer sampled from pi_old is right with the rate r of its group. If pi is what right answers follow, wrong
ones follow (pi_old - r pi) / (1 - r), so that with R = pi / pi_old per token

    right:  -log R          wrong:  -log max((1 - r R) / (1 - r), floor)

Strictly on policy the gradient is that of group-relative policy gradient; off policy a wrong token that has
become less likely is pushed ever more softly, where a clip would drop it.

Source: Chen et al. 2025, Bridging Supervised Learning and Reinforcement Learning in Math Reasoning (NFT).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError

PromptWeight = Literal["none", "difficulty", "spread"]

RATE_LIMIT = 0.02
"""The group's rate is kept this far from 0 and 1."""


def straight_through_max(value: Float[Tensor, "*shape"], floor: float) -> Float[Tensor, "*shape"]:
    """max(value, floor) in value, with the gradient of `value` everywhere."""
    return value + (value.clamp(min=floor) - value).detach()


def prompt_weight(rate: Float[Tensor, "row"], kind: PromptWeight) -> Float[Tensor, "row"]:
    """`difficulty`: 1 - r, on policy the centred advantage; `spread`: sqrt((1 - r) / r), the one divided by
    the deviation; `none`: 1."""
    rate = rate.clamp(RATE_LIMIT, 1 - RATE_LIMIT)
    if kind == "difficulty":
        return 1 - rate
    if kind == "spread":
        return ((1 - rate) / rate).sqrt()
    return torch.ones_like(rate)


def negative_aware_loss(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    correct: Bool[Tensor, "row"],
    rate: Float[Tensor, "row"],
    *,
    negative_weight: float = 1.0,
    negative_floor: float = 1.0,
    positive_floor: float = 0.0,
    weight: PromptWeight = "difficulty",
) -> Float[Tensor, "row time"]:
    """The loss of each token, its prompt's weight included; `rate` is the group's share of right answers.

    Raises `SettingError` for a `negative_floor` of 0 or less (the logarithm of the implied policy would not
    exist) and `DataError` for rates outside (0, 1), which leave nothing to compare.
    """
    if negative_floor <= 0:
        raise SettingError(
            f"a floor of {negative_floor} under the implied policy's ratio",
            expected="above 0: its logarithm is taken, and 1 - r R may be negative",
        )
    if not bool(((rate > 0) & (rate < 1)).all()):
        row = int((~((rate > 0) & (rate < 1))).nonzero()[0])
        raise DataError(
            f"the group of row {row} has the rate {float(rate[row]):g}",
            expected="between 0 and 1: a group that is all right or all wrong says nothing",
            cure="filter such groups out before the update",
        )
    kept = rate.clamp(RATE_LIMIT, 1 - RATE_LIMIT)[:, None]
    ratio = (log_prob - old_log_prob.detach()).clamp(max=10).exp()
    positive = -straight_through_max(ratio, positive_floor).log()
    implied = (1 - kept * ratio) / (1 - kept)
    negative = -straight_through_max(implied, negative_floor).log()
    loss = torch.where(correct[:, None], positive, negative_weight * negative)
    return prompt_weight(rate, weight)[:, None] * loss


def floored_share(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    correct: Bool[Tensor, "row"],
    *,
    negative_floor: float = 1.0,
    rate: Float[Tensor, "row"],
) -> Float[Tensor, "row time"]:
    """1.0 on the tokens of wrong answers where the floor binds (with 1: the token has become likelier)."""
    kept = rate.clamp(RATE_LIMIT, 1 - RATE_LIMIT)[:, None]
    ratio = (log_prob - old_log_prob).detach().clamp(max=10).exp()
    return (~correct[:, None] & (1 - kept * ratio < negative_floor * (1 - kept))).float()

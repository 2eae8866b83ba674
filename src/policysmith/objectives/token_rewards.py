"""Rewards per token: where in an answer its reward arrives, and what straying from a reference costs.

    r_t = -coefficient KL_t,    and the answer's reward R on top at its last token

All arrays are [row, time]; `mask` marks the tokens of the answer. Nothing here carries gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.advantages import generalised_advantage
from policysmith.objectives.divergences import kl_k1


def reward_at_end(reward: Float[Tensor, "row"], mask: Bool[Tensor, "row time"]) -> Float[Tensor, "row time"]:
    """The row's reward on its last token of `mask`, 0 elsewhere.

    Raises `DataError` naming the first row that has a reward and no token.
    """
    position = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, position, -1).amax(1)
    if bool(((last < 0) & (reward != 0)).any()):
        row = int(((last < 0) & (reward != 0)).nonzero()[0])
        raise DataError(
            "a reward for an answer without a token", where=f"row {row}", expected="at least one token"
        )
    return torch.where(position == last[:, None], reward.detach()[:, None], 0.0)


def kl_penalty(
    log_prob: Float[Tensor, "row time"],
    reference_log_prob: Float[Tensor, "row time"],
    mask: Bool[Tensor, "row time"],
    *,
    coefficient: float,
) -> Float[Tensor, "row time"]:
    """-`coefficient` (log pi - log pi_ref) of each token that was drawn, 0 outside `mask`; of either sign.

    `log_prob` is under the weights that drew. Source: Ziegler et al. 2019, equation 2.
    """
    if coefficient < 0:
        raise SettingError(f"a penalty of {coefficient}", expected="0 or more")
    return torch.where(mask, -coefficient * kl_k1(log_prob.detach(), reference_log_prob), 0.0)


def whiten_around_mean(
    reward: Float[Tensor, "row time"], mask: Bool[Tensor, "row time"], *, eps: float = 1e-8
) -> Float[Tensor, "row time"]:
    """(r - m) / sqrt(v + `eps`) + m over the tokens of `mask`: the scale goes, the mean stays; 0 elsewhere.

    v is the variance of these tokens as a population. Source: Ziegler et al. 2019, the authors' code.
    """
    reward = reward.detach()
    if not bool(mask.any()):
        return torch.zeros_like(reward)
    mean, variance = reward[mask].mean(), reward[mask].var(correction=0)
    return torch.where(mask, (reward - mean) / (variance + eps).sqrt() + mean, 0.0)


def discounted_return(
    reward: Float[Tensor, "row time"], mask: Bool[Tensor, "row time"], *, discount: float
) -> Float[Tensor, "row time"]:
    """What comes after each token of `mask`, its own reward included: GAE of a critic that says nothing."""
    nothing = torch.zeros_like(reward)
    return generalised_advantage(reward, nothing, nothing[:, 0], mask, discount=discount, lam=1.0)


def explained_variance(
    value: Float[Tensor, "row time"], target: Float[Tensor, "row time"], mask: Bool[Tensor, "row time"]
) -> Float[Tensor, ""]:
    """1 - var(target - value) / var(target) over the tokens of `mask`: 1 for a perfect critic.

    0 for one that says the same everywhere, and where all targets agree, so that there is nothing to explain.
    """
    left, whole = (target - value)[mask].var(correction=0), target[mask].var(correction=0)
    return torch.where(whole > 0, 1 - left / whole.clamp(min=1e-12), 0.0)

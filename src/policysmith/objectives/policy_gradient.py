"""Policy-gradient losses per action or token, for whoever averages them.

With rho = exp(log_prob - old_log_prob) the clipped loss is max(-A rho, -A clip(rho, 1 - low, 1 + high)). The
arrays are [row] for actions and [row, time] for tokens, whose advantage per row is given as [row, 1].
Gradient flows through `log_prob` alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError


def policy_gradient_loss(
    log_prob: Float[Tensor, "*shape"], advantage: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """-A log pi, whose gradient is that of the clipped loss where nothing has moved since sampling."""
    return -advantage.detach() * log_prob


def importance_ratio(
    log_prob: Float[Tensor, "*shape"], old_log_prob: Float[Tensor, "*shape"], *, most: float = 20.0
) -> Float[Tensor, "*shape"]:
    """exp(log_prob - old_log_prob), the logarithm held within `most` nats so that it stays finite."""
    return (log_prob - old_log_prob.detach()).clamp(-most, most).exp()


def clipped_policy_loss(
    log_prob: Float[Tensor, "*shape"],
    old_log_prob: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*#shape"],
    *,
    low: float = 0.2,
    high: float = 0.2,
    ceiling: float | None = None,
) -> Float[Tensor, "*shape"]:
    """PPO's loss: no gradient where the ratio has moved past 1 - `low` or 1 + `high` in the good direction.

    `ceiling` (dual clip) bounds the loss at `ceiling` |A| where A < 0, beyond which it has no gradient.
    Sources: Schulman et al. 2017 (PPO), equation 7; Ye et al. 2020 (dual clip); Yu et al. 2025 (DAPO) for
    unequal `low` and `high`.
    """
    if low < 0 or high < 0:
        raise SettingError(f"clip ranges {low} and {high}", expected="0 or more")
    if ceiling is not None and ceiling <= 1:
        raise SettingError(f"a ceiling of {ceiling}", expected="more than 1")
    advantage = advantage.detach()
    cost, ratio = -advantage, importance_ratio(log_prob, old_log_prob)
    loss = torch.maximum(cost * ratio, cost * ratio.clamp(1 - low, 1 + high))
    if ceiling is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * ceiling), loss)


def clipped_share(
    log_prob: Float[Tensor, "*shape"],
    old_log_prob: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*#shape"],
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> Float[Tensor, "*shape"]:
    """1.0 where the clip binds, 0.0 elsewhere."""
    ratio = importance_ratio(log_prob, old_log_prob).detach()
    past = torch.where(advantage > 0, ratio > 1 + high, ratio < 1 - low)
    return (past & (advantage != 0)).float()


def clipped_value_loss(
    value: Float[Tensor, "*shape"],
    old_value: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    low: float,
    high: float,
) -> Float[Tensor, "*shape"]:
    """0.5 max((V - target)^2, (clip(V, V_old - low, V_old + high) - target)^2).

    `low` = `high` is the common one, and the axes may be any (a critic of several objectives).
    Source: Schulman et al.'s implementation of PPO, with a range on either side of its own.
    """
    old_value, target = old_value.detach(), target.detach()
    held = torch.minimum(torch.maximum(value, old_value - low), old_value + high)
    return 0.5 * torch.maximum((value - target).square(), (held - target).square())


def truncated_importance_weight(
    log_prob: Float[Tensor, "*shape"], behaviour_log_prob: Float[Tensor, "*shape"], *, most: float = 2.0
) -> Float[Tensor, "*shape"]:
    """min(pi / behaviour, `most`), without gradient: corrects for a sampler that is not quite the policy.

    Source: Espeholt et al. 2018 (IMPALA), the clipped importance weight.
    """
    return importance_ratio(log_prob, behaviour_log_prob).detach().clamp(max=most)

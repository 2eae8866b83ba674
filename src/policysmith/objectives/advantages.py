"""Advantages: how much better a row (or a token of it) was than expected.

Over groups, the expectation is what the other answers to the same prompt got; `group_id` names the group of
each row, groups may differ in size and their rows need not be adjacent. Over time, it is a value function:

    delta_t = r_t + discount V_{t+1} - V_t,    A_t = delta_t + discount lam A_{t+1}.

Everything here is an estimate: nothing carries gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import ShapeError
from policysmith.objectives.returns import backward_sum, check_unit


def group_moments(
    reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]
) -> tuple[Float[Tensor, "row"], Float[Tensor, "row"], Int[Tensor, "row"]]:
    """Mean, unbiased standard deviation and size of the group of each row.

    A group of one has the mean 0 and the deviation 1, so that its reward stays what it is. Raises
    `ShapeError` where the two do not have one entry per row.
    """
    if reward.dim() != 1 or reward.shape != group_id.shape:
        raise ShapeError(
            f"rewards of shape {list(reward.shape)} for group ids of shape {list(group_id.shape)}",
            expected="one of each per row",
        )
    reward = reward.detach()
    _, index, count = group_id.unique(return_inverse=True, return_counts=True)
    size = count[index]
    total = reward.new_zeros(len(count))
    mean = total.index_add(0, index, reward)[index] / size
    squares = total.index_add(0, index, (reward - mean).square())[index]
    std = (squares / (size - 1).clamp(min=1)).sqrt()
    alone = size == 1
    return torch.where(alone, 0.0, mean), torch.where(alone, 1.0, std), size


def group_advantage(
    reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"], *, eps: float = 1e-6
) -> Float[Tensor, "row"]:
    """Reward relative to its group, in units of the group's spread: (r - mean) / (std + eps).

    A group whose rewards all agree gives zeros; a group of one keeps its reward, as the common
    implementations do. Source: Shao et al. 2024 (GRPO), section 4.1.2.
    """
    mean, std, size = group_moments(reward, group_id)
    relative = (reward.detach() - mean) / (std + eps)
    return torch.where(size == 1, reward.detach(), relative)


def centred_advantage(reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """Reward minus the mean of its group, not divided by anything.

    Source: Liu et al. 2025 (Dr. GRPO), equation 3.
    """
    mean, _, _ = group_moments(reward, group_id)
    return reward.detach() - mean


def leave_one_out_advantage(
    reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """Reward minus the mean of the *other* rows of its group: size / (size - 1) times the centred one.

    Source: Ahmadian et al. 2024 (RLOO), equation 8.
    """
    mean, _, size = group_moments(reward, group_id)
    factor = size.to(mean.dtype) / (size - 1).clamp(min=1)
    return (reward.detach() - mean) * factor


def group_rate(correct: Float[Tensor, "row"], group_id: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """The share of correct answers in the group of each row, groups of one included."""
    mean, _, size = group_moments(correct, group_id)
    return torch.where(size == 1, correct.detach(), mean)


def agreeing(reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]) -> Bool[Tensor, "row"]:
    """Whether all rewards of the row's group are equal, so that nothing is better or worse."""
    _, index = group_id.unique(return_inverse=True)
    groups = int(index.max()) + 1 if len(index) else 0
    low = reward.new_full((groups,), torch.inf).scatter_reduce(0, index, reward, "amin")
    high = reward.new_full((groups,), -torch.inf).scatter_reduce(0, index, reward, "amax")
    return (low == high)[index]


def scale_by_group(
    advantage: Float[Tensor, "row"], factor: Float[Tensor, "group"], group_id: Int[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """Each row's advantage times its group's factor; `factor` is in the order of the sorted group ids.

    Raises `ShapeError` where there is not one factor per group and one advantage per row.
    """
    ids, index = group_id.unique(return_inverse=True)
    if factor.shape != ids.shape or advantage.shape != group_id.shape:
        raise ShapeError(
            f"{len(factor)} factors and {len(advantage)} advantages",
            expected=f"one for each of {len(ids)} groups, and for each of {len(group_id)} rows",
        )
    return advantage * factor[index]


def generalised_advantage(
    reward: Float[Tensor, "row time"],
    value: Float[Tensor, "row time"],
    next_value: Float[Tensor, "row"],
    mask: Bool[Tensor, "row time"],
    *,
    discount: float,
    lam: float | Float[Tensor, "row"],
) -> Float[Tensor, "row time"]:
    """Advantages by GAE over the steps of `mask`; `next_value` follows the last of them.

    `next_value` is 0 where the row has ended and the value of what comes next where it was cut. Steps outside
    `mask` (padding, and what others wrote in between) are passed over: the step before them is followed by
    the step after. They get 0. Raises `SettingError` for a `discount` or `lam` outside [0, 1].
    Source: Schulman et al. 2016 (GAE), equation 16.
    """
    check_unit(discount=discount, lam=lam)
    keep = mask.bool().T
    value, reward, lam = value.detach().T, reward.detach().T, torch.as_tensor(lam, device=value.device)
    # The values one step on, and those at the next step that is kept: both by the recursion of `returns`.
    ahead = torch.cat([torch.where(keep, value, 0.0)[1:], next_value.detach()[None]])
    following = backward_sum(ahead, torch.cat([(~keep)[1:], (~keep)[:1]]).to(value.dtype))
    delta = torch.where(keep, reward + discount * following - value, 0.0)
    advantage = backward_sum(delta, torch.where(keep, discount * lam.to(value.dtype), 1.0))
    return torch.where(keep, advantage, 0.0).T


def whiten(
    advantage: Float[Tensor, "row time"],
    mask: Bool[Tensor, "row time"],
    *,
    eps: float = 1e-8,
    correction: int = 1,
) -> Float[Tensor, "row time"]:
    """Mean 0 and variance 1 over the tokens of `mask`; zero elsewhere.

    The variance is the unbiased one; with a `correction` of 0 it is that of the tokens as a population.
    """
    kept = advantage[mask]
    if len(kept) < 2:
        return torch.zeros_like(advantage)
    scaled = (advantage - kept.mean()) / (kept.var(correction=correction) + eps).sqrt()
    return torch.where(mask, scaled, 0.0)

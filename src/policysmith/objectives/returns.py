"""Returns and advantages along rollouts of environments: arrays [time, env], and further axes (objectives).

Each of them is one recursion from the last step back to the first,

    y_t = x_t + factor_t y_{t+1},

which for generalised advantages reads A_t = delta_t + discount lam A_{t+1} inside an episode. Two flags per
step say where it is cut: behind a `terminated` step nothing has any value; an `ended` one (terminated, or cut
by a time limit) is followed by another episode, so that `next_value`, the value of what was truly seen after
the action, is the last word on it. The last step of the arrays is always followed by its `next_value`.

Advantages of tokens, [row, time] under a mask, are in `advantages`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError


def backward_sum(
    term: Float[Tensor, "time *shape"], factor: Float[Tensor, "time *#shape"]
) -> Float[Tensor, "time *shape"]:
    """y_t = term_t + factor_t y_{t+1}, nothing following the last; gradient flows through both.

    By doubling: sums over windows of 1, 2, 4, ... steps, so that a thousand steps take ten operations.
    """
    total, weight, step = term, factor[:-1], 1
    while step < len(term):
        total = torch.cat([total[:-step] + weight * total[step:], total[-step:]])
        weight = weight[:-step] * weight[step:]
        step *= 2
    return total


@torch.no_grad()
def generalised_advantage(
    reward: Float[Tensor, "time env *objective"],
    value: Float[Tensor, "time env *objective"],
    next_value: Float[Tensor, "time env *objective"],
    *,
    terminated: Bool[Tensor, "time env"],
    ended: Bool[Tensor, "time env"],
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "time env *objective"]:
    """Advantages by GAE: the sum of (discount gae_lambda)^k delta_{t+k} to the end of the episode.

    delta_t = reward_t + discount next_value_t - value_t, with no next value where `terminated`. The critic is
    fitted to advantage + value. Nothing carries gradient. Raises `ShapeError` where the arrays differ in
    shape, `SettingError` for a `discount` or `gae_lambda` outside [0, 1].
    Source: Schulman et al. 2016 (GAE), equation 16.
    """
    check_unit(discount=discount, gae_lambda=gae_lambda)
    _check_shapes(terminated, ended, reward=reward, value=value, next_value=next_value)
    delta = reward + discount * _unless(terminated, next_value) - value
    return backward_sum(delta, discount * gae_lambda * _flag(~ended, delta))


def check_unit(**values: float | Tensor) -> None:
    """Raise `SettingError` naming the first of `values` that is not within [0, 1]."""
    for name, value in values.items():
        given = torch.as_tensor(value)
        if not bool(((given >= 0) & (given <= 1)).all()):
            raise SettingError(f"{name} is {value}", expected="0 to 1")


def _flag(flag: Tensor, like: Tensor) -> Tensor:
    """A flag per step as numbers that multiply `like`, whatever axes that has behind [time, env]."""
    return flag.to(like.dtype).reshape(flag.shape + (1,) * (like.dim() - flag.dim()))


def _unless(flag: Tensor, value: Tensor) -> Tensor:
    """`value`, and 0 where the flag is set, even where the value there is not a number."""
    return torch.where(flag.reshape(flag.shape + (1,) * (value.dim() - flag.dim())), 0.0, value)


def _check_shapes(terminated: Tensor, ended: Tensor, **arrays: Tensor) -> None:
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    first = next(iter(arrays.values()))
    if any(array.shape != first.shape for array in arrays.values()):
        raise ShapeError(
            f"arrays of unequal shapes: {shapes}", expected="[time, env], or [time, env, objective]"
        )
    if not terminated.shape == ended.shape == first.shape[: terminated.dim()]:
        raise ShapeError(
            f"flags of shape {list(terminated.shape)} and {list(ended.shape)} for {shapes}",
            expected="[time, env], one flag per step",
        )

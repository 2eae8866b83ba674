"""Returns and advantages along rollouts of environments: arrays [time, env], and further axes (objectives).

Each of them is one recursion from the last step back to the first,

    y_t = x_t + factor_t y_{t+1},

which for generalised advantages reads A_t = delta_t + discount lam A_{t+1} inside an episode. Two flags per
step say where it is cut. Behind a `terminated` step nothing has any value. An `ended` one (terminated, or cut
by a time limit) is followed by another episode, so that `next_value`, the value of what was truly seen after
the action, is the last word on it, as it is behind the last step of the arrays.

Advantages of tokens, [row, time] under a mask, are in `advantages`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

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


def lambda_returns(
    reward: Float[Tensor, "time env *objective"],
    next_value: Float[Tensor, "time env *objective"],
    *,
    terminated: Bool[Tensor, "time env"],
    ended: Bool[Tensor, "time env"],
    discount: float,
    lam: float,
) -> Float[Tensor, "time env *objective"]:
    """G_t = r_t + discount ((1 - lam) V_{t+1} + lam G_{t+1}): returns of all lengths, mixed.

    With V' = V_{t+1} inside episodes it is advantage by GAE plus value. Gradient flows through rewards and
    values, for those who differentiate through a model. Errors as for `generalised_advantage`.
    Source: Sutton and Barto 2018, section 12.1, in the recursive form.
    """
    check_unit(discount=discount, lam=lam)
    _check_shapes(terminated, ended, reward=reward, next_value=next_value)
    goes_on = discount * lam * _flag(~_cut(ended), reward)
    # What lam leaves to the value; all of it where the return goes no further.
    term = reward + (discount - goes_on) * _unless(terminated, next_value)
    return backward_sum(term, goes_on)


def n_step_returns(
    reward: Float[Tensor, "time env *objective"],
    next_value: Float[Tensor, "time env *objective"],
    *,
    steps: int,
    terminated: Bool[Tensor, "time env"],
    ended: Bool[Tensor, "time env"],
    discount: float,
) -> Float[Tensor, "time env *objective"]:
    """The rewards of `steps` steps and the value behind them; fewer where the episode or the arrays end.

    Gradient flows as in `lambda_returns`. Raises `SettingError` for `steps` below 1, and as the others do.
    Source: Sutton and Barto 2018, equation 7.1.
    """
    if steps < 1:
        raise SettingError(f"returns over {steps} steps", expected="1 or more")
    check_unit(discount=discount)
    _check_shapes(terminated, ended, reward=reward, next_value=next_value)
    one = reward + discount * _unless(terminated, next_value)
    inside = _flag(~_cut(ended), reward).bool()
    total = one
    for _ in range(min(steps, len(reward)) - 1):
        total = torch.where(inside, reward + discount * total.roll(-1, 0), one)
    return total


class VTrace(NamedTuple):
    """What V-trace says of every step: the critic's target and the actor's advantage, without gradient."""

    value_target: Float[Tensor, "time env"]
    advantage: Float[Tensor, "time env"]


@torch.no_grad()
def v_trace(
    reward: Float[Tensor, "time env"],
    value: Float[Tensor, "time env"],
    next_value: Float[Tensor, "time env"],
    *,
    log_ratio: Float[Tensor, "time env"],
    terminated: Bool[Tensor, "time env"],
    ended: Bool[Tensor, "time env"],
    discount: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lam: float = 1.0,
) -> VTrace:
    """Values and advantages of a policy from what another one did; `log_ratio` is log pi - log behaviour.

    With rho = min(rho_bar, ratio) and c = lam min(c_bar, ratio):

        v_t - V_t = rho_t (r_t + discount V_{t+1} - V_t) + discount c_t (v_{t+1} - V_{t+1})
        A_t = rho_t (r_t + discount v_{t+1} - V_t)

    `rho_bar` decides which policy's value is found, `c_bar` how far it looks. Raises `SettingError` where a
    bar is not above 0, and as the others do.
    Source: Espeholt et al. 2018 (IMPALA), equation 1, remark 1 and section 4.2 (the advantage).
    """
    check_unit(discount=discount, lam=lam)
    if not (rho_bar > 0 and c_bar > 0):
        raise SettingError(f"rho_bar is {rho_bar} and c_bar {c_bar}", expected="above 0")
    _check_shapes(terminated, ended, reward=reward, value=value, next_value=next_value, log_ratio=log_ratio)
    rho, c = (log_ratio.clamp(max=math.log(bar)).exp() for bar in (rho_bar, c_bar))
    follows = _unless(terminated, next_value)
    delta = rho * (reward + discount * follows - value)
    target = value + backward_sum(delta, discount * lam * c * ~ended)
    after = torch.where(_cut(ended), follows, target.roll(-1, 0))
    return VTrace(target, rho * (reward + discount * after - value))


@torch.no_grad()
def retrace(
    reward: Float[Tensor, "time env"],
    q: Float[Tensor, "time env"],
    next_value: Float[Tensor, "time env"],
    *,
    log_ratio: Float[Tensor, "time env"],
    terminated: Bool[Tensor, "time env"],
    ended: Bool[Tensor, "time env"],
    discount: float,
    lam: float = 1.0,
) -> Float[Tensor, "time env"]:
    """Targets for Q of the actions that another policy took; `log_ratio` is log pi - log behaviour of them.

    With c = lam min(1, ratio), and V' = `next_value` the mean of Q over the policy's own actions:

        y_t - Q_t = r_t + discount V'_t - Q_t + discount c_{t+1} (y_{t+1} - Q_{t+1})

    Unlike in V-trace the first action needs no correction. Errors as for `generalised_advantage`.
    Source: Munos et al. 2016, equation 3 with the traces of Retrace(lambda).
    """
    check_unit(discount=discount, lam=lam)
    _check_shapes(terminated, ended, reward=reward, q=q, next_value=next_value, log_ratio=log_ratio)
    delta = reward + discount * _unless(terminated, next_value) - q
    trace = lam * log_ratio.clamp(max=0).exp().roll(-1, 0)
    return q + backward_sum(delta, discount * trace * ~ended)


def check_unit(**values: float | Tensor) -> None:
    """Raise `SettingError` naming the first of `values` that is not within [0, 1]."""
    for name, value in values.items():
        given = torch.as_tensor(value)
        if not bool(((given >= 0) & (given <= 1)).all()):
            raise SettingError(f"{name} is {value}", expected="0 to 1")


def _flag(flag: Tensor, like: Tensor) -> Tensor:
    """A flag per step as numbers that multiply `like`, whatever axes that has behind [time, env]."""
    return flag.to(like.dtype).reshape(flag.shape + (1,) * (like.dim() - flag.dim()))


def _cut(ended: Tensor) -> Tensor:
    """The steps that the next one of the arrays does not follow: ends, and the last."""
    last = torch.zeros_like(ended)
    last[-1:] = True
    return ended | last


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

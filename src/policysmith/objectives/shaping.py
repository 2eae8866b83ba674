"""Rewards built from tolerances: one where a quantity is as wanted, falling off smoothly outside.

    tolerance(x) = 1 within the bounds, else sigmoid(distance to the bounds / margin)

A sigmoid falls from one at distance zero to `value_at_margin` at distance one; which one decides how far away
the reward can still be felt. Conditions that have to hold together are joined by the Hamacher product, which
is zero as soon as one of them is. Meta-World's rewards (its version 2) are built from these and nothing else.
Sources: the control suite, Tassa et al. 2018, section 2 (tolerance); Meta-World's package, version 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError

Sigmoid: TypeAlias = Callable[[Tensor, float], Tensor]
"""From distances (0 or more, in margins) and the value at distance one to values between 0 and 1."""

VALUE_AT_MARGIN = 0.1
SUCCESS_RADIUS = 0.05
"""Metres from the goal at which Meta-World counts reach and push as done."""


def tolerance(
    x: Float[Tensor, "*row"],
    bounds: tuple[float, float] = (0.0, 0.0),
    *,
    margin: float | Float[Tensor, "*row"] = 0.0,
    sigmoid: Sigmoid | None = None,
    value_at_margin: float = VALUE_AT_MARGIN,
) -> Float[Tensor, "*row"]:
    """1 where `x` lies within `bounds`, else `sigmoid` of the distance to them in units of `margin`.

    Bounds are inclusive and may be infinite; `margin` is one number or one per row, and rows of margin zero
    get 0 outside. `sigmoid` is one of this module (by default `gaussian`). Raises `SettingError` where the
    lower bound is above the upper, a margin is negative, or `value_at_margin` is outside the sigmoid's range.
    """
    low, high = bounds
    if not low <= high:
        raise SettingError(f"the lower bound {low:g} is above the upper bound {high:g}")
    margin = torch.as_tensor(margin, dtype=x.dtype, device=x.device)
    if not bool((margin >= 0).all()):
        raise SettingError(f"a margin of {float(margin.min()):g}", expected="0 or more")
    outside = torch.where(x < low, low - x, x - high)
    inside = outside <= 0
    # Where the result is not used the distance is put to zero, so that no gradient comes out as NaN.
    usable = ~inside & (margin > 0)
    distance = torch.where(usable, outside, 0.0) / torch.where(margin > 0, margin, 1.0)
    value = (sigmoid or gaussian)(distance, value_at_margin)
    return torch.where(inside, 1.0, torch.where(usable, value, 0.0)).to(x.dtype)


def hamacher_product(a: Float[Tensor, "*row"], b: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """a b / (a + b - a b), and 0 where both are 0: the *and* of two values between 0 and 1.

    Raises `SettingError` for values outside of [0, 1].
    """
    for values in (a, b):
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise SettingError(
                f"values from {float(values.min()):g} to {float(values.max()):g}", expected="between 0 and 1"
            )
    both = a + b - a * b
    return torch.where(both > 0, a * b / torch.where(both > 0, both, 1.0), 0.0)


# ---- sigmoids ----------------------------------------------------------------------------------------


def gaussian(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """exp(-(d k)^2 / 2): hardly felt beyond two margins."""
    scale = math.sqrt(-2 * math.log(_open(value_at_margin)))
    return torch.exp(-0.5 * (distance * scale).square())


def long_tail(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 / ((d k)^2 + 1): felt from far away, flat at the bounds."""
    scale = math.sqrt(1 / _open(value_at_margin) - 1)
    return 1 / ((distance * scale).square() + 1)


def reciprocal(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 / (d k + 1): felt from furthest away, steep at the bounds."""
    scale = 1 / _open(value_at_margin) - 1
    return 1 / (distance.abs() * scale + 1)


def hyperbolic(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 / cosh(d k): flat at the bounds, exponential far away."""
    scale = math.acosh(1 / _open(value_at_margin))
    return 1 / torch.cosh(distance * scale)


def tanh_squared(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 - tanh(d k)^2."""
    scale = math.atanh(math.sqrt(1 - _open(value_at_margin)))
    return 1 - torch.tanh(distance * scale).square()


def cosine(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """(1 + cos(pi d k)) / 2, and 0 from d k = 1 on."""
    scaled = distance * (math.acos(2 * _half_open(value_at_margin) - 1) / math.pi)
    return torch.where(scaled.abs() < 1, (1 + torch.cos(math.pi * scaled)) / 2, 0.0)


def linear(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 - d k, and 0 from d k = 1 on."""
    return (1 - distance.abs() * (1 - _half_open(value_at_margin))).clamp(min=0)


def quadratic(distance: Float[Tensor, "*row"], value_at_margin: float) -> Float[Tensor, "*row"]:
    """1 - (d k)^2, and 0 from d k = 1 on."""
    return (1 - distance.square() * (1 - _half_open(value_at_margin))).clamp(min=0)


# ---- Meta-World's rewards -------------------------------------------------------------------------------


def reach_reward(
    hand_to_goal: Float[Tensor, "row"], start_to_goal: Float[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """0 to 10 by the distance between hand and goal (metres), `start_to_goal` being where the hand began."""
    return 10 * tolerance(hand_to_goal, (0.0, SUCCESS_RADIUS), margin=start_to_goal, sigmoid=long_tail)


def push_reward(
    grasp: Float[Tensor, "row"],
    *,
    hand_to_object: Float[Tensor, "row"],
    opening: Float[Tensor, "row"],
    object_to_goal: Float[Tensor, "row"],
    start_to_goal: Float[Tensor, "row"],
) -> Float[Tensor, "row"]:
    """0 to 10: two for the grasp; with the object in hand doubled, plus one, plus five for being in place.

    `grasp` is that of `dense_grasp`, distances are in metres, `opening` is the gripper's in [0, 1], and
    `start_to_goal` the object's distance at the beginning. At the goal it is 10, whatever the grasp.
    """
    in_place = tolerance(object_to_goal, (0.0, SUCCESS_RADIUS), margin=start_to_goal, sigmoid=long_tail)
    held = (hand_to_object < 0.02) & (opening > 0)
    reward = torch.where(held, 4 * grasp + 1 + 5 * in_place, 2 * grasp)
    return torch.where(object_to_goal < SUCCESS_RADIUS, 10.0, reward)


def caging(
    pads: Float[Tensor, "row 2 3"],
    hand: Float[Tensor, "row 3"],
    thing: Float[Tensor, "row 3"],
    *,
    start_hand: Float[Tensor, "row 3"],
    start_thing: Float[Tensor, "row 3"],
    radius: float,
    pad_threshold: float,
    xz_threshold: float,
) -> Float[Tensor, "row"]:
    """How well the two finger pads enclose the thing to be grasped, between 0 and 1; positions in metres.

    Along y each pad has to be between `radius` and `pad_threshold` away from the thing; the margin of that is
    its distance from where the thing *began*, so that it is nearly binary before the thing has moved. In the
    plane of x and z the middle of the hand has to be within `xz_threshold` of it.
    """
    from_thing = (pads[..., 1] - thing[..., None, 1]).abs()
    from_start = (pads[..., 1] - start_thing[..., None, 1]).abs()
    sides = tolerance(
        from_thing,
        (radius, pad_threshold),
        margin=(from_start - pad_threshold).abs(),
        sigmoid=long_tail,
    )
    along_y = hamacher_product(sides[..., 0], sides[..., 1])
    in_xz = tolerance(
        _xz_distance(hand, thing),
        (0.0, xz_threshold),
        margin=_xz_distance(start_hand, start_thing) - xz_threshold,
        sigmoid=long_tail,
    )
    return hamacher_product(along_y, in_xz)


def grasp(
    caged: Float[Tensor, "row"], effort: Float[Tensor, "row"], *, full_effort: float = 1.0
) -> Float[Tensor, "row"]:
    """Caging and closing together; closing counts where the thing is caged (above 0.97).

    `caged` is that of `caging`, `effort` the action's last number, of which `full_effort` is enough.
    """
    closing = effort.clamp(0, full_effort) / full_effort
    return hamacher_product(caged, torch.where(caged > 0.97, closing, 0.0))


def dense_grasp(
    caged: Float[Tensor, "row"], effort: Float[Tensor, "row"], *, full_effort: float = 1.0
) -> Float[Tensor, "row"]:
    """Mean of grasp and caging, which rewards the way there too (the package's high density)."""
    return (grasp(caged, effort, full_effort=full_effort) + caged) / 2


def reaching_grasp(
    caged: Float[Tensor, "row"],
    effort: Float[Tensor, "row"],
    *,
    hand_to_object: Float[Tensor, "row"],
    start_hand_to_object: Float[Tensor, "row"],
    reach_radius: float,
    full_effort: float = 1.0,
) -> Float[Tensor, "row"]:
    """Mean of grasp and a reach term, which leads there from anywhere (the package's medium density)."""
    reach = tolerance(
        hand_to_object,
        (0.0, reach_radius),
        margin=(start_hand_to_object - reach_radius).abs(),
        sigmoid=long_tail,
    )
    return (grasp(caged, effort, full_effort=full_effort) + reach) / 2


# ---- parts -------------------------------------------------------------------------------------------


def _xz_distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.hypot(a[..., 0] - b[..., 0], a[..., 2] - b[..., 2])


def _open(value_at_margin: float) -> float:
    if not 0 < value_at_margin < 1:
        raise SettingError(f"the value at the margin is {value_at_margin:g}", expected="between 0 and 1")
    return value_at_margin


def _half_open(value_at_margin: float) -> float:
    if not 0 <= value_at_margin < 1:
        raise SettingError(f"the value at the margin is {value_at_margin:g}", expected="0 or more, below 1")
    return value_at_margin

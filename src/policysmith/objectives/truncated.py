"""Advantages of answers that are still being written, for learning from a window of tokens at a time.

GAE needs the value that follows the last token. A finished answer is followed by 0. A window that was cut is
followed by a state that nobody has valued yet; extended GAE takes it to be worth what the one before it was,

    V(s_n) = V(s_{n-1}),

as a value hardly changes over one token. So the last delta of a cut window is (discount - 1) V(s_{n-1}), and
the window is judged by how the critic's opinion changed along it.

Source: T-PPO (2506.15050), extended GAE.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.advantages import generalised_advantage


def extended_advantage(
    reward: Float[Tensor, "row time"],
    value: Float[Tensor, "row time"],
    truncated: Bool[Tensor, "row"],
    mask: Bool[Tensor, "row time"],
    *,
    discount: float,
    lam: float | Float[Tensor, "row"],
) -> Float[Tensor, "row time"]:
    """GAE over the tokens of `mask`, a `truncated` row going on at the value of its last token.

    For rows that are not truncated this is `generalised_advantage` with 0 behind the end. Raises `DataError`
    where a truncated row has a reward (it has not been judged yet), `SettingError` for a `discount` or `lam`
    outside [0, 1].
    """
    early = truncated & ((reward != 0) & mask).any(1)
    if bool(early.any()):
        raise DataError(
            "a reward for an answer that has not ended",
            where=f"row {int(early.nonzero()[0])}",
            expected="rewards of finished answers alone",
            cure="mark the answer as finished, or take the reward away",
        )
    last = _from_end(mask) == 1
    following = torch.where(truncated, torch.where(last, value, 0.0).sum(1), 0.0)
    return generalised_advantage(reward, value, following, mask, discount=discount, lam=lam)


def without_tail(
    mask: Bool[Tensor, "row time"], truncated: Bool[Tensor, "row"], *, count: int
) -> Bool[Tensor, "row time"]:
    """`mask` without the last `count` tokens of truncated rows, whose advantages have little behind them."""
    if count < 0:
        raise SettingError(f"a tail of {count} tokens", expected="0 or more")
    return mask & ~(truncated[:, None] & (_from_end(mask) <= count))


def length_adaptive_lam(
    length: Int[Tensor, "row"],
    truncated: Bool[Tensor, "row"],
    *,
    window: int,
    floor: float = 0.95,
    scalar: float = 0.05,
) -> Float[Tensor, "row"]:
    """max(floor, 1 - 1 / (scalar n)): the longer an answer, the further back its end is to be felt.

    n is the answer's tokens so far, over all windows, and half a window more where it is truncated.
    """
    if not 0 <= floor <= 1 or not scalar > 0 or window < 1:
        raise SettingError(
            f"a floor of {floor}, a scalar of {scalar} and a window of {window}",
            expected="a floor from 0 to 1, a scalar above 0, a window of 1 or more",
        )
    expected = length + torch.where(truncated, window / 2, 0.0)
    return (1 - 1 / (scalar * expected.clamp(min=1))).clamp(min=floor)


def _from_end(mask: Tensor) -> Int[Tensor, "row time"]:
    """How many tokens of `mask` there are from each place to the end of its row, that place included."""
    return mask.flip(1).cumsum(1).flip(1)

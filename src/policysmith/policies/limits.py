"""Limits of actions: a box, and how far an action may lie from the one before it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from policysmith.common.errors import SettingError, ShapeError


class ActionLimits:
    """Limits of actions [size], each a number for all dimensions or one for each, in the action's units.

    Where a box and the largest change cannot both be kept, because the last action lies outside of the box,
    the box is kept. Raises `SettingError` or `ShapeError` for limits that make no sense.
    """

    def __init__(
        self,
        size: int,
        *,
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
        largest_change: ArrayLike = np.inf,
    ) -> None:
        self.low = _vector("low", low, size)
        self.high = _vector("high", high, size)
        self.largest_change = _vector("largest_change", largest_change, size)
        if not (self.low <= self.high).all():
            raise SettingError(
                f"the limits of the actions are low {self.low.tolist()} and high {self.high.tolist()}",
                expected="low below high",
            )
        if not (self.largest_change > 0).all():
            raise SettingError(
                f"the largest change per tick is {self.largest_change.tolist()}", expected="above 0"
            )

    def apply(
        self, action: Float[np.ndarray, "row action"], last: Float[np.ndarray, "row action"]
    ) -> Float[np.ndarray, "row action"]:
        """The nearest actions within the limits; where `last` is not a number, nothing limits the change."""
        near = np.clip(action, last - self.largest_change, last + self.largest_change)
        return np.clip(np.where(np.isnan(last), action, near), self.low, self.high)


def _vector(name: str, given: ArrayLike, size: int) -> Float[np.ndarray, "action"]:
    array = np.asarray(given, np.float32)
    if array.shape not in ((), (size,)):
        raise ShapeError(
            f"'{name}' has shape {list(array.shape)}", expected=f"a number, or one for each of {size} actions"
        )
    return np.broadcast_to(array, size)

"""Between the limits of an action and [-1, 1]: what heads put out, and what critics read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def limits(low: Sequence[float], high: Sequence[float]) -> tuple[Tensor | None, Tensor | None]:
    """(offset, scale) that take [-1, 1] to the limits; None for both where that changes nothing."""
    if all(a == -1 for a in low) and all(b == 1 for b in high):
        return None, None
    lower, upper = torch.tensor(low), torch.tensor(high)
    return (upper + lower) / 2, (upper - lower) / 2

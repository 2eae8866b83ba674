"""What the length of an answer is worth, in tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError


def overlong_penalty(tokens: Int[Tensor, "row"], *, limit: int, buffer: int) -> Float[Tensor, "row"]:
    """0 up to `limit - buffer` tokens, falling evenly to -1 at `limit` and beyond.

    Raises `SettingError` for a buffer outside 1 to `limit`. Source: Yu et al. 2025 (DAPO), equation 13.
    """
    if not 1 <= buffer <= limit:
        raise SettingError(
            f"a buffer of {buffer} tokens before a limit of {limit}", expected="1 to the limit"
        )
    over = (tokens - (limit - buffer)) / buffer
    return -torch.clamp(over, 0.0, 1.0)

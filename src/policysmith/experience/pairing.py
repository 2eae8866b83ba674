"""Which answers make a pair: choices among scored answers to one prompt.

A pair is (better, worse), places in the list of scores. Equal scores make no pair.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError


def best_worst(scores: Float[Tensor, "outcome"]) -> list[tuple[int, int]]:
    """The best answer over the worst, the first of each where several are; none where all are equal."""
    best, worst = int(scores.argmax()), int(scores.argmin())
    return [(best, worst)] if scores[best] > scores[worst] else []


def all_margin(scores: Float[Tensor, "outcome"], *, margin: float = 0.0) -> list[tuple[int, int]]:
    """Every two answers whose scores differ, by `margin` at least.

    Raises `SettingError` for a margin below 0.
    """
    if margin < 0:
        raise SettingError(f"a margin of {margin}", expected="0 or more")
    values = scores.tolist()
    places = range(len(values))
    return [
        (i, j) for i in places for j in places if values[i] > values[j] and values[i] - values[j] >= margin
    ]

"""Which answers make a pair: choices among scored answers to one prompt.

A pair is (better, worse), places in the list of scores. Equal scores make no pair.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError


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


def teacher_pairs(
    scores: Float[Tensor, "outcome"],
    is_teacher: Sequence[bool],
    *,
    floor: float,
    margin_teacher: float,
    margin_student: float,
    only_teacher: bool = False,
) -> list[tuple[int, int]]:
    """Pairs of clear difference among a policy's own answers and those of a teacher.

    The better answer scores `floor` at least, and so much more than the worse one: `margin_student` where the
    policy wrote it, `margin_teacher` where the teacher did. Two answers of the teacher make no pair. With
    `only_teacher` the better answer is the teacher's.
    Source: Rosset et al. 2024 (DNO), section 5.1.
    """
    values = scores.tolist()
    if len(values) != len(is_teacher):
        raise ShapeError(f"{len(values)} scores for {len(is_teacher)} answers", expected="one each")
    found = []
    for i, high in enumerate(values):
        if high < floor or (only_teacher and not is_teacher[i]):
            continue
        margin = margin_teacher if is_teacher[i] else margin_student
        for j, low in enumerate(values):
            if high > low and high - low >= margin and not (is_teacher[i] and is_teacher[j]):
                found.append((i, j))
    return found

"""Judges: whoever compares two answers, or gives several of them points side by side.

    judge(prompts, firsts, seconds)     the probability that the first is better, one per comparison
    points(prompt, answers)             a score for each answer to one prompt

A judge may be a rule, a reward (`judge_by`), a model (`PreferenceModel`), another program, or a person behind
a page. What comes from outside is wrapped in `checked`, or in `checked_points`, so that a wrong number is an
error that names its prompt, and a judge that looks at the order of the answers is found out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.scoring import Scoring

Judge = Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], Sequence[float]]
"""(prompts, first answers, second answers) -> the probability that the first is better, per comparison."""

Points = Callable[[Prompt, Sequence[str]], Sequence[float]]
"""(prompt, answers side by side) -> a score for each, higher is better."""

ORDER_TOLERANCE = 0.05
"""So far may the probabilities of both orders be from summing to one before a judge is said to look at it."""


def judge_by(reward: Scoring | Callable[..., Any], *, scale: float = 1.0) -> Judge:
    """The judge that a reward is: P(first better) = sigmoid((r(first) - r(second)) / scale).

    A small `scale` makes it surer of itself. Such preferences never go in a circle.
    """
    if not 0 < scale < math.inf:
        raise SettingError(f"a scale of {scale}", expected="above 0, and finite")
    scoring = reward if isinstance(reward, Scoring) else Scoring({"reward": reward})

    def judge(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        found = scoring([*first, *second], [*prompts, *prompts]).total
        return torch.sigmoid((found[: len(first)] - found[len(first) :]).double() / scale).tolist()

    return _complementary(judge)


def symmetric(judge: Judge) -> Judge:
    """The mean of what `judge` says of both orders, which sum to one; twice as many comparisons."""

    def both(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        there, back = _both_orders(judge, prompts, first, second)
        return [0.5 + (p - q) / 2 for p, q in zip(there, back, strict=True)]

    return _complementary(both)


def checked(judge: Judge, *, tolerance: float = ORDER_TOLERANCE, probe: int = 16) -> Judge:
    """The same judge, its word held to be one probability per comparison.

    Its first `probe` comparisons are also asked the other way round (0: none), and a warning says where the
    two differ by more than `tolerance` from summing to one. Raises `DataError` naming the prompt of a number
    that is missing, not finite or outside [0, 1].
    """
    left = 0 if getattr(judge, "complementary", False) else probe

    def check(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        nonlocal left
        found = _asked(judge, prompts, first, second)
        count = min(left, len(found))
        if count:
            left -= count
            back = _asked(judge, prompts[:count], second[:count], first[:count])
            _warn_of_order(found[:count], back, prompts, tolerance)
        return found

    if getattr(judge, "complementary", False):
        return _complementary(check)
    return check


def win_matrix(
    judge: Judge, prompt: Prompt, answers: Sequence[str], *, tolerance: float = 1e-3
) -> Float[Tensor, "answer answer"]:
    """P[i, j], how likely answer i is better than answer j; one half on the diagonal.

    All comparisons are one call. Every pair is asked in both orders, except of judges whose orders are known
    to sum to one (`judge_by`, `symmetric`, a `PreferenceModel`). Raises `DataError` naming the two answers
    whose probabilities do not.
    """
    count = len(answers)
    if count < 2:
        raise DataError(f"{count} answers to compare", where=_name(prompt), expected="at least 2")
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    known = getattr(judge, "complementary", False)
    asked = pairs if known else pairs + [(j, i) for i, j in pairs]
    found = _asked(
        judge, [prompt] * len(asked), [answers[i] for i, _ in asked], [answers[j] for _, j in asked]
    )
    matrix = torch.full((count, count), 0.5, dtype=torch.float64)
    for (i, j), p in zip(asked, found, strict=True):
        matrix[i, j] = p
        if known:
            matrix[j, i] = 1 - p
    worst = (matrix + matrix.t() - 1).abs()
    if float(worst.max()) > tolerance:
        i, j = divmod(int(worst.argmax()), count)
        there, back = float(matrix[i, j]), float(matrix[j, i])
        raise DataError(
            f"P({i} better than {j}) is {there:.3f} and P({j} better than {i}) is {back:.3f}, "
            "which do not sum to 1",
            where=_name(prompt),
            cure="take the mean of both orders: symmetric(judge)",
        )
    return matrix


def checked_points(points: Points, *, low: float, high: float) -> Points:
    """The same scores, held to be one finite number from `low` to `high` for each answer.

    Raises `DataError` naming the prompt.
    """
    if not low < high:
        raise SettingError(f"scores from {low} to {high}", expected="a range that is not empty")

    def check(prompt: Prompt, answers: Sequence[str]) -> list[float]:
        found = _numbers(points(prompt, answers), [prompt] * len(answers), what="scores")
        for place, score in enumerate(found):
            if not low <= score <= high:
                raise DataError(
                    f"a score of {score:g} for answer {place}",
                    where=_name(prompt),
                    expected=f"{low:g} to {high:g}",
                )
        return found

    return check


# ---- parts -------------------------------------------------------------------------------------------


def _complementary(judge: Any) -> Judge:
    """Mark a judge whose two orders sum to one."""
    judge.complementary = True
    return judge


def _both_orders(
    judge: Judge, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
) -> tuple[list[float], list[float]]:
    found = _asked(judge, [*prompts, *prompts], [*first, *second], [*second, *first])
    return found[: len(prompts)], found[len(prompts) :]


def _asked(
    judge: Judge, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
) -> list[float]:
    """What the judge says, as one probability per comparison."""
    if not len(prompts) == len(first) == len(second):
        raise DataError(
            f"{len(prompts)} prompts with {len(first)} first and {len(second)} second answers",
            expected="one of each per comparison",
        )
    if not prompts:
        return []
    found = _numbers(judge(prompts, first, second), prompts, what="probabilities")
    for prompt, p in zip(prompts, found, strict=True):
        if not 0 <= p <= 1:
            raise DataError(
                f"the judge gave {p:g}", where=_name(prompt), expected="a probability, from 0 to 1"
            )
    return found


def _numbers(said: Any, prompts: Sequence[Prompt], *, what: str) -> list[float]:
    """What was said as one finite number for each of `prompts`."""
    begins = f"{_name(prompts[0])} and what follows" if prompts else ""
    try:
        found = [float(number) for number in said]
    except (TypeError, ValueError, RuntimeError) as error:
        expected = f"{len(prompts)} {what}"
        raise DataError(f"the judge gave {said!r:.60}", where=begins, expected=expected) from error
    if len(found) != len(prompts):
        raise DataError(
            f"the judge gave {len(found)} {what}", where=begins, expected=f"{len(prompts)}, one for each"
        )
    for prompt, number in zip(prompts, found, strict=True):
        if not math.isfinite(number):
            raise DataError(f"the judge gave {number}", where=_name(prompt), expected=f"finite {what}")
    return found


def _warn_of_order(
    there: Sequence[float], back: Sequence[float], prompts: Sequence[Prompt], tolerance: float
) -> None:
    off = [abs(p + q - 1) for p, q in zip(there, back, strict=True)]
    worst = max(range(len(off)), key=off.__getitem__)
    if off[worst] > tolerance:
        warnings.warn(
            f"the judge looks at the order of the answers: of {_name(prompts[worst])} it gave "
            f"{there[worst]:.3f} one way round and {back[worst]:.3f} the other, which do not sum to 1. "
            "Take the mean of both orders: symmetric(judge)",
            stacklevel=3,
        )


def _name(prompt: Prompt) -> str:
    return f"prompt {str(prompt.text)[:80]!r}"

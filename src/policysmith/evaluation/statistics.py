"""How sure a measurement is: intervals over runs and episodes, paired differences and verdicts.

Two things vary when a policy is measured: the training run (its seed) and the episode. Episodes of one run
share its weights, so a hundred episodes of three runs are nearer to three observations than to three hundred.
Every interval here is therefore the wider of two: one that lets runs vary (Student's t, few runs being the
rule) and one that lets episodes vary within them. Intervals that need a closed form only are exact functions
of the scores; the bootstrap takes its generator or seed from the caller.

Scores are arrays `[runs, episodes]` or `[runs, tasks]`; anything that NumPy can read as such will do.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from policysmith.common.errors import DataError, SettingError, ShapeError

Direction = Literal["higher", "lower", "not_lower", "not_higher"]
"""What is claimed of a difference: beyond the margin on one side, or not beyond it on the other."""

Verdict = Literal["holds", "fails", "undecided"]
"""What the measurement says about a claim."""


@dataclass(frozen=True)
class Interval:
    """A value with the range that covers the true one in a share `level` of repetitions.

    An end that is infinite is one that the data cannot give (the mean of a single run has no spread).
    Raises `DataError` where a number is NaN, the value infinite or the ends in the wrong order.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if any(math.isnan(number) for number in (self.value, self.low, self.high)):
            raise DataError(f"not a number in the interval: {self.value}, {self.low}, {self.high}")
        if math.isinf(self.value):
            raise DataError("the value of an interval is infinite", expected="infinite ends at most")
        if self.low > self.high:
            raise DataError(f"the interval's low end {self.low:g} is above its high end {self.high:g}")
        _check_level(self.level)

    def __str__(self) -> str:
        """Such as `0.87 [0.81, 0.92]`, with the digits that the width can bear."""
        if not math.isfinite(self.width):
            return f"{self.value:.3g} (no interval)"
        scale = self.width or abs(self.value) or 1.0
        decimals = max(0, 1 - math.floor(math.log10(1.25 * scale)))
        form = f".{decimals}f" if decimals <= 5 else ".3g"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"

    @property
    def width(self) -> float:
        """Distance between the ends."""
        return self.high - self.low


# ---- one system --------------------------------------------------------------------------------------


def mean_interval(scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean of independent scores (one per run), with Student's t interval.

    One score gives an infinite interval: nothing is known about how another run would have differed. Equal
    scores give one of width zero; for success rates use `success_interval`, which does not.
    """
    values = _array(scores, axes="run")
    mean = float(values.mean())
    half = _t_half_width(values, level)
    return Interval(mean, mean - half, mean + half, level)


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores `[runs, tasks]`, runs and tasks taken together.

    A quarter of the scores, rounded down to a whole number, is left out at each end. Robust like the median,
    and it uses more of the data. Source: Agarwal et al. 2021, section 4.3.
    """
    values = np.sort(_array(scores, axes="run task"), axis=None)
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Callable[[Float[np.ndarray, "run task"]], float],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator | int,
) -> Interval:
    """Percentile interval of `statistic(scores)`, resampling the runs `[runs, tasks]` within each task.

    Tasks are fixed, the runs of one task are independent of those of another. With few runs (under about
    ten in all) the interval is too narrow, as every bootstrap's is. Source: Agarwal et al. 2021, section 4.1.
    """
    values = _array(scores, axes="run task")
    _check_level(level)
    if resamples < 1:
        raise SettingError(f"resamples is {resamples}", expected="at least 1; 2000 is usual")
    rng = np.random.default_rng(rng)
    runs, tasks = values.shape
    column = np.arange(tasks)
    draws = [statistic(values[rng.integers(runs, size=(runs, tasks)), column]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values)), float(low), float(high), level)


def success_interval(successes: ArrayLike, *, level: float = 0.95) -> Interval:
    """Success rate of outcomes (0 or 1) `[runs, episodes]`, with an interval over runs and episodes.

    The wider of two Wilson intervals: one of all episodes as if they were independent, and one of the
    *effective* number of episodes, p(1-p) divided by the variance of the mean over runs, with Student's
    quantile for that many runs. The Wilson interval of n successes in n episodes still reaches below one (to
    n / (n + z^2)), so that no interval has width zero, at 0 % and 100 % neither. One run gives the first
    interval alone, which speaks of that trained policy and not of another run.

    In simulation at level 0.95 (50 episodes; 2, 3, 5 and 10 runs, differing or not) it covers 94 to 99 %;
    a two-level bootstrap covers 82 to 87 % at two and 86 to 91 % at three runs that differ.
    Source: Wilson 1927; Korn and Graubard 1998 for the effective number.
    """
    values = _array(successes, axes="run episode")
    _check_outcomes(values)
    rate = float(values.mean())
    low, high = _wilson(rate, values.size, _normal_quantile(level))
    run_rates = values.mean(axis=1)
    if len(run_rates) > 1 and 0 < rate < 1 and np.ptp(run_rates) > 0:
        variance = float(run_rates.var(ddof=1)) / len(run_rates)
        effective = rate * (1 - rate) / variance
        wide_low, wide_high = _wilson(rate, effective, _t_quantile(level, len(run_rates) - 1))
        low, high = min(low, wide_low), max(high, wide_high)
    return Interval(rate, low, high, level)


def mean_of_rates(rates: Sequence[Interval]) -> Interval:
    """Mean of independent rates, one per task, with an interval made from theirs.

    The tasks are fixed, and only what each rate was measured on varies: the distances from the rates to their
    ends add up in squares, so that the interval is never of width zero where theirs are not.
    Source: Zou and Donner 2008, the method of variance estimates recovery.
    """
    if not rates:
        raise DataError("there are no rates to average")
    mean = math.fsum(rate.value for rate in rates) / len(rates)
    below = math.hypot(*(rate.value - rate.low for rate in rates)) / len(rates)
    above = math.hypot(*(rate.high - rate.value for rate in rates)) / len(rates)
    return Interval(mean, mean - below, mean + above, rates[0].level)


# ---- two systems -------------------------------------------------------------------------------------


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean of `a - b`, both `[runs, episodes]` on the same run seeds and the same episode seeds.

    Pairing removes what the two share (a hard start, an unlucky initialisation). The wider of two intervals:
    Student's t over the runs' mean differences, and one over episodes within runs: Newcombe's paired score
    interval where all scores are 0 or 1 (never of width zero), the normal interval otherwise. One run gives
    the second alone, which speaks of those two trained policies only.
    Source: Newcombe 1998 (paired proportions, method 10).
    """
    first, second = _array(a, axes="run episode"), _array(b, axes="run episode")
    if first.shape != second.shape:
        raise ShapeError(
            f"the two arms have shapes {list(first.shape)} and {list(second.shape)}",
            expected="the same runs and episodes in both, in the same order",
            cure="evaluate both arms with the same run seeds and episode seeds",
        )
    difference = first - second
    mean = float(difference.mean())
    outcomes = _are_outcomes(first) and _are_outcomes(second)
    if outcomes:
        below, above = _newcombe_paired(first.ravel(), second.ravel(), _normal_quantile(level))
    else:
        spread = float(difference.std(ddof=1)) if difference.size > 1 else math.inf
        below = above = _normal_quantile(level) * spread / math.sqrt(difference.size)
    if len(difference) > 1:
        half = _t_half_width(difference.mean(axis=1), level)
        below, above = max(below, half), max(above, half)
    low, high = (
        (max(mean - below, -1.0), min(mean + above, 1.0)) if outcomes else (mean - below, mean + above)
    )
    return Interval(mean, low, high, level)


def unpaired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean of `a` minus mean of `b`, scores of runs that have nothing in common, one per run.

    Welch's interval: spreads and numbers of runs may differ. One run on a side gives an infinite interval,
    equal scores on both sides one of width zero. Where runs share their seeds, `paired_difference` can use
    what they have in common. Source: Welch 1947.
    """
    first, second = _array(a, axes="run"), _array(b, axes="run")
    mean = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return Interval(mean, -math.inf, math.inf, level)
    parts = np.array([one.var(ddof=1) / len(one) for one in (first, second)])
    spread = float(parts.sum())
    if spread == 0:
        return Interval(mean, mean, mean, level)
    freedom = spread**2 / float((parts**2 / [len(first) - 1, len(second) - 1]).sum())
    half = _t_quantile(level, freedom) * math.sqrt(spread)
    return Interval(mean, mean - half, mean + half, level)


def verdict(difference: Interval, *, margin: float, direction: Direction) -> Verdict:
    """Whether the claim about `difference` (system minus baseline) holds, over the whole interval.

    - `higher`: more than `margin` above (superiority); `lower`: more than `margin` below.
    - `not_lower`: not more than `margin` below (non-inferiority); `not_higher`: not more than it above.

    `holds` where every value of the interval agrees, `fails` where none does, else `undecided`.
    """
    if direction not in get_args(Direction):
        raise SettingError(f"direction is '{direction}'", expected=", ".join(get_args(Direction)))
    if not margin >= 0:
        raise SettingError(f"margin is {margin}", expected="0 or more; the direction gives its sign")
    upward = direction in ("higher", "not_lower")
    low, high = (difference.low, difference.high) if upward else (-difference.high, -difference.low)
    threshold = margin if direction in ("higher", "lower") else -margin
    # At the threshold itself superiority is false and non-inferiority true: "more than", "not more than".
    strict = direction in ("higher", "lower")
    if low > threshold or (not strict and low == threshold):
        return "holds"
    if high < threshold or (strict and high == threshold):
        return "fails"
    return "undecided"


def runs_to_decide(
    difference: Interval,
    *,
    runs: int,
    margin: float,
    direction: Direction,
    limit: int = 1000,
) -> int | None:
    """About how many runs would decide, if their mean and spread stay as the first `runs` showed them.

    The interval's halves are taken to shrink as Student's quantile over the square root of the number of
    runs. None where one run gave no spread, or where `limit` runs would not decide either (the mean is at
    the threshold). An estimate for planning: a mean from few runs is itself uncertain.
    """
    if runs < 2 or not math.isfinite(difference.width):
        return None
    level, value = difference.level, difference.value
    unit = _t_quantile(level, runs - 1) / math.sqrt(runs)

    def decided(number: int) -> bool:
        shrink = _t_quantile(level, number - 1) / math.sqrt(number) / unit
        low, high = value - shrink * (value - difference.low), value + shrink * (difference.high - value)
        return verdict(Interval(value, low, high, level), margin=margin, direction=direction) != "undecided"

    # The intervals are nested, so what more runs leave open, fewer do.
    numbers = range(runs, limit + 1)
    place = bisect.bisect_left(numbers, True, key=decided)
    return numbers[place] if place < len(numbers) else None


# ---- parts -------------------------------------------------------------------------------------------


def _t_half_width(values: Float[np.ndarray, "run"], level: float) -> float:
    if len(values) < 2:
        return math.inf
    return _t_quantile(level, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))


def _wilson(rate: float, number: float, quantile: float) -> tuple[float, float]:
    """Score interval of a proportion; `number` may be fractional."""
    square = quantile**2 / number
    centre = (rate + square / 2) / (1 + square)
    half = math.sqrt(rate * (1 - rate) * square + square**2 / 4) / (1 + square)
    # Rounding must not push the ends past the rate, which they touch at 0 and 1.
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def _newcombe_paired(
    first: Float[np.ndarray, "pair"], second: Float[np.ndarray, "pair"], quantile: float
) -> tuple[float, float]:
    """Distances from the difference of two paired proportions to its low and its high end."""
    number = len(first)
    rate_a, rate_b = float(first.mean()), float(second.mean())
    low_a, high_a = _wilson(rate_a, number, quantile)
    low_b, high_b = _wilson(rate_b, number, quantile)
    both = float((first * second).sum())
    neither = float(((1 - first) * (1 - second)).sum())
    only_a, only_b = first.sum() - both, second.sum() - both
    product = both * neither - only_a * only_b
    if product > 0:  # Newcombe's continuity correction, which keeps the correlation below one
        product = max(product - number / 2, 0.0)
    scale = number**2 * math.sqrt(rate_a * (1 - rate_a) * rate_b * (1 - rate_b))
    correlation = float(product / scale) if scale > 0 else 0.0

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return distance(rate_a - low_a, high_b - rate_b), distance(high_a - rate_a, rate_b - low_b)


def _normal_quantile(level: float) -> float:
    _check_level(level)
    return float(stats.norm.ppf((1 + level) / 2))


def _t_quantile(level: float, freedom: float) -> float:
    """The t for which a share `level` of Student's distribution lies within [-t, t]."""
    _check_level(level)
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _array(scores: ArrayLike, *, axes: str) -> Float[np.ndarray, "..."]:
    """The scores as floats, of the axes named, none of them empty, all finite."""
    names = axes.split()
    try:
        values: np.ndarray[Any, Any] = np.asarray(scores, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            "the scores are not a full array of numbers", expected=f"numbers [{', '.join(names)}]"
        ) from error
    if values.ndim != len(names) or values.size == 0:
        raise ShapeError(
            f"the scores have shape {list(values.shape)}",
            expected=f"[{', '.join(names)}], at least one of each",
        )
    if not np.isfinite(values).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(values))[0])
        raise DataError(
            f"the score is {values[place]}",
            where=", ".join(f"{name} {index}" for name, index in zip(names, place, strict=True)),
            expected="finite scores; a run that diverged needs a score that says so",
        )
    return values


def _are_outcomes(values: Float[np.ndarray, "..."]) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _check_outcomes(values: Float[np.ndarray, "..."]) -> None:
    if not _are_outcomes(values):
        raise DataError(
            "a success is neither 0 nor 1", cure="use mean_interval or paired_difference for scores"
        )


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise SettingError(f"level is {level}", expected="between 0 and 1, such as 0.95")

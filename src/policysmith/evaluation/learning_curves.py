"""What a few runs say of a method: curves with intervals, performance profiles, improvement.

Runs of one method differ by their seeds, often by more than methods do. What is told of them here is robust
to single runs (the interquartile mean, shares of runs) and comes with an interval from the stratified
bootstrap, which draws runs anew within each task:

    profile(tau) = mean over tasks and runs of [score > tau]
    improvement  = mean over tasks of P(a run of X scores more than a run of Y), equal scores counting half

With few runs (under about ten in all) these intervals are too narrow, as every bootstrap's are; for
verdicts on paired runs use `statistics.paired_difference`. Source: Agarwal et al. 2021, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.evaluation.statistics import Interval, interquartile_mean

Run: TypeAlias = tuple[ArrayLike, ArrayLike]
"""The steps of one run, increasing, and the values at them."""

Statistic = Callable[[Float[np.ndarray, "run task"]], float]
"""One number of the scores of all runs and tasks, such as `statistics.interquartile_mean`."""

CURVE_STEPS = 100
"""At so many steps at most is a curve's interval computed; between them it is drawn straight."""
SCREEN_STEPS = 1000
"""More steps than these are finer than a screen."""


class Band(NamedTuple):
    """A curve with the range around it; `at` are the steps, or the thresholds, that it is over."""

    at: Float[np.ndarray, "point"]
    value: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"]
    high: Float[np.ndarray, "point"]
    level: float = 0.95


def learning_curve(
    tasks: Sequence[Sequence[Run]],
    *,
    statistic: Statistic = interquartile_mean,
    resamples: int = 500,
    level: float = 0.95,
    rng: np.random.Generator | int,
) -> Band:
    """`statistic` over runs and tasks at each step, with its bootstrap interval step by step.

    `tasks` are the runs of each task, equally many; scores of several tasks must be on one scale. Runs need
    not share their steps: they are interpolated over the steps that all of them cover. Each resample keeps
    or leaves out a run over its whole length. Raises `DataError` and `ShapeError` for runs that do not fit.
    """
    sizes = {len(runs) for runs in tasks}
    if len(sizes) != 1:
        raise ShapeError(
            f"the tasks have {sorted(sizes) or 'no'} runs", expected="as many runs of each task, one or more"
        )
    (size,) = sizes
    everything = [run for runs in tasks for run in runs]
    steps, values = on_common_steps(everything, most=CURVE_STEPS)
    scores = values.reshape(len(tasks), size, len(steps)).swapaxes(0, 1)

    def along(drawn: Float[np.ndarray, "run task step"]) -> Float[np.ndarray, "step"]:
        return np.array([statistic(drawn[..., step]) for step in range(len(steps))])

    return _bootstrapped(steps, scores, along, resamples=resamples, level=level, rng=rng)


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator | int,
) -> Band:
    """Share of the runs `[run, task]` that score more than each threshold, with its bootstrap interval.

    Without `thresholds`, 100 of them from the lowest to the highest score. A method whose profile lies above
    another's everywhere is better in distribution; where they cross, neither is.
    """
    values = _scores(scores)
    taus = (
        np.linspace(values.min(), values.max(), 100) if thresholds is None else np.asarray(thresholds, float)
    )
    if taus.ndim != 1 or len(taus) == 0:
        raise ShapeError(f"thresholds of shape {list(taus.shape)}", expected="[threshold], at least one")
    above = values[..., None] > taus
    return _bootstrapped(
        taus, above, lambda drawn: drawn.mean((0, 1)), resamples=resamples, level=level, rng=rng
    )


def probability_of_improvement(
    a: ArrayLike,
    b: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator | int,
) -> Interval:
    """Chance that a run of `a` beats a run of `b` on a task drawn at random, both `[run, task]`.

    The numbers of runs may differ, the tasks are the same; equal scores count half. It says how often, not
    by how much. The runs of both are resampled within each task.
    """
    first, second = _scores(a), _scores(b)
    if first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"{first.shape[1]} tasks beside {second.shape[1]}", expected="the same tasks, in the same order"
        )
    _check(resamples, level)
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)  # [run, other, task]
    rng = np.random.default_rng(rng)
    (runs, others, tasks), column = wins.shape, np.arange(wins.shape[2])
    draws = [
        wins[
            rng.integers(runs, size=(runs, 1, tasks)), rng.integers(others, size=(1, others, tasks)), column
        ].mean()
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    value = float(wins.mean())
    return Interval(value, min(float(low), value), max(float(high), value), level)


def area_under_curve(run: Run, *, until: float | None = None) -> float:
    """Mean value of a run over its steps, straight between them: what counts early learning as well.

    Up to the step `until` where one is given, which the run has to reach. A single step gives its value.
    """
    steps, values = _checked(run, "the run")
    if until is not None:
        if not steps[0] <= until <= steps[-1]:
            raise SettingError(
                f"the area up to step {until:g}", expected=f"a step from {steps[0]:g} to {steps[-1]:g}"
            )
        before = steps < until
        steps, values = (
            np.append(steps[before], until),
            np.append(values[before], np.interp(until, steps, values)),
        )
    gaps = np.diff(steps)
    if not gaps.sum() > 0:
        return float(values[-1])
    return float((gaps * (values[1:] + values[:-1])).sum() / (2 * gaps.sum()))


def on_common_steps(
    runs: Sequence[Run], *, label: str = "", most: int = SCREEN_STEPS
) -> tuple[Float[np.ndarray, "step"], Float[np.ndarray, "run step"]]:
    """The runs interpolated over the steps that every one of them covers, at most `most` of these.

    Values that are not finite are left out before. Raises `DataError`, naming `label` and the run, where
    there is nothing to compare.
    """
    named = f"'{label}', " if label else ""
    clean = [_checked(run, f"{named}run {number}") for number, run in enumerate(runs)]
    if not clean:
        raise DataError("there are no runs", where=f"'{label}'" if label else "")
    start, end = max(x[0] for x, _ in clean), min(x[-1] for x, _ in clean)
    if start > end:
        raise DataError("the runs have no steps in common", where=f"'{label}'" if label else "")
    grid = np.unique(np.concatenate([x for x, _ in clean]))
    grid = grid[(grid >= start) & (grid <= end)]
    if len(grid) > most:
        grid = np.linspace(start, end, most)
    return grid, np.stack([np.interp(grid, x, y) for x, y in clean])


# ---- parts -------------------------------------------------------------------------------------------


def _bootstrapped(
    at: Float[np.ndarray, "point"],
    scores: Float[np.ndarray, "run task point"],
    statistic: Callable[[Float[np.ndarray, "run task point"]], Float[np.ndarray, "point"]],
    *,
    resamples: int,
    level: float,
    rng: np.random.Generator | int,
) -> Band:
    _check(resamples, level)
    rng = np.random.default_rng(rng)
    runs, tasks = scores.shape[:2]
    column = np.arange(tasks)
    draws = [statistic(scores[rng.integers(runs, size=(runs, tasks)), column]) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    value = statistic(scores)
    return Band(at, value, np.minimum(low, value), np.maximum(high, value), level)


def _checked(run: Run, where: str) -> tuple[Float[np.ndarray, "step"], Float[np.ndarray, "step"]]:
    """Steps and values as floats, those that are not finite left out."""
    steps, values = (np.asarray(part, dtype=float) for part in run)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise DataError(
            f"steps {list(steps.shape)}, values {list(values.shape)}",
            where=where,
            expected="one value per step",
        )
    finite = np.isfinite(steps) & np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(steps) == 0 or (np.diff(steps) < 0).any():
        raise DataError("the run has no finite values, or its steps go back", where=where)
    return steps, values


def _scores(scores: ArrayLike) -> Float[np.ndarray, "run task"]:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(
            f"scores of shape {list(values.shape)}", expected="[run, task], at least one of each"
        )
    if not np.isfinite(values).all():
        run, task = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
        raise DataError(f"the score is {values[run, task]}", where=f"run {run}, task {task}")
    return values


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise SettingError(
            f"{resamples} resamples at level {level:g}", expected="at least 1, a level between 0 and 1"
        )

"""How well scores rank pairs, and whether they are as sure as they are right.

    report = pair_report(margin, gap=gold_gap)        margins of held-out pairs, the better outcome first
    report.accuracy, report.calibration_error
    preference_findings(report, title="reward model")

With P = sigmoid(margin) for the probability that the better outcome is the better one, a pair is said with
confidence max(P, 1 - P), and rightly where the margin is above 0. The expected calibration error is

    sum over bins of (share of the pairs) |share that is right - mean confidence|.

The margins may be of a reward model, of a policy's log-ratios times beta, of summed rewards of trajectories,
or the log-odds of a judge: nothing here knows of text.

Sources: Guo et al. 2017 for reliability and its error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.evaluation.drawing import LIGHT, Theme, blank_axes, draw_grid
from policysmith.evaluation.findings import Findings, Table
from policysmith.evaluation.statistics import Interval, success_interval


@dataclass(frozen=True)
class Part:
    """Some of the pairs, with what they have in common from `low` to `high`, and how often they are right.

    `expected` is their mean confidence: how often they would be right if they were as right as they are sure.
    """

    low: float
    high: float
    pairs: int
    expected: float
    right: Interval


@dataclass(frozen=True)
class PairReport:
    """What margins say of pairs.

    - `accuracy`: the share of pairs ranked rightly, ties as half. `loss`: mean of -log sigmoid(margin), nats.
    - `calibration_error`: expected, over `reliability`, the pairs by confidence, in bins of equal width.
    - `by_gap`: the pairs by how far apart the outcomes really are, in parts of equal numbers; empty where no
      gap was given.
    - `untrained`: whether chance could have ranked them as well.
    """

    pairs: int
    accuracy: Interval
    loss: float
    calibration_error: float
    reliability: tuple[Part, ...]
    by_gap: tuple[Part, ...]

    @property
    def untrained(self) -> bool:
        """Whether one half lies within the accuracy's interval, or above it."""
        return self.accuracy.low <= 0.5


def pair_report(
    margin: ArrayLike, *, gap: ArrayLike | None = None, bins: int = 10, parts: int = 4, level: float = 0.95
) -> PairReport:
    """Accuracy, calibration and accuracy by gap of pairs given by their margins [pair], the better one first.

    - `gap` [pair]: how much better the better one is, in any unit: true rewards, labels, a person's rating.
    - `bins` of confidence from one half to one; `parts` of equal numbers of pairs by gap.

    Intervals take pairs to be independent. Raises `DataError` for no pairs and for numbers that are not
    finite, and `ShapeError` where there is not one gap per margin.
    """
    if bins < 1 or parts < 1:
        raise SettingError(f"{bins} bins and {parts} parts", expected="at least 1 of each")
    margins = _numbers(margin, "margin")
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = (np.sign(margins) + 1) / 2
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    reliability = tuple(
        _part(0.5 + one / (2 * bins), 0.5 + (one + 1) / (2 * bins), confidence, right, place == one, level)
        for one in range(bins)
        if (place == one).any()
    )
    error = sum(part.pairs * abs(part.right.value - part.expected) for part in reliability) / len(margins)
    by_gap: tuple[Part, ...] = ()
    if gap is not None:
        gaps = _numbers(gap, "gap")
        if gaps.shape != margins.shape:
            raise ShapeError(f"{len(gaps)} gaps for {len(margins)} margins", expected="one of each per pair")
        by_gap = tuple(
            _part(gaps[rows].min(), gaps[rows].max(), confidence, right, rows, level)
            for rows in np.array_split(np.argsort(gaps, kind="stable"), min(parts, len(gaps)))
        )
    return PairReport(
        pairs=len(margins),
        accuracy=share_right(right, level),
        loss=float(np.logaddexp(0, -margins).mean()),
        calibration_error=float(error),
        reliability=reliability,
        by_gap=by_gap,
    )


def preference_findings(report: PairReport, *, title: str, gap: str = "gap") -> Findings:
    """The report for people and programs: tables, the reliability diagram, and what to be careful about."""
    notices = []
    if report.untrained:
        notices.append(
            f"An accuracy of {report.accuracy} over {report.pairs} pairs is no better than chance: what is "
            "chosen by these scores is chosen at random."
        )
    if report.calibration_error > 0.1:
        sure = sum(part.pairs * part.expected for part in report.reliability) / report.pairs
        surer = "surer" if sure > report.accuracy.value else "less sure"
        notices.append(
            f"It is {surer} than it is right: {sure:.1%} confident on average, "
            f"{report.accuracy.value:.1%} right."
        )
    tables = [_table("Pairs by confidence", "confidence", report.reliability)]
    figures = [("How often pairs are right, by how sure it is", reliability_figure(report))]
    if report.by_gap:
        tables.append(_table(f"Pairs by {gap}", gap, report.by_gap))
    return Findings(
        title,
        {
            "pairs": report.pairs,
            "accuracy": str(report.accuracy),
            "loss, nats": report.loss,
            "expected calibration error": report.calibration_error,
        },
        tables,
        figures,
        notices,
        data=_plain(asdict(report)),
    )


def reliability_figure(report: PairReport, *, theme: Theme = LIGHT) -> Figure:
    """The share of pairs that are right against the mean confidence, with intervals, beside the diagonal."""
    figure, axes = blank_axes(theme, height=3.4)
    colour = theme.colours[0]
    axes.plot([0.5, 1], [0.5, 1], color=theme.muted, linewidth=0.8)
    for part in report.reliability:
        axes.plot([part.expected] * 2, [part.right.low, part.right.high], color=colour, linewidth=1.6)
        size = 3 + 9 * math.sqrt(part.pairs / report.pairs)
        axes.plot(part.expected, part.right.value, "o", color=colour, markersize=size, alpha=0.8)
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(min([0.4, *(part.right.low for part in report.reliability)]) - 0.02, 1.02)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of pairs that are right")
    draw_grid(axes, theme, "y")
    return figure


def _part(
    low: float,
    high: float,
    confidence: Float[np.ndarray, "pair"],
    right: Float[np.ndarray, "pair"],
    rows: np.ndarray[Any, Any],
    level: float,
) -> Part:
    chosen = right[rows]
    share = share_right(chosen, level)
    return Part(float(low), float(high), len(chosen), float(confidence[rows].mean()), share)


def share_right(right: Float[np.ndarray, "pair"], level: float = 0.95) -> Interval:
    """The mean of outcomes, ties as half, with the interval of the nearest whole number of right ones."""
    mean, number = float(right.mean()), len(right)
    whole = round(mean * number)
    found = success_interval([[1.0] * whole + [0.0] * (number - whole)], level=level)
    return Interval(mean, min(mean, found.low), max(mean, found.high), level)


def _table(caption: str, name: str, parts: Sequence[Part]) -> Table:
    rows = [
        [f"{part.low:.3g} to {part.high:.3g}", part.pairs, part.expected, str(part.right)] for part in parts
    ]
    return Table(caption, [name, "pairs", "mean confidence", "right"], rows)


def _numbers(values: ArrayLike, name: str) -> Float[np.ndarray, "pair"]:
    found = np.asarray(values, dtype=float)
    if found.ndim != 1:
        raise ShapeError(f"{name}s of shape {list(found.shape)}", expected="[pair]")
    if len(found) == 0:
        raise DataError("there are no pairs to report on", expected="at least one")
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(f"the {name} is {found[place]}", where=f"pair {place}", expected="finite numbers")
    return found


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, with None for an end of an interval that is infinite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

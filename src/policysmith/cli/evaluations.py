"""What `eval` measured, kept with the run: one entry per environment and way of acting, the newest each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.cli.kept import Kept
from policysmith.evaluation.findings import Table
from policysmith.evaluation.statistics import Interval

EVALUATIONS = Kept("evaluation.json", key=("environment", "spread"))
"""One entry per environment and way of acting."""


def summary_of(milliseconds: Float[np.ndarray, "call"]) -> dict[str, float]:
    """Mean, median and 99th percentile."""
    median, slow = np.quantile(milliseconds, [0.5, 0.99])
    return {"mean": float(milliseconds.mean()), "median": float(median), "p99": float(slow)}


def label(measured: Mapping[str, Any]) -> str:
    """What a measurement is called where there are several."""
    return measured["environment"] + (", calls spread" if measured["spread"] else "")


def tables(measurements: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What a person reads: how well it went, how long it took, and whether a control loop would wait."""
    outcome, times, late = [], [], []
    rates = list(dict.fromkeys(rate for entry in measurements for rate in entry["missed_deadlines"]))
    for entry in measurements:
        outcome.append(
            [
                label(entry),
                str(Interval(**entry["success"])),
                str(Interval(**entry["return"])) if "return" in entry else f"{entry['mean_return']:.1f}",
                f"{entry['mean_length']:.0f}",
                f"{entry['network_calls_per_action']:.2f}",
            ]
        )
        for what in ("action", "tick"):
            times.append(
                [label(entry), what, *(f"{value:.2f}" for value in entry[f"ms_per_{what}"].values())]
            )
        late.append([label(entry), *(_percent(entry["missed_deadlines"].get(rate)) for rate in rates)])
    return [
        Table("Episodes", ["environment", "success", "return", "steps", "calls/action"], outcome),
        Table("Milliseconds, one thread", ["environment", "per", "mean", "median", "p99"], times),
        Table("Ticks of a control loop that would be late", ["environment", *rates], late),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

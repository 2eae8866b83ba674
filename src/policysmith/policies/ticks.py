"""Counting the ticks of a control loop against their deadline: at `rate` Hz, one has 1 / rate seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from policysmith.common.errors import SettingError

REMEMBERED = 100_000
"""Of so many of the newest ticks the times are kept, for the quantiles of the report."""


@dataclass(frozen=True)
class TickReport:
    """How long ticks took, against the time there is for one.

    `late` counts all ticks that took longer than 1 / `rate`; the times, in milliseconds, are of the newest
    `REMEMBERED` ticks (not a number before the first).
    """

    rate: float
    ticks: int
    late: int
    median_ms: float
    p99_ms: float
    longest_ms: float

    @property
    def share_late(self) -> float:
        """Late ticks over all ticks; 0 before the first."""
        return self.late / self.ticks if self.ticks else 0.0

    def __str__(self) -> str:
        return (
            f"{self.ticks} ticks at {self.rate:g} Hz: {self.late} late ({self.share_late:.1%}); "
            f"median {self.median_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, longest {self.longest_ms:.2f} ms"
        )


class TickCounter:
    """Counts ticks, and those that took longer than 1 / `rate` seconds."""

    def __init__(self, rate: float) -> None:
        if not 0 < rate < np.inf:
            raise SettingError(f"a control loop of {rate} ticks per second", expected="a number above 0")
        self.rate = rate
        self.ticks = 0
        self.late = 0
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def count(self, seconds: float) -> None:
        """Count a tick that took so long."""
        self._seconds.append(seconds)
        self.ticks += 1
        self.late += seconds > 1 / self.rate

    def report(self) -> TickReport:
        """The ticks so far."""
        times = np.array(self._seconds) * 1000
        quantiles = np.quantile(times, [0.5, 0.99, 1.0]) if len(times) else np.full(3, np.nan)
        median, slow, longest = map(float, quantiles)
        return TickReport(self.rate, self.ticks, self.late, median, slow, longest)

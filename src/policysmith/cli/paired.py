"""What `eval` measured of a run on preferences, kept with it: one entry per set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policysmith.cli.kept import Kept
from policysmith.evaluation.statistics import Interval

PAIRS = Kept("preferences.json", key=("fingerprint",))
"""One entry per set of pairs."""

TITLE = "Pairs the right way round, with 95 % intervals"
COLUMNS = ["pairs", "the right way round", "margin (nats)", "chosen", "rejected"]


def pairs_row(measured: Mapping[str, Any]) -> list[str]:
    """A measurement as a row under `COLUMNS`."""
    intervals = [str(Interval(**measured[name])) for name in ("ordered", "margin", "chosen", "rejected")]
    return [f"{measured['data']}, {measured['pairs']}", *intervals]

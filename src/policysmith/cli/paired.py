"""What `eval` measured of a run on preferences, kept with it: one entry per set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policysmith.common.saving import load_json, save_json
from policysmith.evaluation.statistics import Interval

FILE = "preferences.json"
"""In the run directory: a list of what was measured."""

TITLE = "Pairs the right way round, with 95 % intervals"
COLUMNS = ["pairs", "the right way round", "margin (nats)", "chosen", "rejected"]


def keep_pairs(folder: Path, measured: Mapping[str, Any]) -> None:
    """Put a measurement with those of the run, in place of an older one of the same pairs."""
    others = [one for one in kept_pairs(folder) if one["fingerprint"] != measured["fingerprint"]]
    save_json(folder / FILE, [*others, measured])


def kept_pairs(folder: Path) -> list[dict[str, Any]]:
    """What `eval` measured of a run on preferences, oldest first."""
    path = folder / FILE
    return load_json(path) if path.is_file() else []


def pairs_row(measured: Mapping[str, Any]) -> list[str]:
    """A measurement as a row under `COLUMNS`."""
    intervals = [str(Interval(**measured[name])) for name in ("ordered", "margin", "chosen", "rejected")]
    return [f"{measured['data']}, {measured['pairs']}", *intervals]

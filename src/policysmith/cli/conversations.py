"""What `eval` measured of a language policy in a text world, kept with its run: one entry per kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policysmith.common.saving import load_json, save_json
from policysmith.evaluation.statistics import Interval

FILE = "conversations.json"
"""In the run directory: a list of what was measured."""


def keep_conversations(folder: Path, measured: Mapping[str, Any]) -> None:
    """Put a measurement with those of the run, in place of an older one of the same kind."""
    key = ("fingerprint", "temperature", "limit", "system")
    others = [one for one in kept_conversations(folder) if any(one[name] != measured[name] for name in key)]
    save_json(folder / FILE, [*others, measured])


def kept_conversations(folder: Path) -> list[dict[str, Any]]:
    """What `eval` measured of a run by playing, oldest first."""
    path = folder / FILE
    return load_json(path) if path.is_file() else []


def conversations_table(measured: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a measurement, a row per policy; what only some say is left empty."""
    policies = measured["policies"]
    names = list(dict.fromkeys(name for one in policies.values() for name in one))
    rows = [
        [name, *(str(Interval(**one[column])) if column in one else "" for column in names)]
        for name, one in policies.items()
    ]
    return ["policy", *names], rows

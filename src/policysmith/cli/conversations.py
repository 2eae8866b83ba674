"""What `eval` measured of a language policy in a text world, kept with its run: one entry per kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policysmith.cli.kept import Kept
from policysmith.evaluation.statistics import Interval

CONVERSATIONS = Kept("conversations.json", key=("fingerprint", "temperature", "limit", "system"))
"""One entry per set of episodes and way of talking."""


def conversations_table(measured: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a measurement, a row per policy; what only some say is left empty."""
    policies = measured["policies"]
    names = list(dict.fromkeys(name for one in policies.values() for name in one))
    rows = [
        [name, *(str(Interval(**one[column])) if column in one else "" for column in names)]
        for name, one in policies.items()
    ]
    return ["policy", *names], rows

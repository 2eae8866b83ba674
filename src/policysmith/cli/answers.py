"""What `eval` measured of a language policy, kept with its run: one entry per set of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policysmith.cli.kept import Kept
from policysmith.evaluation.statistics import Interval

ANSWERS = Kept("answers.json", key=("fingerprint", "answers", "temperature", "limit"))
"""One entry per set of prompts and way of answering."""


def answers_table(measured: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a measurement, a row per policy."""
    rows = [
        [
            name,
            str(Interval(**one["score"])),
            f"{one['tokens']:.1f}",
            f"{one['finished']:.0%}",
            f"{one['entropy']:.3f}",
        ]
        for name, one in measured["policies"].items()
    ]
    return ["policy", "score", "tokens per answer", "finished", "entropy, nats per token"], rows

"""What `eval` measured of a language policy, kept with its run: one entry per set of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policysmith.common.saving import load_json, save_json
from policysmith.evaluation.statistics import Interval

FILE = "answers.json"
"""In the run directory: a list of what was measured."""


def keep_answers(folder: Path, measured: Mapping[str, Any]) -> None:
    """Put a measurement with those of the run, in place of an older one of the same kind."""
    key = ("fingerprint", "answers", "temperature", "limit")
    others = [one for one in kept_answers(folder) if any(one[name] != measured[name] for name in key)]
    save_json(folder / FILE, [*others, measured])


def kept_answers(folder: Path) -> list[dict[str, Any]]:
    """What `eval` measured of a language run, oldest first."""
    path = folder / FILE
    return load_json(path) if path.is_file() else []


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

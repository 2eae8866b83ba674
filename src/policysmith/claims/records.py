"""The committed claim records: what each system's experiment measured, shipped with the library."""

from __future__ import annotations

from pathlib import Path

from policysmith.evaluation.record import Claim, load

FOLDER = Path(__file__).parent / "records"


def record_path(system: str) -> Path:
    """Where the record of `system` is kept."""
    return FOLDER / f"{system}.json"


def find_record(system: str) -> Claim | None:
    """The committed record of `system`, or None where its experiment has not been run."""
    path = record_path(system)
    return load(path) if path.is_file() else None

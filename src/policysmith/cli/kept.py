"""What `eval` measured, kept with the run: a file per kind of measurement, in it one entry of each sort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.common.saving import load_json, save_json


@dataclass(frozen=True)
class Kept:
    """The measurements of one kind in a run directory.

    `file` holds the list of them; two that agree in all of `key` are of the same sort.
    """

    file: str
    key: tuple[str, ...]

    def add(self, folder: Path, measured: Mapping[str, Any]) -> None:
        """Put a measurement with those of the run, in place of an older one of its sort."""
        others = [one for one in self.of(folder) if any(one[name] != measured[name] for name in self.key)]
        save_json(folder / self.file, [*others, measured])

    def of(self, folder: Path) -> list[dict[str, Any]]:
        """What was measured of a run, oldest first."""
        path = folder / self.file
        return load_json(path) if path.is_file() else []

"""The catalogue: every system as data, read without importing any of them.

A system is *ready* when its module exists, and *planned* otherwise. Other packages add theirs through the
entry-point group `policysmith.catalogue`, whose value names a package that carries a `catalogue.toml` of the
same form, each entry with a `module` (the dotted name of the system's module).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from policysmith.common.errors import DataError, UnknownNameError

Kind = Literal["method", "measure", "benchmark", "world", "generator", "study"]

ENTRY: dict[str, str] = {
    "method": "train",
    "measure": "measure",
    "benchmark": "evaluate",
    "world": "simulate",
    "generator": "generate",
    "study": "measure",
}
"""What the public entry of a system's module is called, by the system's kind."""


@dataclass(frozen=True)
class System:
    """One entry of the catalogue; `number` is None for a baseline."""

    name: str
    title: str
    arxiv: str
    family: str
    kind: Kind
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    extra: str
    summary: str
    keywords: tuple[str, ...]
    number: int | None = None
    module: str = ""

    @property
    def module_name(self) -> str:
        """Dotted name of the module that holds the recipe."""
        return self.module or f"policysmith.systems.{self.name.replace('-', '_')}"

    @property
    def claim_module_name(self) -> str:
        """Dotted name of the module that holds the small-scale experiment."""
        package, _, leaf = self.module_name.rpartition(".")
        return f"{package.rpartition('.')[0]}.claims.{leaf}"

    @property
    def status(self) -> Literal["ready", "planned"]:
        """`ready` where the module exists (it is looked for, not imported)."""
        return "ready" if _exists(self.module_name) else "planned"

    def load(self) -> ModuleType:
        """Import the recipe; `UnknownNameError` where it is only planned."""
        if self.status == "planned":
            raise UnknownNameError(
                f"the system '{self.name}' is planned and not here yet",
                cure="`policysmith list --ready` shows the systems that are",
            )
        return importlib.import_module(self.module_name)

    def load_claim(self) -> ModuleType:
        """Import the experiment; `UnknownNameError` where the system has none."""
        if not _exists(self.claim_module_name):
            raise UnknownNameError(f"the system '{self.name}' has no experiment to reproduce")
        return importlib.import_module(self.claim_module_name)

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain data, status included."""
        data = asdict(self) | {"status": self.status}
        data.pop("module")
        return data


@functools.cache
def systems() -> tuple[System, ...]:
    """Every system, numbered ones first, those of other packages last."""
    own = _read(Path(__file__).with_name("catalogue.toml"))
    own = sorted(own, key=lambda system: (system.number is None, system.number or 0, system.name))
    return (*own, *_outside())


def find_system(name: str) -> System:
    """The system called `name` (hyphens and underscores alike); an error names the nearest ones."""
    wanted = name.lower().replace("_", "-")
    names = {system.name: system for system in systems()}
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    raise UnknownNameError(
        f"no system is called '{name}'",
        expected=f"perhaps {', '.join(near)}" if near else "",
        cure='`policysmith list` shows all of them; `policysmith find "your problem"` searches',
    )


def _read(path: Path) -> list[System]:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["system"]
    try:
        return [System(**_frozen(entry)) for entry in entries]
    except TypeError as error:
        raise DataError(f"an entry of the catalogue does not fit: {error}", where=str(path)) from error


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _outside() -> list[System]:
    found = []
    for point in importlib.metadata.entry_points(group="policysmith.catalogue"):
        spec = importlib.util.find_spec(point.value)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            found += _read(Path(folder) / "catalogue.toml")
    return found


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False

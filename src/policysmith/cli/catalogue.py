"""`list`, `show` and `find`: the catalogue, read without importing any system."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from policysmith.cli import look
from policysmith.common.catalogue import System, find_system, systems
from policysmith.common.config import config_to_json
from policysmith.common.errors import SettingError


@dataclass(frozen=True)
class List:
    """List the systems of the catalogue."""

    family: str = ""
    """only this family"""
    kind: str = ""
    """only this kind: method, measure, benchmark, world, generator or study"""
    ready: bool = False
    """only systems that are here (the others are planned)"""
    json: bool = False
    """print a JSON list and nothing else"""

    def run(self) -> None:
        """Print the table."""
        families = {system.family for system in systems()}
        if self.family and self.family not in families:
            raise SettingError(f"no family is called '{self.family}'", expected=", ".join(sorted(families)))
        chosen = [
            system
            for system in systems()
            if (not self.family or system.family == self.family)
            and (not self.kind or system.kind == self.kind)
            and (not self.ready or system.status == "ready")
        ]
        if self.json:
            look.print_json([system.as_dict() for system in chosen])
            return
        look.table(
            ["", "name", "family", "kind", "status", "what it does"],
            [_row(system) for system in chosen],
        )
        ready = sum(system.status == "ready" for system in chosen)
        look.note(f"{len(chosen)} systems, {ready} ready. `policysmith show NAME` tells more.")


@dataclass(frozen=True)
class Show:
    """Show one system: what it is, what it takes and gives, its settings, what was measured."""

    name: tyro.conf.Positional[str]
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Print the entry."""
        from policysmith.claims.records import find_record
        from policysmith.evaluation.record import to_json

        system = find_system(self.name)
        record = find_record(system.name)
        module = system.load() if system.status == "ready" else None
        presets = getattr(module, "PRESETS", {})
        settings = {name: config_to_json(config) for name, config in presets.items()}
        if self.json:
            claim = to_json(record) if record else None
            look.print_json(system.as_dict() | {"presets": settings, "claim": claim})
            return
        look.results.print(f"[bold]{system.title}[/bold]  ({system.name}, {system.status})")
        look.results.print(f"{system.summary}\n")
        look.table(
            ["", ""],
            [
                ("number", str(system.number or "baseline")),
                ("paper", f"arXiv:{system.arxiv}"),
                ("family, kind", f"{system.family}, {system.kind}"),
                ("takes", ", ".join(system.takes)),
                ("gives", ", ".join(system.gives)),
                ("extra", system.extra or "none"),
            ],
        )
        if module is not None:
            look.results.print(f"\n{(module.__doc__ or '').strip()}\n", markup=False, soft_wrap=True)
            names = list(settings)
            keys = [field.name for field in fields(presets[names[0]])] if names else []
            look.table(
                ["setting", *names], [[key, *(str(settings[name][key]) for name in names)] for key in keys]
            )
        if record is not None:
            style = look.VERDICT[record.verdict]
            look.results.print(f"\nclaim: [{style}]{record.verdict}[/{style}]  {record.reason}")


@dataclass(frozen=True)
class Find:
    """Rank the systems for a problem told in plain words."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional]
    count: int = 8
    """how many to show"""
    json: bool = False
    """print a JSON list and nothing else"""

    def run(self) -> None:
        """Print the ranking."""
        from policysmith.cli.search import rank

        query = " ".join(self.words)
        ranked = rank(query)[: self.count]
        if self.json:
            look.print_json([system.as_dict() | {"score": round(score, 4)} for system, score in ranked])
            return
        if not ranked:
            look.note("nothing in the catalogue shares a word with that; `policysmith list` shows all of it")
            return
        look.table(
            ["", "name", "family", "kind", "status", "what it does"], [_row(system) for system, _ in ranked]
        )


def _row(system: System) -> list[str]:
    status = f"[{look.GOOD}]ready[/{look.GOOD}]" if system.status == "ready" else "planned"
    number = str(system.number or "")
    return [number, f"[bold]{system.name}[/bold]", system.family, system.kind, status, system.summary]

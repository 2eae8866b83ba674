"""`run` for systems that do not train: from the words of the command line to findings on a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policysmith.cli import look
from policysmith.cli.game import GameInputs
from policysmith.cli.inputs import Inputs, run_name
from policysmith.cli.pages import findings_page
from policysmith.common.catalogue import ENTRY, System
from policysmith.common.config import config_to_json
from policysmith.common.errors import CapabilityError, FileError, SettingError
from policysmith.common.provenance import commit
from policysmith.common.saving import save_json
from policysmith.evaluation.findings import Findings, shown
from policysmith.experience.transitions import SUFFIX, save_transitions
from policysmith.policies.protocol import load_policy


class Bringing(Protocol):
    """Words of the command line as what a system's entry is called with."""

    def arguments(self) -> tuple[Any, ...]:
        """What the entry is called with."""
        ...

    @property
    def name(self) -> str:
        """What the results are named after."""
        ...


@dataclass(frozen=True)
class PolicyInput:
    """Which policy is looked at."""

    policy: str = ""
    """run directory, or a folder with a saved policy"""

    def load(self) -> Any:
        """The policy."""
        if not self.policy:
            raise SettingError("which policy?", cure="give --policy FOLDER (a run or a saved policy)")
        return load_policy(self.policy)

    def arguments(self) -> tuple[Any, ...]:
        """What a system's entry is called with."""
        return (self.load(),)

    @property
    def name(self) -> str:
        """What the results are named after."""
        return Path(self.policy).resolve().name


@dataclass(frozen=True)
class EpisodesInput(Inputs):
    """Inputs that are named after the data or the environment they are from."""

    @property
    def name(self) -> str:
        """What the results are named after."""
        return Path(self.data).resolve().name if self.data else self.env


INPUTS: dict[str, type[Bringing]] = {
    "policy": PolicyInput,
    "episodes": EpisodesInput,
    "transitions": EpisodesInput,
}
"""What the command line can bring to a system, by what the system takes."""

TRANSITIONS = f"transitions{SUFFIX}"
"""File of the transitions that a system made."""

PAIRS = "pairs.jsonl"
"""File of the preferences that a system made."""


@dataclass(frozen=True)
class Writing:
    """Where the findings go."""

    out: str = ""
    """folder of the findings; by default runs/SYSTEM-NAME"""
    json: bool = False
    """print JSON and nothing else"""


def inputs_of(system: System) -> type[Bringing]:
    """The inputs that `system` takes; `CapabilityError` where the command line cannot bring them."""
    if {"prompts", "policy", "model"} == set(system.takes):
        return GameInputs
    known = [INPUTS[kind] for kind in system.takes if kind in INPUTS]
    if len(known) != 1:
        raise CapabilityError(
            f"the command line cannot bring what '{system.name}' takes: {', '.join(system.takes)}",
            cure=f"call {system.module_name}.{ENTRY[system.kind]} from Python",
        )
    return known[0]


def measure(system: System, entry: Callable[..., Any], settings: Any, inputs: Any, writing: Writing) -> None:
    """Call the system's entry, print what it found, and write findings, their page and what was made."""
    subject = inputs.arguments()
    folder = Path(writing.out or f"runs/{run_name(system.name, inputs.name)}")
    if folder.exists() and any(folder.iterdir()):
        raise FileError("the folder already holds files", where=str(folder), cure="choose another (--out)")
    found: Findings = look.watch(entry(*subject, config=settings))
    record = {
        "system": system.name,
        "settings": config_to_json(settings),
        "inputs": inputs.name,
        "commit": commit(),
        "findings": found.to_json(),
    }
    save_json(folder / "findings.json", record)
    if found.transitions is not None:
        save_transitions(found.transitions, folder / TRANSITIONS)
    if found.pairs is not None:
        found.pairs.save(folder / PAIRS)
    page = findings_page(folder / "report.html", found, facts={k: record[k] for k in ("inputs", "settings")})
    if writing.json:
        look.print_json(record)
        return
    look.table(["", ""], [[name, shown(value)] for name, value in found.summary.items()], title=found.title)
    for one in found.tables:
        look.results.print()
        look.table(one.columns, [[shown(cell) for cell in row] for row in one.rows], title=one.caption)
    for notice in found.notices:
        look.notices.print(notice)
    look.results.print(f"\nfindings: {folder / 'findings.json'}\npage: {page}", soft_wrap=True)
    if found.transitions is not None:
        look.results.print(f"transitions, for --data: {folder / TRANSITIONS}", soft_wrap=True)
    if found.pairs is not None:
        look.results.print(f"pairs, for --data: {folder / PAIRS}", soft_wrap=True)

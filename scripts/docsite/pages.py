"""Pages made from data: the catalogue, the claim records, the key names.

Every function here maps data to Markdown and writes no file, so that the site, the README and the tests use
the same ones.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from policysmith.claims.records import find_record
from policysmith.common.catalogue import System, systems
from policysmith.common.config import config_to_json
from policysmith.common.keys import KEYS
from policysmith.evaluation import record
from policysmith.evaluation.record import Claim

FAMILIES: dict[str, str] = {
    "generative-policies": "Generative policies",
    "robot-learning": "Robot learning",
    "online-rl": "Online reinforcement learning",
    "offline-rl": "Offline reinforcement learning",
    "multi-agent": "Several agents",
    "llm-rl": "Reinforcement learning of language models",
    "preference-optimization": "Preference optimisation",
    "reward-design": "Reward design",
    "data-synthesis": "Data synthesis",
    "language-agents": "Language agents",
    "benchmarks": "Benchmarks",
    "economics": "Economics",
    "games": "Games",
}
"""The families in the order in which pages list them, and how a page calls them."""


@dataclass(frozen=True)
class Entry:
    """A system of the catalogue with its claim record, where its experiment has been run."""

    system: System
    claim: Claim | None

    @property
    def ready(self) -> bool:
        """Whether the recipe is here."""
        return self.system.status == "ready"

    @property
    def verdict(self) -> str:
        """The record's verdict, or why there is none."""
        if not self.ready:
            return "planned"
        if self.claim is not None:
            return self.claim.verdict
        return "baseline" if self.system.number is None else "not measured yet"


def catalogue() -> list[Entry]:
    """Every system of the library's own catalogue, in its order, with its record."""
    own = [system for system in systems() if not system.module]
    return [Entry(system, find_record(system.name)) for system in own]


def by_family(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries by family, families in the order of `FAMILIES` and unknown ones last."""
    grouped: dict[str, list[Entry]] = {family: [] for family in FAMILIES}
    for entry in entries:
        grouped.setdefault(entry.system.family, []).append(entry)
    return {family: members for family, members in grouped.items() if members}


# ---- the catalogue -----------------------------------------------------------------------------------


def family_counts(entries: Sequence[Entry], *, catalogue_page: str = "") -> str:
    """A table of the families: how many systems are ready and planned; names link to `catalogue_page`."""
    rows = []
    for family, members in by_family(entries).items():
        title = FAMILIES.get(family, family)
        ready = sum(entry.ready for entry in members)
        name = f"[{title}]({catalogue_page}#{family})" if catalogue_page else title
        rows.append([name, ready, len(members) - ready])
    ready = sum(entry.ready for entry in entries)
    rows.append(["**all**", f"**{ready}**", f"**{len(entries) - ready}**"])
    return table(["family", "ready", "planned"], rows)


def ready_table(entries: Sequence[Entry], *, folder: str) -> str:
    """A table of the systems that are ready, linking to their pages in `folder`."""
    rows = [
        [
            f"[{escape(entry.system.title)}]({folder}{entry.system.name}.md)",
            f"`{entry.system.name}`",
            escape(entry.system.summary),
            _verdict(entry),
        ]
        for members in by_family(entries).values()
        for entry in members
        if entry.ready
    ]
    return table(["system", "name", "what it does", "claim"], rows)


def family_tables(entries: Sequence[Entry]) -> str:
    """The whole catalogue, a section and a table per family; for the page beside the systems' own."""
    sections = []
    for family, members in by_family(entries).items():
        ready = sum(entry.ready for entry in members)
        rows = [
            [
                entry.system.number or "",
                f"[`{entry.system.name}`]({_address(entry)})",
                escape(entry.system.summary),
                entry.system.kind,
                _verdict(entry),
            ]
            for entry in members
        ]
        sections.append(
            f"## {FAMILIES.get(family, family)} {{#{family}}}\n\n"
            f"`--family {family}`: {len(members)} systems, {ready} ready.\n\n"
            + table(["no.", "name", "what it does", "kind", "claim"], rows)
        )
    return "\n\n".join(sections)


def _address(entry: Entry) -> str:
    return f"{entry.system.name}.md" if entry.ready else f"https://arxiv.org/abs/{entry.system.arxiv}"


def _verdict(entry: Entry) -> str:
    return f"**{entry.verdict}**" if entry.claim is not None else entry.verdict


# ---- one system --------------------------------------------------------------------------------------


def system_page(entry: Entry, prose: str, *, picture: str = "") -> str:
    """The page of a ready system: its prose with facts after the title, then its settings and its record.

    `prose` opens with the page's title; where it is empty, the recipe's own words stand in. `picture` is the
    address of the record's plot.
    """
    module = entry.system.load()
    if not prose.strip():
        prose = f"# {escape(entry.system.title)}\n\n{_docstring(module)}\n"
    title, _, body = prose.lstrip().partition("\n")
    parts = [title, facts(entry), body.strip()]
    if presets := getattr(module, "PRESETS", None):
        parts.append(settings_section(presets))
    parts.append(record_section(entry, picture=picture))
    return "\n\n".join(parts) + "\n"


def facts(entry: Entry) -> str:
    """What the catalogue says of a system, as a table of two columns."""
    system = entry.system
    extra = f"`pip install 'policysmith[{system.extra}]'`" if system.extra else "nothing beyond the base"
    family = f"[{FAMILIES.get(system.family, system.family)}](index.md#{system.family})"
    recipe = system.module_name.removeprefix("policysmith.").replace(".", "/")
    rows = [
        ["claim", f"[{_verdict(entry)}](#record)"],
        ["paper", f"[arXiv:{system.arxiv}](https://arxiv.org/abs/{system.arxiv})"],
        ["family, kind", f"{family}, {system.kind}"],
        ["takes", ", ".join(system.takes)],
        ["gives", ", ".join(system.gives)],
        ["extra", extra],
        ["recipe", f"[`{recipe}.py`](../../src/policysmith/{recipe}.py)"],
    ]
    return f'<div class="facts" markdown>\n\n{table(["", ""], rows)}\n\n</div>'


def settings_section(presets: Any) -> str:
    """The settings of a system: its own account of them, and each preset's values."""
    names = list(presets)
    values = {name: config_to_json(config) for name, config in presets.items()}
    config = type(presets[names[0]])
    rows = [
        [f"`{field.name}`", *(f"`{values[name][field.name]}`" for name in names)] for field in fields(config)
    ]
    return "\n\n".join(
        [
            "## Settings {#settings}",
            _docstring(config),
            "On the command line, `--preset NAME` chooses a column and a setting's name changes one value.",
            table(["setting", *(f"`{name}`" for name in names)], rows),
        ]
    )


def record_section(entry: Entry, *, picture: str = "") -> str:
    """The claim record of a system, or that there is none."""
    name, claim = entry.system.name, entry.claim
    if claim is None:
        said = (
            "This is a baseline: other systems' experiments compare with it, and it has no claim of its own."
            if entry.system.number is None
            else "The experiment of this system has not been run yet: nothing is claimed here."
        )
        return f"## Claim record {{#record}}\n\n{said}"
    body = record.markdown(claim).partition("\n\n")[2].rstrip()
    tables, details, settings = body.partition("<details>")
    # An interval is read as one thing, so it must not break in its middle.
    tables = re.sub(r"(\[-?[\d.]+,) (?=-?[\d.]+\])", r"\1&nbsp;", tables)
    body = tables + details.replace(">", ' markdown="1">') + settings
    parts = [
        "## Claim record {#record}",
        f"From `claims/records/{name}.json`, which `policysmith reproduce {name}` makes anew; "
        "[how to read it](../guides/numbers.md).",
        body,
    ]
    if picture:
        parts.insert(2, f"![What each arm came to, with intervals]({picture})")
    return "\n\n".join(parts)


def _docstring(thing: Any) -> str:
    """A docstring as Markdown: what is indented under a list or as code stays so."""
    return inspect.getdoc(thing) or ""


# ---- key names ---------------------------------------------------------------------------------------


def key_tables(source: str) -> str:
    """The key names with shape and meaning, in the groups that the comments of `common/keys.py` make."""
    groups: dict[str, list[str]] = {}
    group = "other"
    for line in source[source.index("KEYS") :].splitlines():
        if comment := re.fullmatch(r"    # (.+)", line):
            group = comment[1]
        elif (key := re.match(r'    "(\w+)":', line)) and key[1] in KEYS:
            groups.setdefault(group, []).append(key[1])
    sections = []
    for name, keys in groups.items():
        rows = []
        for key in keys:
            shape, _, meaning = KEYS[key].partition("  ")
            rows.append([f"`{key}`", f"`{shape}`", escape(meaning)])
        sections.append(f"## {name.capitalize()}\n\n{table(['key', 'shape', 'meaning'], rows)}")
    return "\n\n".join(sections)


# ---- Markdown ----------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are Markdown already, but for the bar that would end them."""
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escape(text: str) -> str:
    """Plain text, in which only code between backticks is markup."""
    pieces = text.split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\*_\[\]])", r"\\\1", pieces[i].replace("&", "&amp;").replace("<", "&lt;"))
    return "`".join(pieces)

"""`data check`, `data convert`, `data record`: what is in a data set, the same as Minari, and new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

import policysmith
from policysmith.cli import look
from policysmith.cli.inputs import Reading
from policysmith.cli.recording import RecordLevels
from policysmith.common.errors import FileError, PolicysmithError
from policysmith.evaluation.data_report import data_findings, unreadable_findings
from policysmith.evaluation.drawing import svg
from policysmith.evaluation.findings import Findings, shown
from policysmith.evaluation.report import Report
from policysmith.experience.checking import Checked, check
from policysmith.experience.files import open_data
from policysmith.experience.reading import assemble
from policysmith.experience.sources import Problem
from policysmith.experience.store import save_episodes
from policysmith.systems import data_quality

GRADED_SAMPLES = 2000
"""So many states are compared with all others: some seconds for a hundred thousand steps."""

USAGE = (
    "usage: policysmith data check PATH | policysmith data convert PATH OUT | "
    "policysmith data record OUT --env NAME   (--help tells more)"
)


@dataclass(frozen=True)
class Check:
    """Say what is in a data set and what is wrong with it: Minari, LeRobot, or Diffusion Policy's Zarr.

    The exit code is 0 where the data set can be loaded as it is, and 1 where it cannot.
    """

    path: tyro.conf.Positional[str]
    """folder (or .zip) of the data set"""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)
    quality: bool = True
    """grade it too, by how consistent the actions, how alike the states and how long the episodes are"""
    every_picture: bool = False
    """look at the pictures of all episodes, not of ten"""
    out: str = ""
    """write a page (HTML) here"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> int:
        """Look, print, and write the page."""
        found = self._findings()
        if self.out:
            write_page(_page(self.out), found, path=self.path)
        if self.json:
            look.print_json(found.to_json())
        else:
            _print(found)
            if self.out:
                look.results.print(f"\npage: {_page(self.out)}", soft_wrap=True)
        return 0 if found.data["usable"] else 1

    def _findings(self) -> Findings:
        choice = self.reading.choice()
        if not self.reading.cameras:
            choice.pop("cameras")  # all are looked at
        try:
            source = open_data(self.path)
        except PolicysmithError as error:
            return unreadable_findings(self.path, Problem.of(error))
        checked = look.watch(check(source, every_picture=self.every_picture, **choice))
        found = data_findings(checked)
        return graded(found, checked) if self.quality and checked.usable else found


def graded(found: Findings, checked: Checked) -> Findings:
    """The findings with those of the system `data-quality` behind them, or with why there are none."""
    assert checked.chosen is not None
    if not checked.chosen.state:
        return found
    try:
        settings = dataclasses.replace(data_quality.PRESETS["paper"], samples=GRADED_SAMPLES)
        episodes = assemble(checked.source, dataclasses.replace(checked.chosen, pictures={}))
        grade: Findings = look.watch(data_quality.measure(episodes, config=settings))
    except PolicysmithError as error:
        return dataclasses.replace(found, notices=[*found.notices, f"It was not graded: {error.what}."])
    return dataclasses.replace(
        found,
        summary={**grade.summary, **found.summary},
        tables=[*found.tables, *grade.tables],
        figures=[*found.figures, *grade.figures],
        notices=[*found.notices, *grade.notices],
        data={**found.data, "quality": grade.to_json()},
    )


@dataclass(frozen=True)
class Convert:
    """Write a data set, or a part of it, as a Minari data set."""

    path: tyro.conf.Positional[str]
    """folder (or .zip) of the data set"""
    out: tyro.conf.Positional[str]
    """folder of the new data set; must not exist"""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)

    def run(self) -> None:
        """Read and write."""
        if Path(self.out).exists():
            raise FileError("there is something at this path already", where=self.out)
        episodes = self.reading.read(self.path)
        save_episodes(episodes, self.out)
        look.results.print(
            f"{len(episodes)} episodes, {int(episodes.lengths.sum())} steps: {self.out}", soft_wrap=True
        )


WORDS: Mapping[str, type] = {"check": Check, "convert": Convert, "record": RecordLevels}


def data(words: Sequence[str]) -> int | None:
    """`data WORD ...`: one of the words above."""
    word, rest = (words[0], list(words[1:])) if words else ("--help", [])
    if word in WORDS:
        return tyro.cli(WORDS[word], args=rest, prog=f"policysmith data {word}").run()
    asked = word in ("-h", "--help")
    (look.results if asked else look.notices).print(USAGE, markup=False, soft_wrap=True)
    return 0 if asked else 2


def write_page(page: Path, found: Findings, *, path: str) -> None:
    """Write the findings as a page, problems first."""
    problems, *others = found.tables
    report = Report(found.title, "what is wrong with the data set, and what is in it")
    report.table(problems.caption, list(problems.columns), [list(row) for row in problems.rows])
    report.facts({name: shown(value) for name, value in found.summary.items()})
    report.text(*found.notices)
    for caption, figure in found.figures:
        report.figure(svg(figure), caption)
    for one in others:
        report.table(one.caption, list(one.columns), [list(row) for row in one.rows])
    report.facts({"data": str(Path(path).resolve()), "library": f"policysmith {policysmith.__version__}"})
    report.write(page)


def _page(out: str) -> Path:
    return Path(out) / "report.html" if Path(out).is_dir() or not Path(out).suffix else Path(out)


def _print(found: Findings) -> None:
    problems, *others = found.tables
    if problems.rows:
        for kind, what, where, cure in problems.rows:
            style = look.BAD if kind == "stops" else "yellow"
            look.results.print(f"[{style}]{kind}[/]: ", end="")
            look.results.print(str(what), markup=False)
            for label, text in (("where", where), ("what to do", cure)):
                if text:
                    look.results.print(f"  {label}: {text}", markup=False, soft_wrap=True)
        look.results.print()
    look.table(["", ""], [[name, shown(value)] for name, value in found.summary.items()], title=found.title)
    for one in others:
        look.results.print()
        look.table(one.columns, [[shown(cell) for cell in row] for row in one.rows], title=one.caption)
    for notice in found.notices:
        look.notices.print(notice, markup=False)

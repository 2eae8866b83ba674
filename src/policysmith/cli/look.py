"""One look for everything the command line prints.

What a person reads while waiting (bars, notices) goes to standard error, results to standard output, so that
`--json` leaves nothing but JSON there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # the catalogue's verbs print without waiting for torch
    from policysmith.common.stages import Stage
    from policysmith.training.loop import Progress as TrainingProgress

Item = TypeVar("Item")

notices = Console(stderr=True, highlight=False)
results = Console(highlight=False)

GOOD, BAD, QUIET, STRONG = "green", "red", "dim", "bold"
MEMORY = {"return": 0.0, "reward": 0.9, "loss": 0.98}
"""The metric a bar shows, the first there is, and how slowly it follows; returns are means already."""

EVERY = 0.1
"""Seconds between two drawings of a bar."""

VERDICT = {"holds": GOOD, "fails": BAD, "undecided": "yellow"}


def be_quiet() -> None:
    """Print nothing from now on but errors: one of several processes talks."""
    notices.quiet = results.quiet = True


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on standard output; numbers-like columns are not guessed, all align left."""
    grid = Table(title=title or None, box=None, pad_edge=False, header_style=STRONG, title_justify="left")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    results.print(grid)


def note(text: str) -> None:
    """A quiet line for whoever is watching."""
    notices.print(text, style=QUIET)


def training_bar(progress: Iterator[TrainingProgress], *, label: str) -> Iterator[TrainingProgress]:
    """Draw a bar for a training run while passing it through: its return, reward or loss, smoothed.

    Says once where a resumed run will not repeat the same numbers.
    """
    with _bar(TextColumn("[dim]{task.fields[shown]}  {task.fields[pace]}")) as bar:
        task = bar.add_task(label, total=None, shown="", pace="")
        average: float | None = None
        drawn, said = 0.0, ""
        for now in progress:
            name = next((name for name in MEMORY if name in now.metrics), "")
            if name:
                value = now.metrics[name]
                average = value if average is None else MEMORY[name] * average + (1 - MEMORY[name]) * value
            if now.state.inexact != said:
                said = now.state.inexact
                note(f"the run goes on, but not to the same numbers: {said}")
            # A step may take a hundredth of what drawing does.
            if time.monotonic() - drawn > EVERY or now.step == now.total:
                drawn = time.monotonic()
                bar.update(
                    task,
                    completed=now.step,
                    total=now.total,
                    shown="" if average is None else f"{name} {average:.4f}",
                    pace=f"{sum(now.seconds.values()) * 1000:.3g} ms/step",
                )
            yield now


@contextmanager
def stage_bars() -> Iterator[Callable[[Stage], None]]:
    """Bars for work in stages: a new line for each, the finished ones stay."""
    with _bar(TextColumn("[dim]{task.fields[loss]}")) as bar:
        tasks: dict[str, TaskID] = {}

        def move(stage: Stage) -> None:
            if stage.label not in tasks:
                tasks[stage.label] = bar.add_task(stage.label, total=stage.total, loss="")
            loss = "" if stage.loss is None else f"loss {stage.loss:.4f}"
            bar.update(tasks[stage.label], completed=stage.done, total=stage.total, loss=loss)

        yield move


def watch(stages: Generator[Stage, None, Item]) -> Item:
    """Draw bars for a generator of stages and return what it returns."""
    with stage_bars() as move:
        while True:
            try:
                move(next(stages))
            except StopIteration as end:
                return end.value


def counting_bar(items: Iterable[Item], *, label: str, total: int) -> Iterator[Item]:
    """Draw a bar for anything that comes one by one."""
    with _bar() as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task)


def _bar(*columns: TextColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=notices,
    )

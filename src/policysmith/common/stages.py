"""Work in stages: a generator that says where it is and returns what it came to.

Whatever takes long and is no training run (a comparison, a measurement, a benchmark) yields a `Stage` when
something has moved, for whoever draws a bar, and returns its result. `result_of` drives it where nobody does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stage:
    """Where the work is: what is being done, and how far it has come."""

    label: str
    done: int
    total: int
    loss: float | None = None


def result_of(stages: Generator[Stage, None, Result]) -> Result:
    """Drive a generator of stages to its end and return what it returns; for scripts that draw no bars."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value

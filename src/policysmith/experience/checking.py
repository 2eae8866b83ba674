"""What is in a data set and what is wrong with it, without stopping at the first fault.

Everything is read through the same source as for training, one episode at a time. A fault that would stop
loading is noted and the rest still looked at. Faults of one kind are told once, with all their episodes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import numpy as np

from policysmith.common.errors import PolicysmithError
from policysmith.common.stages import Stage
from policysmith.experience.picture_checks import Seen, examine, film_problems, picture_problems
from policysmith.experience.reading import RATE_TOLERANCE, Chosen, choose
from policysmith.experience.sources import Feature, Problem, Source, measured_rate

GAP = 1.5
"""A pause between two steps is a gap from this many periods on."""

_LEAVE_OUT = "repair these episodes, or leave them out (--data-episodes)"


class Column:
    """Running statistics of one key, a number for each flattened column; of the values that are finite."""

    def __init__(self, width: int) -> None:
        self.steps = 0
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self._finite, self._total, self._squares = (np.zeros(width) for _ in range(3))

    def add(self, values: np.ndarray) -> None:
        """Take in the values [step, column] of one episode."""
        finite = np.isfinite(values)
        known = np.where(finite, values, 0.0)
        self.steps += len(values)
        self.low = np.minimum(self.low, np.where(finite, values, np.inf).min(0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(finite, values, -np.inf).max(0, initial=-np.inf))
        self._finite += finite.sum(0)
        self._total += known.sum(0)
        self._squares += (known**2).sum(0)

    @property
    def not_finite(self) -> int:
        """How many values are NaN or infinite."""
        return int(self.steps * len(self._finite) - self._finite.sum())

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column."""
        return self._total / np.maximum(self._finite, 1)

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of each column."""
        return np.sqrt(np.maximum(self._squares / np.maximum(self._finite, 1) - self.mean**2, 0))


@dataclass
class Checked:
    """What a check found.

    `read`: the episodes whose numbers could be read, with `lengths`, `rates` and `returns` for each of them;
    `succeeded` None where nothing flags success. `chosen` None where the format's own choice of keys cannot
    be loaded. `seen`: what the pictures that were looked at show, by camera.
    """

    source: Source
    chosen: Chosen | None = None
    problems: list[Problem] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    read: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    succeeded: list[bool] | None = None
    seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the data set can be loaded as it is."""
        return not any(problem.stops for problem in self.problems)


def check(
    source: Source, *, every_picture: bool = False, episodes_seen: int = 10, **choice: object
) -> Generator[Stage, None, Checked]:
    """Look at every number of a data set, and at the pictures of `episodes_seen` of its episodes or of all.

    `choice` is what `sources.choose` takes. A generator of stages that returns what was found.
    """
    found = Checked(source, problems=list(source.complaints()))
    try:
        found.chosen = choose(source, **{"cameras": "all"} | choice)  # type: ignore[arg-type]
    except PolicysmithError as error:
        found.problems.append(Problem.of(error))
    faults = _Faults(found)
    count = len(source.lengths)
    for episode in range(count):
        yield Stage("numbers", episode, count)
        try:
            numbers = source.numbers(episode)
        except PolicysmithError as error:
            faults.cannot_be_read(error, episode)
            continue
        _take_in(found, faults, numbers, episode)
    yield Stage("numbers", count, count)
    found.problems += faults.problems()
    found.problems += _column_problems(found) + _length_problems(found)
    cameras = list((source.defaults if found.chosen is None else found.chosen).pictures.values())
    found.problems += film_problems(source, cameras)
    spread = np.linspace(0, count - 1, count if every_picture else min(count, episodes_seen))
    yield from examine(source, cameras, [int(episode) for episode in spread], found.seen)
    found.problems += picture_problems(found.seen)
    found.problems.sort(key=lambda problem: not problem.stops)
    return found


class _Faults:
    """Faults by kind, each with its episodes and its first place."""

    def __init__(self, found: Checked) -> None:
        chosen, marks = found.chosen, found.source.defaults.marks.values()
        vectors = () if chosen is None else (*chosen.state, *chosen.action, *chosen.goal)
        self.needed = {*vectors, *marks}
        self._episodes: dict[tuple[str, bool], list[int]] = {}
        self._where: dict[tuple[str, bool], tuple[str, str]] = {}
        self._contents: dict[str, list[int]] = {}

    def note(self, what: str, episode: int, *, where: str, cure: str, stops: bool = False) -> None:
        """Count one more episode with this fault."""
        self._episodes.setdefault((what, stops), []).append(episode)
        self._where.setdefault((what, stops), (where, cure))

    def cannot_be_read(self, error: PolicysmithError, episode: int) -> None:
        """An episode whose numbers raise `error`; a file with many episodes is told once."""
        what = error.what.replace(f"episode {episode}", "an episode")
        self.note(what, episode, where=error.where, cure=error.cure or _LEAVE_OUT, stops=True)

    def contents(self, numbers: Mapping[str, np.ndarray], keys: list[str], episode: int) -> None:
        """Remember what an episode holds, to find those that hold the same."""
        digest = hashlib.sha256()
        for key in keys:
            digest.update(np.ascontiguousarray(numbers[key]).tobytes())
        self._contents.setdefault(digest.hexdigest(), []).append(episode)

    def problems(self) -> list[Problem]:
        """One problem for each kind of fault."""
        found = []
        for (what, stops), episodes in self._episodes.items():
            where, cure = self._where[what, stops]
            number = f" ({listed(episodes)})" if len(episodes) > 1 else ""
            found.append(Problem(f"{what}{number}", where, cure, stops))
        for episodes in self._contents.values():
            if len(episodes) > 1:
                found.append(
                    Problem(
                        "episodes hold the same numbers",
                        listed(episodes),
                        "leave the copies out: they count double, also between training and validation",
                    )
                )
        return found


def listed(episodes: list[int]) -> str:
    """Episodes as a person lists them, the first few of many."""
    names = ", ".join(map(str, episodes[:8])) + (", ..." if len(episodes) > 8 else "")
    return f"episode {names}" if len(episodes) == 1 else f"{len(episodes)} episodes: {names}"


def _take_in(found: Checked, faults: _Faults, numbers: Mapping[str, np.ndarray], episode: int) -> None:
    source = found.source
    for key in source.features:
        if key not in numbers:
            continue
        values = numbers[key].reshape(len(numbers[key]), -1).astype(float)
        column = found.columns.setdefault(key, Column(values.shape[1]))
        if values.shape[1] != len(column.low):
            where = f"first in episode {episode}: {values.shape[1]} columns, {len(column.low)} before"
            what = f"'{key}' has another width than in the episodes before"
            faults.note(what, episode, where=where, cure=_LEAVE_OUT, stops=key in faults.needed)
            continue
        column.add(values)
        _note_not_finite(source, faults, key, values, episode)
    _note_times(found, faults, numbers, episode)
    faults.contents(numbers, [key for key in source.features if key in numbers], episode)
    found.read.append(episode)
    found.lengths.append(source.lengths[episode])
    marks = source.defaults.marks
    if "reward" in marks:
        found.returns.append(float(np.nansum(numbers[marks["reward"]])))
    if "success" in marks:
        found.succeeded = [*(found.succeeded or []), bool(np.any(numbers[marks["success"]]))]


def _note_not_finite(source: Source, faults: _Faults, key: str, values: np.ndarray, episode: int) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        step, column = (int(i) for i in np.argwhere(bad)[0])
        place = f"first in episode {episode}, step {step}, {source.features[key].column(column)}"
        faults.note(
            f"'{key}' is not finite", episode, where=place, cure=_LEAVE_OUT, stops=key in faults.needed
        )


def _note_times(found: Checked, faults: _Faults, numbers: Mapping[str, np.ndarray], episode: int) -> None:
    times, rate = found.source.timestamps(numbers), found.source.rate
    measured = None if times is None else measured_rate(times)
    if times is None:
        return
    pauses = np.diff(times)
    if not np.isfinite(times).all() or (pauses <= 0).any():
        step = int(np.flatnonzero(~(pauses > 0))[0]) + 1
        where = f"first in episode {episode}, step {step}"
        faults.note("time stands still or runs backwards", episode, where=where, cure=_LEAVE_OUT)
        return
    if measured is None or rate is None:
        return
    found.rates.append(measured)
    if abs(measured / rate - 1) > RATE_TOLERANCE:
        where = f"first in episode {episode}: {measured:.4g} steps a second"
        what = f"the time stamps run at another rate than the {rate:.4g} steps a second of the data set"
        faults.note(what, episode, where=where, cure="resample these episodes or leave them out", stops=True)
    elif pauses.max() * rate > GAP:
        step = int(pauses.argmax())
        where = f"first in episode {episode}: {pauses.max():.3g} s between steps {step} and {step + 1}"
        faults.note(
            "there are gaps in the time stamps",
            episode,
            where=where,
            cure="steps were lost in recording: leave these episodes out where it matters",
        )


def _column_problems(found: Checked) -> list[Problem]:
    """Columns that never change or leave their declared range."""
    problems = []
    try:
        ranges = found.source.ranges
    except PolicysmithError as error:
        problems.append(dataclasses.replace(Problem.of(error), stops=False))  # loading does not need them
        ranges = {}
    for key, column in found.columns.items():
        feature = found.source.features[key]
        if key in found.source.defaults.marks.values():
            continue
        constant = np.flatnonzero(column.low == column.high) if column.steps > 1 else []
        if len(constant):
            names = ", ".join(f"{feature.column(i)}: {column.low[i]:.4g}" for i in constant[:6])
            more = f" and {len(constant) - 6} more" if len(constant) > 6 else ""
            problems.append(
                Problem(
                    f"'{key}' has columns that never change",
                    names + more,
                    "see whether they were recorded; nothing can be learnt from them or about them",
                )
            )
        if key in ranges:
            problems += _range_problems(found.source.features[key], key, column, ranges[key])
    return problems


def _range_problems(
    feature: Feature, key: str, column: Column, declared: tuple[np.ndarray, np.ndarray]
) -> list[Problem]:
    low, high = declared
    if low.shape != column.low.shape:
        return []
    slack = 1e-5 * np.maximum(1, np.maximum(np.abs(low), np.abs(high)))
    slack = np.where(np.isfinite(slack), slack, 0)
    outside = np.flatnonzero((column.low < low - slack) | (column.high > high + slack))
    if not len(outside):
        return []
    i = int(outside[0])
    return [
        Problem(
            f"'{key}' leaves its declared range in {len(outside)} of {len(low)} columns",
            f"{feature.column(i)}: {column.low[i]:.4g} to {column.high[i]:.4g}, "
            f"declared {low[i]:.4g} to {high[i]:.4g}",
            "either is wrong: the declaration may be of other data; do not scale by it as it is",
        )
    ]


def _length_problems(found: Checked) -> list[Problem]:
    if not found.lengths:
        return []
    problems, lengths = [], np.array(found.lengths)
    typical = float(np.median(lengths))
    for what, odd, cure in (
        ("episodes of a single step", lengths < 2, "leave them out: they show no movement"),
        (
            f"episodes of more than five times the typical {typical:.0f} steps",
            lengths > 5 * typical,
            "see whether the recording was stopped in time",
        ),
    ):
        if odd.any():
            problems.append(Problem(what, listed([found.read[i] for i in np.flatnonzero(odd)]), cure))
    if found.succeeded is not None and not any(found.succeeded):
        problems.append(
            Problem("no episode is flagged as a success", cure="see whether the flag was recorded")
        )
    return problems

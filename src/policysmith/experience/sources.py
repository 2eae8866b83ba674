"""Data sets of robots as they lie on disk: what every file format gives to its readers.

A source reads numbers by the data set's own keys, one episode at a time and as they are (values that are not
finite included), and pictures one by one at the size asked for. Loading (`reading`) and checking (`checking`)
read the same source, so that the check sees what training would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from policysmith.common.errors import FileError, PolicysmithError
from policysmith.experience.pictures import Picture

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Feature:
    """What a data set says of one key: the kind, the shape and type of one step, the names of its columns.

    `unusable` says why it can be neither state nor picture; empty where it can.
    """

    kind: Literal["number", "picture", "text"]
    shape: tuple[int, ...]
    dtype: str
    names: tuple[str, ...] = ()
    codec: str = ""
    unusable: str = ""

    def column(self, index: int) -> str:
        """What a person calls column `index` of the flattened value."""
        name = f" ({self.names[index]})" if index < len(self.names) else ""
        return f"column {index}{name}"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set: what, where, and what to do.

    `stops`: the data set cannot be loaded as it is. Other problems load, and may spoil what is learnt.
    """

    what: str
    where: str = ""
    cure: str = ""
    stops: bool = False

    @classmethod
    def of(cls, error: PolicysmithError) -> Problem:
        """An error that loading would raise."""
        cure = error.cure or (f"expected: {error.expected}" if error.expected else "")
        return cls(error.what, error.where, cure, stops=True)


@dataclass(frozen=True)
class Defaults:
    """Which keys a source takes for what where nobody says otherwise.

    `marks` maps `reward`, `success`, `terminated`, `truncated` and `done` to keys. `done` is the mark of
    formats that say that an episode ended and not why.
    """

    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    goal: tuple[str, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """An opened data set, of whatever format."""

    format: str
    version: str
    path: Path

    @property
    def features(self) -> Mapping[str, Feature]:
        """What is recorded at each step, by key."""
        ...

    @property
    def defaults(self) -> Defaults:
        """Which keys are read as what where nobody says otherwise."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """The steps of each episode, as declared."""
        ...

    @property
    def rate(self) -> float | None:
        """Steps per second; None where nothing says."""
        ...

    @property
    def ranges(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Lowest and highest values that are declared, by key, flattened."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the data are from, as plain data."""
        ...

    def numbers(self, episode: int) -> dict[str, np.ndarray]:
        """Every key of numbers [step, *shape] of one episode, as it is in the file."""
        ...

    def pictures(self, episode: int, key: str, *, size: Size | None = None) -> Iterator[Picture]:
        """The pictures of one camera, one a step."""
        ...

    def timestamps(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Seconds at each step, from what `numbers` gave; None where the format keeps none."""
        ...

    def films(self) -> Mapping[str, Sequence[Path]]:
        """The film of each episode by key of the camera; empty where pictures are not kept as films."""
        ...

    def complaints(self) -> Sequence[Problem]:
        """What the format's own descriptions contradict; nothing large is read."""
        ...


def present(path: Path, what: str, *, cure: str = "copy or download the data set again") -> Path:
    """`path`, where there is a file with contents; `FileError` naming `what` it holds otherwise."""
    if not path.is_file():
        raise FileError(f"{what} is missing", where=str(path), cure=cure)
    with path.open("rb") as file:
        start = file.read(24)
    if not start:
        raise FileError(f"{what} is empty", where=str(path), cure=cure)
    if start.startswith(b"version https://git-lfs"):
        raise FileError(
            f"{what} was not downloaded: the file only points at it", where=str(path), cure="git lfs pull"
        )
    return path


def not_finite(values: np.ndarray) -> tuple[int, int] | None:
    """Step and flattened column of the first value that is NaN or infinite."""
    if values.dtype.kind not in "fc":
        return None
    flat = values.reshape(len(values), -1)
    bad = ~np.isfinite(flat)
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None  # type: ignore[return-value]


def measured_rate(times: np.ndarray) -> float | None:
    """Steps per second by the median time between steps; None for fewer than three steps."""
    if len(times) < 3:
        return None
    period = float(np.median(np.diff(times)))
    return 1 / period if np.isfinite(period) and period > 0 else None

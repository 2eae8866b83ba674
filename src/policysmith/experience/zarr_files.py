"""Diffusion Policy's Zarr data sets: all steps end to end under `data/`, and where episodes end.

A folder or a .zip with `data/action`, other arrays of as many steps (`state`, `img`, `robot_eef_pose`, ...)
and `meta/episode_ends`, one number an episode. The arrays may be of Zarr's version 2 or 3.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.common.errors import DataError, FileError
from policysmith.common.extras import require
from policysmith.experience.pictures import EXTRA, Picture, resized
from policysmith.experience.sources import Defaults, Feature, Problem, Size, measured_rate

TIMES = "timestamp"

_NOT_STATE = ("action", TIMES, "stage")
"""Arrays that no state is made of where there is no `state`."""


def is_zarr(path: Path) -> bool:
    """Whether `path` looks like a Zarr group: a folder, or a .zip of one."""
    markers = (".zgroup", ".zmetadata", "zarr.json")
    if path.is_dir():
        inside = (path, path / "data", path / "meta")
        return any((folder / marker).is_file() for folder in inside for marker in markers)
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] in markers for name in archive.namelist())


class Zarr:
    """A Zarr data set as a `Source`.

    Raises `FileError` for what is no such group or damaged, and for a compression that nothing here undoes,
    naming it; `DataError` for arrays whose lengths do not fit the ends of the episodes.
    """

    format = "Zarr"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._root = _open(self.path)
        self.version = f"v{self._root.metadata.zarr_format}"
        self._arrays = self._members("data")
        ends = self._read(self._members("meta").get("episode_ends"), "meta/episode_ends").reshape(-1)
        if not len(ends) or (np.diff(ends, prepend=0) < 1).any():
            raise DataError(
                "the ends of the episodes do not rise",
                where=f"{self.path}, meta/episode_ends",
                expected="one number an episode, each larger than the one before it",
            )
        for key, array in self._arrays.items():
            if array.shape[:1] != (int(ends[-1]),):
                raise DataError(
                    f"'{key}' has {array.shape[0] if array.shape else 'no'} steps, the episodes {ends[-1]}",
                    where=str(self.path),
                    cure="copy or download the data set again",
                )
        self._bounds = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        self.lengths = [end - start for start, end in self._bounds]
        self.features = {key: _feature(array) for key, array in self._arrays.items()}
        self.defaults = _defaults(self.features)
        self.ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.provenance: dict[str, Any] = {}
        self.rate = self._rate()
        self._scales: dict[str, int] = {}

    def numbers(self, episode: int) -> dict[str, np.ndarray]:
        """Every array of numbers, cut to one episode."""
        numbers = (key for key, feature in self.features.items() if feature.kind == "number")
        return {key: self._read(self._arrays[key], f"data/{key}", episode) for key in numbers}

    def pictures(self, episode: int, key: str, *, size: Size | None = None) -> Iterator[Picture]:
        """The pictures of one camera; floats are of 0 to 1 or of 0 to 255, as the first pictures show."""
        start, end = self._bounds[episode]
        array = self._arrays[key]
        scale = self._scale(key)
        block = max(1, int(array.chunks[0]))  # what is decompressed together is read together
        for first in range(start, end, block):
            for picture in self._read(array, f"data/{key}", range(first, min(first + block, end))):
                yield resized(_as_bytes(picture, scale, f"{self.path}, data/{key}"), size)

    def timestamps(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Seconds, where the data set has an array `timestamp`."""
        times = numbers.get(TIMES)
        return None if times is None else times.reshape(-1).astype(float)

    def films(self) -> dict[str, list[Path]]:
        """None: pictures are arrays."""
        return {}

    def complaints(self) -> list[Problem]:
        """Pieces of arrays that are not in the store: they are read as zeros."""
        missing = {key: array.nchunks - array.nchunks_initialized for key, array in self._arrays.items()}
        return [
            Problem(
                f"{count} of {self._arrays[key].nchunks} pieces of '{key}' are absent and read as zeros",
                where=str(self.path),
                cure="copy or download the data set again, unless these steps are all zero",
            )
            for key, count in missing.items()
            if count
        ]

    def _members(self, group: str) -> dict[str, Any]:
        found = self._root.get(group)
        if found is None or not hasattr(found, "arrays"):
            raise FileError(
                f"there is no group '{group}'",
                where=str(self.path),
                expected="a Zarr group with data/ and meta/episode_ends, as Diffusion Policy writes it",
            )
        try:
            return dict(sorted(found.arrays()))
        except Exception as error:
            raise _unreadable(self.path, group, error) from error

    def _read(self, array: Any, name: str, part: int | range | None = None) -> np.ndarray:
        if array is None:
            raise FileError(f"there is no array '{name}'", where=str(self.path))
        start, end = (
            (0, None)
            if part is None
            else self._bounds[part]
            if isinstance(part, int)
            else (part.start, part.stop)
        )
        try:
            return np.asarray(array[start:end])
        except Exception as error:  # stores, codecs and zip files each have errors of their own
            raise _unreadable(self.path, name, error) from error

    def _scale(self, key: str) -> int:
        """What floats are multiplied with. One answer for the whole array: a picture may be all dark."""
        if key not in self._scales:
            first = self._read(self._arrays[key], f"data/{key}", range(min(16, self._bounds[-1][1])))
            self._scales[key] = 255 if first.dtype.kind == "f" and first.max(initial=0) <= 1 else 1
        return self._scales[key]

    def _rate(self) -> float | None:
        if TIMES not in self._arrays or self.features[TIMES].kind != "number":
            return None
        times = self._read(self._arrays[TIMES], f"data/{TIMES}").reshape(-1).astype(float)
        rates = [measured_rate(times[start:end]) for start, end in self._bounds]
        known = [rate for rate in rates if rate is not None]
        return float(np.median(known)) if known else None


def _open(path: Path) -> Any:
    zarr = require("zarr", extra=EXTRA)
    if not path.exists():
        raise FileError("there is nothing at this path", where=str(path))
    try:
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else str(path)
        return zarr.open_group(store, mode="r")
    except Exception as error:  # as above
        raise _unreadable(path, "the group", error) from error


def _unreadable(path: Path, name: str, error: Exception) -> FileError:
    text = str(error).strip() or type(error).__name__
    if "codec" in text.lower():
        return FileError(
            f"'{name}' is compressed in a way that is not undone here: {text}",
            where=str(path),
            cure="write the arrays anew with a codec of numcodecs (blosc, zstd, gzip) where they were made",
        )
    return FileError(
        f"'{name}' is damaged or cut short: {text}", where=str(path), cure="copy or download it again"
    )


def _feature(array: Any) -> Feature:
    shape, kind = tuple(array.shape[1:]), array.dtype.kind
    if len(shape) == 3 and shape[-1] in (1, 3, 4) and kind in "uf":
        unusable = "" if shape[-1] == 3 else f"its shape is {list(shape)}"
        return Feature("picture", shape, str(array.dtype), codec="arrays", unusable=unusable)
    if kind in "fiub":
        return Feature("number", shape, str(array.dtype))
    return Feature("text", shape, str(array.dtype))


def _defaults(features: Mapping[str, Feature]) -> Defaults:
    numbers = [key for key, feature in features.items() if feature.kind == "number"]
    others = tuple(key for key in numbers if key not in _NOT_STATE)
    marks = ("reward", "success", "terminated", "truncated", "done")
    return Defaults(
        state=("state",) if "state" in numbers else tuple(key for key in others if key not in marks),
        action=("action",) if "action" in numbers else (),
        pictures={key: key for key, feature in features.items() if feature.kind == "picture"},
        marks={mark: mark for mark in marks if mark in numbers},
    )


def _as_bytes(picture: np.ndarray, scale: int, where: str) -> Picture:
    if picture.dtype == np.uint8:
        return picture
    scaled = np.round(picture * scale)
    if not ((scaled >= 0) & (scaled <= 255)).all():  # NaN fails as well
        raise DataError("pictures of numbers have values beyond 0 to 255 (or beyond 0 to 1)", where=where)
    return scaled.astype(np.uint8)

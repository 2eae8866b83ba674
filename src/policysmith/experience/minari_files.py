"""Minari data sets as a source: any that Minari writes, whatever the form of its observations.

Every leaf of the observation is a key (`observation`, or `observation/arm/joints` inside dictionaries).
Leaves join to the state in their order, as environments are flattened; a `goal` and pictures stay apart.
Observations have one entry more than actions, the one after the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import DataError, FileError, MissingExtraError
from policysmith.common.observations import GOAL, is_picture
from policysmith.common.saving import load_json
from policysmith.experience.pictures import Picture, resized
from policysmith.experience.sources import Defaults, Feature, Problem, Size
from policysmith.experience.store import PROVENANCE

OBSERVATION = "observation"

_COLUMNS = {
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminations",
    "truncated": "truncations",
}
_SUCCESS = ("success", "is_success")


def minari_folder(path: Path) -> Path | None:
    """The folder with Minari's metadata: `path` or its `data`; None where neither holds any."""
    for folder in (path, path / "data"):
        if (folder / "metadata.json").is_file():
            return folder
    return None


class Minari:
    """A Minari data set as a `Source`; `FileError` where it is missing, damaged or cut short."""

    format = "Minari"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from minari.dataset.minari_storage import MinariStorage

        self.path = Path(folder)
        inner = minari_folder(self.path)
        if inner is None:
            raise FileError("there is no Minari data set here", where=str(folder), expected="metadata.json")
        try:
            self._storage = MinariStorage.read(inner)
            self._count = int(self._storage.total_episodes)
            spaces = dict(_leaves(self._storage.observation_space, OBSERVATION))
            lengths = [
                int(one["total_steps"]) for one in self._storage.get_episode_metadata(range(self._count))
            ]
        except Exception as error:
            raise self._unreadable(error) from error
        self.version = str(self._storage.metadata.get("minari_version", ""))
        self.lengths = lengths
        self._spaces = spaces | {"action": self._storage.action_space}
        self.rate: float | None = None
        self._kept: tuple[int, dict[str, Any]] = (-1, {})
        first = self._raw(0) if self._count else {}
        self.features = {key: _feature(space) for key, space in self._spaces.items()} | {
            key: Feature("number", (), str(np.asarray(value).dtype))
            for key, value in first.items()
            if key not in self._spaces
        }
        self.defaults = _defaults(self.features)
        notes = inner / PROVENANCE
        self.provenance: dict[str, Any] = dict(load_json(notes)) if notes.is_file() else {}

    @property
    def ranges(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The bounds of the declared spaces, where they are boxes."""
        boxes = {key: space for key, space in self._spaces.items() if isinstance(space, gymnasium.spaces.Box)}
        return {
            key: (box.low.reshape(-1).astype(float), box.high.reshape(-1).astype(float))
            for key, box in boxes.items()
            if not is_picture(box)
        }

    def numbers(self, episode: int) -> dict[str, np.ndarray]:
        """Actions, rewards, marks and the leaves of the observation, of one episode."""
        raw = self._raw(episode)
        numbers = [key for key, feature in self.features.items() if feature.kind == "number"]
        if missing := [key for key in numbers if key not in raw]:
            raise DataError(
                f"{', '.join(map(repr, missing))} is missing",
                where=f"{self.path}, episode {episode}",
                expected=f"the keys of the first episode: {', '.join(numbers)}",
            )
        values = {key: np.asarray(raw[key]) for key in numbers}
        for key, value in values.items():
            if value.dtype.kind not in "fiub":
                raise DataError(
                    f"'{key}' has entries of type {value.dtype}, which cannot be read as numbers",
                    where=f"{self.path}, episode {episode}",
                )
        return values

    def pictures(self, episode: int, key: str, *, size: Size | None = None) -> Iterator[Picture]:
        """The pictures of one camera, with the one after the last action."""
        for picture in np.asarray(self._raw(episode)[key]):
            yield resized(picture, size)

    def timestamps(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """None: Minari keeps no time stamps."""
        return None

    def films(self) -> dict[str, list[Path]]:
        """None: pictures are arrays."""
        return {}

    def complaints(self) -> list[Problem]:
        """None that loading would not raise."""
        return []

    def _raw(self, episode: int) -> dict[str, Any]:
        """All of one episode by key; kept until another is asked for, as pictures come camera by camera."""
        if self._kept[0] != episode:
            self._kept = (episode, self._read(episode))
        return self._kept[1]

    def _read(self, episode: int) -> dict[str, Any]:
        try:
            (found,) = self._storage.get_episodes([episode])
            raw = dict(_values(found["observations"], OBSERVATION))
            raw |= {key: found[name] for key, name in _COLUMNS.items()}
            infos = found.get("infos") or {}
            for name in _SUCCESS:
                if name in infos:
                    raw.setdefault("success", infos[name])
        except Exception as error:  # Minari checks little of what it reads: damage shows as any exception
            raise self._unreadable(error, episode) from error
        return raw

    def _unreadable(self, error: Exception, episode: int | None = None) -> Exception:
        where = str(self.path) + ("" if episode is None else f", episode {episode}")
        if isinstance(error, ImportError):
            return MissingExtraError(
                f"the data set is in a format that needs another package: {error}", where=where
            )
        return FileError(
            f"the data set is damaged or cut short: {error}", where=where, cure="record or download it again"
        )


def _leaves(space: gymnasium.Space, name: str) -> Iterator[tuple[str, gymnasium.Space]]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(space, gymnasium.spaces.Tuple):
        for number, inner in enumerate(space.spaces):
            yield from _leaves(inner, f"{name}/{number}")
    else:
        yield name, space


def _values(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, inner in values.items():
            yield from _values(inner, f"{name}/{key}")
    elif isinstance(values, tuple):
        for number, inner in enumerate(values):
            yield from _values(inner, f"{name}/{number}")
    else:
        yield name, values


def _feature(space: gymnasium.Space) -> Feature:
    if is_picture(space):
        return Feature("picture", tuple(space.shape or ()), "uint8", codec="arrays")
    kind = "text" if space.dtype is None or np.dtype(space.dtype).kind not in "fiub" else "number"
    return Feature(kind, tuple(space.shape or ()), str(space.dtype))


def _defaults(features: Mapping[str, Feature]) -> Defaults:
    seen = [key for key in features if key == OBSERVATION or key.startswith(f"{OBSERVATION}/")]
    goal = f"{OBSERVATION}/{GOAL}"
    return Defaults(
        state=tuple(key for key in seen if features[key].kind != "picture" and key != goal),
        action=("action",),
        goal=(goal,) if goal in seen else (),
        pictures={
            key.removeprefix(f"{OBSERVATION}/"): key for key in seen if features[key].kind == "picture"
        },
        marks={key: key for key in ("reward", "terminated", "truncated", "success") if key in features},
    )

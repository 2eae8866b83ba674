"""LeRobot data sets, versions 2.1 and 3.0, read from their folder without the `lerobot` package.

Numbers lie in Parquet files, pictures in films (or as PNG inside the Parquet files), and `meta/info.json`
says what there is and where. Version 2.1 has one file an episode; in version 3.0 a file holds many, and the
tables under `meta/episodes` say which file and, for films, from which second on an episode's pictures are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.common.errors import DataError, FileError
from policysmith.common.saving import load_json
from policysmith.experience.lerobot_descriptions import defaults, episode_table, feature, json_lines, limits
from policysmith.experience.pictures import Picture, decoded, frames_at, resized
from policysmith.experience.sources import Problem, Size, present
from policysmith.experience.tables import as_array, read_table

VERSIONS = ("v2.1", "v3.0")

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that say where a step belongs, and nothing about the robot."""

_CONVERT = "convert it with LeRobot's own scripts: to v2.1 first where it is older, then to v3.0"


def is_lerobot(folder: Path) -> bool:
    """Whether `folder` looks like a LeRobot data set, of whatever version."""
    return (folder / "meta" / "info.json").is_file() or (folder / "meta_data" / "info.json").is_file()


class LeRobot:
    """A LeRobot data set as a `Source`.

    Raises `FileError` for a version that is not read here, naming it, and for descriptions that are missing
    or damaged.
    """

    format = "LeRobot"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        if (self.path / "meta_data").is_dir():
            raise _unsupported("v1.x", self.path / "meta_data")
        info_path = present(self.path / "meta" / "info.json", "the description of the data set")
        self.info: dict[str, Any] = load_json(info_path)
        if not isinstance(self.info, dict):
            raise FileError("the description of the data set is no JSON object", where=str(info_path))
        version = str(self.info.get("codebase_version", "unknown"))
        self.version = f"v{version}" if version[:1].isdigit() else version
        if self.version not in VERSIONS:
            raise _unsupported(self.version, info_path)
        if missing := [key for key in ("features", "fps", "data_path") if not self.info.get(key)]:
            raise FileError(f"{', '.join(missing)} is not described", where=str(info_path))
        try:
            self.rate: float | None = float(self.info["fps"])
            self.features = {
                key: feature(described)
                for key, described in self.info["features"].items()
                if key not in BOOKKEEPING
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise FileError(
                f"the description of the data set is damaged: {error}", where=str(info_path)
            ) from error
        self.defaults = defaults(self.features)
        self._episodes = episode_table(self.path, self.version)
        self.lengths = [int(episode["length"]) for episode in self._episodes]
        self._kept: tuple[Path, Any] | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """The robot, and the tasks in words with the numbers of their episodes."""
        tasks: dict[str, list[int]] = {}
        for number, episode in enumerate(self._episodes):
            for task in episode.get("tasks") or []:
                tasks.setdefault(str(task), []).append(number)
        robot = self.info.get("robot_type")
        return ({"robot": robot} if robot else {}) | ({"tasks": tasks} if tasks else {})

    @property
    def ranges(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Lowest and highest values by key, as the data set's own statistics say; empty where it has none."""
        statistics = self._statistics
        numbers = (key for key, one in self.features.items() if one.kind == "number")
        found = {key: limits(statistics, key, self.features[key]) for key in numbers}
        return {key: limit for key, limit in found.items() if limit is not None}

    def numbers(self, episode: int) -> dict[str, np.ndarray]:
        """Every key of numbers of one episode, with the time stamps.

        Raises `DataError` where steps are missing or the length is not the one declared.
        """
        keys = [key for key, feature in self.features.items() if feature.kind == "number"]
        path, table = self._rows(episode, [*keys, *(key for key in BOOKKEEPING if key in self._columns)])
        where = f"{path}, episode {episode}"
        values = {key: as_array(table.column(key), key, where=where) for key in table.column_names}
        if table.num_rows != self.lengths[episode]:
            raise DataError(
                f"{table.num_rows} steps are there and {self.lengths[episode]} are declared",
                where=where,
                cure="copy or download the data set again",
            )
        order = values.get("frame_index")
        if order is not None and not np.array_equal(order.reshape(-1), np.arange(table.num_rows)):
            step = int(np.flatnonzero(order.reshape(-1) != np.arange(table.num_rows))[0])
            raise DataError(
                "steps are missing or out of order",
                where=f"{where}, step {step}",
                expected="the frame index to count from 0",
            )
        return values

    def pictures(self, episode: int, key: str, *, size: Size | None = None) -> Iterator[Picture]:
        """The pictures of one camera in one episode."""
        if self.info["features"][key]["dtype"] == "image":
            yield from self._stored_pictures(episode, key, size)
            return
        film, start = self.film(episode, key)
        present(
            film,
            f"the film of camera '{key}' in episode {episode}",
            cure=("copy or download it (films are large and often left out), or choose other cameras"),
        )
        _, table = self._rows(episode, ["timestamp"])
        times = table.column("timestamp").to_numpy().astype(float) + start
        assert self.rate is not None
        yield from frames_at(film, times.tolist(), tolerance=0.5 / self.rate, size=size)

    def film(self, episode: int, key: str) -> tuple[Path, float]:
        """The file with the pictures of one camera in one episode, and the second at which they begin."""
        path = self._file("video_path", episode, f"videos/{key}/", video_key=key)
        if self.version == "v2.1":
            return path, 0.0
        start = self._episodes[episode].get(f"videos/{key}/from_timestamp")
        if start is None:
            raise self._unplaced(f"the pictures of '{key}'", episode)
        return path, float(start)

    def timestamps(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Seconds since the episode began."""
        times = numbers.get("timestamp")
        return None if times is None else times.reshape(-1).astype(float)

    def films(self) -> dict[str, list[Path]]:
        """The film of each episode, by camera."""
        keys = [key for key, one in self._columns.items() if one["dtype"] == "video"]
        return {key: [self.film(number, key)[0] for number in range(len(self.lengths))] for key in keys}

    def complaints(self) -> list[Problem]:
        """Where the totals of the description are not those of the list of episodes."""
        found = {"total_episodes": len(self.lengths), "total_frames": sum(self.lengths)}
        return [
            Problem(
                f"{key} is {self.info[key]}, and the list of episodes has {count}",
                where=str(self.path / "meta" / "info.json"),
                cure="the data set was cut or edited by hand: copy or download it again",
            )
            for key, count in found.items()
            if self.info.get(key, count) != count
        ]

    # ---- files -----------------------------------------------------------------------------------------

    @property
    def _columns(self) -> Mapping[str, Any]:
        return self.info["features"]

    @property
    def _statistics(self) -> Sequence[Mapping[str, Any]]:
        """What is known of the values: one entry for the data set (v3.0) or one an episode (v2.1)."""
        meta = self.path / "meta"
        if (meta / "stats.json").is_file():
            return [load_json(meta / "stats.json")]
        if (meta / "episodes_stats.jsonl").is_file():
            return [line.get("stats", {}) for line in json_lines(meta / "episodes_stats.jsonl", "statistics")]
        return []

    def _file(self, template: str, episode: int, prefix: str, **more: str) -> Path:
        """The file of an episode by a template of the description; its numbers are under `prefix` in v3.0."""
        row = self._episodes[episode]
        try:
            if self.version == "v2.1":
                index = int(row["episode_index"])
                chunk = index // int(self.info.get("chunks_size", 1000))
                place = {"episode_index": index, "episode_chunk": chunk}
            else:
                place = {name: int(row[prefix + name]) for name in ("chunk_index", "file_index")}
            return self.path / self.info[template].format(**place, **more)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unplaced(f"'{template}'", episode) from error

    def _unplaced(self, what: str, episode: int) -> FileError:
        return FileError(
            f"nothing says in which file {what} of an episode is",
            where=f"{self.path / 'meta'}, episode {episode}",
            cure="copy or download the data set again",
        )

    def _rows(self, episode: int, columns: Sequence[str]) -> tuple[Path, Any]:
        """The rows of one episode; the numbers of the file read last are kept, as the next is often in it."""
        path = self._file("data_path", episode, "data/")
        numbers = [
            key for key, one in self._columns.items() if one["dtype"] not in ("image", "video", "string")
        ]
        what = f"the file with episode {episode}"
        if not set(columns) <= set(numbers):
            table = read_table(path, what, columns=[*columns, "episode_index"])
        else:
            if self._kept is None or self._kept[0] != path:
                self._kept = (path, read_table(path, what, columns=numbers))
            table = self._kept[1]
        index = int(self._episodes[episode]["episode_index"])
        rows = np.flatnonzero(table.column("episode_index").to_numpy() == index)
        if len(rows) == 0:
            raise DataError(f"episode {index} is not in its file", where=str(path))
        # Neighbours, as every writer leaves them: a slice shares memory with the table.
        neighbours = rows[-1] - rows[0] + 1 == len(rows)
        found = table.slice(rows[0], len(rows)) if neighbours else table.take(rows)
        return path, found.select(list(columns))

    def _stored_pictures(self, episode: int, key: str, size: Size | None) -> Iterator[Picture]:
        path, table = self._rows(episode, [key])
        for step, cell in enumerate(table.column(key)):
            stored = cell.as_py() or {}
            where = f"{path}, episode {episode}, step {step}, '{key}'"
            content = stored.get("bytes")
            if content is None:
                if not stored.get("path"):
                    raise FileError("the picture is missing", where=where)
                content = present(self.path / stored["path"], f"the picture of {where}").read_bytes()
            yield resized(decoded(content, where=where), size)


def _unsupported(version: str, path: Path) -> FileError:
    known = " and ".join(VERSIONS)
    newer = version[1:].split(".")[0].isdigit() and int(version[1:].split(".")[0]) > 3
    cure = "update this package, or save the data set in an older version" if newer else _CONVERT
    return FileError(
        f"the LeRobot data set is of version {version}", where=str(path), expected=known, cure=cure
    )

"""From a data set on disk to episodes: which keys become state, goal, action and pictures.

`choose` settles that for a source and says what is not there; `read` makes the arrays of one episode after
another, so that no more than one lies in memory twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from policysmith.common.errors import DataError
from policysmith.common.observations import GOAL, STATE
from policysmith.experience.episodes import Episodes
from policysmith.experience.sources import Defaults, Size, Source, measured_rate, not_finite

RATE_TOLERANCE = 0.05
"""How far the rate of an episode's time stamps may be from the data set's, as a share."""


@dataclass(frozen=True)
class Chosen:
    """Which keys become which part, for a source that has them all.

    `pictures` maps what a policy calls a camera to the key. `left_out` are the cameras of the data set that
    were not asked for.
    """

    state: tuple[str, ...]
    action: tuple[str, ...]
    goal: tuple[str, ...]
    pictures: Mapping[str, str]
    picture_size: Size | None
    episodes: tuple[int, ...]
    left_out: tuple[str, ...]


def choose(
    source: Source,
    *,
    state: Sequence[str] | None = None,
    action: Sequence[str] | None = None,
    goal: Sequence[str] | None = None,
    cameras: Literal["all"] | Sequence[str] | Mapping[str, str] = (),
    picture_size: Size | None = None,
    episodes: Sequence[int] | None = None,
) -> Chosen:
    """Settle what is read; what is None is as the format has it (`Source.defaults`).

    Vectors of several keys are joined in the order given. `cameras` are names or keys of the data set, "all"
    for those that policies can take, or a mapping from the name wanted to one of these. Raises `DataError`
    for whatever the data set lacks.
    """
    own = source.defaults
    if cameras == "all":
        cameras = [name for name, key in own.pictures.items() if not source.features[key].unusable]
    wanted = cameras if isinstance(cameras, Mapping) else {name: name for name in cameras}
    pictures = {_camera_name(own, name): _camera(source, given or name) for name, given in wanted.items()}
    chosen = Chosen(
        state=_vectors(source, own.state if state is None else state, "state"),
        action=_vectors(source, own.action if action is None else action, "action"),
        goal=_vectors(source, own.goal if goal is None else goal, "goal"),
        pictures=pictures,
        picture_size=picture_size,
        episodes=_episode_numbers(source, episodes),
        left_out=tuple(name for name, key in own.pictures.items() if key not in pictures.values()),
    )
    if not chosen.action:
        raise DataError(
            "nothing says which key is the action",
            where=str(source.path),
            expected=f"an 'action', or a choice among {_listed(source, 'number')}",
        )
    if not chosen.state and not chosen.pictures:
        raise DataError(
            "there is nothing to observe: no state, and no camera was chosen",
            where=str(source.path),
            expected=f"keys of numbers ({_listed(source, 'number')}) or cameras ({_cameras(source)})",
        )
    return chosen


def read(source: Source, chosen: Chosen) -> Iterator[dict[str, Any]]:
    """The arrays of one episode after another, as `Episodes.from_arrays` takes them.

    Raises `DataError` for values that are not finite, for time stamps of another rate than the data set's and
    for episodes of another length than declared, naming episode, key and column; `FileError` for files that
    are missing or damaged.
    """
    _check_memory(source, chosen)
    for episode in chosen.episodes:
        numbers = source.numbers(episode)
        _check_rate(source, numbers, episode)
        yield _arrays(source, chosen, numbers, episode)


def provenance(source: Source, chosen: Chosen) -> dict[str, Any]:
    """Where the episodes come from and what of it was read, as plain data."""
    number = {episode: i for i, episode in enumerate(chosen.episodes)}
    own = dict(source.provenance)
    if "tasks" in own:  # their episodes, numbered as they are loaded
        tasks = {task: [number[e] for e in of if e in number] for task, of in own["tasks"].items()}
        own["tasks"] = {task: of for task, of in tasks.items() if of}
    return {
        "data": source.path.name,
        "format": f"{source.format} {source.version}".strip(),
        **({"rate": source.rate} if source.rate is not None else {}),
        **own,
        **({"episodes": list(chosen.episodes)} if len(number) < len(source.lengths) else {}),
        "state": list(chosen.state),
        "action": list(chosen.action),
        **({"goal": list(chosen.goal)} if chosen.goal else {}),
        **({"pictures": dict(chosen.pictures)} if chosen.pictures else {}),
    }


def assemble(source: Source, chosen: Chosen) -> Episodes:
    """The chosen episodes in memory."""
    return Episodes.from_arrays(read(source, chosen), provenance=provenance(source, chosen))


# ---- what is asked of a source -------------------------------------------------------------------------


def _vectors(source: Source, keys: Sequence[str], part: str) -> tuple[str, ...]:
    for key in keys:
        feature = source.features.get(key)
        if feature is None or feature.kind != "number" or feature.unusable:
            what = f"'{key}' is not in the data" if feature is None else f"'{key}' is a {feature.kind}"
            raise DataError(
                f"{what} and cannot be the {part}",
                where=str(source.path),
                expected=f"keys of numbers: {_listed(source, 'number')}",
            )
    return tuple(keys)


def _camera(source: Source, name: str) -> str:
    """The key of the camera that `name` (its short name, or the key itself) means."""
    key = source.defaults.pictures.get(name, name)
    feature = source.features.get(key)
    if feature is None or feature.kind != "picture":
        what = "is not in the data" if feature is None else f"holds a {feature.kind} and no pictures"
        raise DataError(
            f"the camera '{name}' {what}", where=str(source.path), expected=f"one of: {_cameras(source)}"
        )
    if feature.unusable:
        raise DataError(
            f"no policy takes the camera '{name}': {feature.unusable}",
            where=str(source.path),
            expected="colour pictures, uint8 [height, width, 3]",
            cure="leave this camera out",
        )
    return key


def _camera_name(own: Defaults, name: str) -> str:
    short = {key: camera for camera, key in own.pictures.items()}.get(name, name)
    if short in (STATE, GOAL):
        raise DataError(
            f"a camera cannot be called '{short}': that is another part of the observation",
            cure="rename it: NAME=CAMERA",
        )
    return short


def _episode_numbers(source: Source, episodes: Sequence[int] | None) -> tuple[int, ...]:
    count = len(source.lengths)
    chosen = tuple(range(count)) if episodes is None else tuple(episodes)
    if not chosen or min(chosen) < 0 or max(chosen) >= count:
        raise DataError(
            "no episodes are chosen" if not chosen else f"there is no episode {max(chosen)}",
            where=str(source.path),
            expected=f"numbers from 0 to {count - 1}" if count else "a data set with episodes",
        )
    return chosen


def _listed(source: Source, kind: str) -> str:
    return ", ".join(key for key, feature in source.features.items() if feature.kind == kind) or "none"


def _cameras(source: Source) -> str:
    return ", ".join(source.defaults.pictures) or "none: the data set has no pictures"


# ---- one episode ---------------------------------------------------------------------------------------


def _arrays(
    source: Source, chosen: Chosen, numbers: Mapping[str, np.ndarray], episode: int
) -> dict[str, Any]:
    action = _joined(source, numbers, chosen.action, episode)
    parts: dict[str, np.ndarray] = {}
    if chosen.state:
        parts[STATE] = _joined(source, numbers, chosen.state, episode)
    if chosen.goal:
        parts[GOAL] = _joined(source, numbers, chosen.goal, episode)
    for name, key in chosen.pictures.items():
        parts[name] = _film(source, episode, key, chosen.picture_size)
    observation = parts[STATE] if set(parts) == {STATE} else parts
    return {"observation": observation, "action": action, **_marks(source, numbers, len(action), episode)}


def _joined(
    source: Source, numbers: Mapping[str, np.ndarray], keys: Sequence[str], episode: int
) -> np.ndarray:
    columns = []
    for key in keys:
        values = numbers[key]
        if (place := not_finite(values)) is not None:
            raise DataError(
                f"'{key}' is not finite",
                where=f"episode {episode}, step {place[0]}, {source.features[key].column(place[1])}",
                cure="repair the episode or leave it out",
            )
        columns.append(values.reshape(len(values), -1).astype(np.float32))
    return np.concatenate(columns, axis=-1)


def _film(source: Source, episode: int, key: str, size: Size | None) -> np.ndarray:
    film: np.ndarray | None = None
    count = 0
    for count, picture in enumerate(source.pictures(episode, key, size=size), start=1):
        if film is None:
            film = np.empty((max(source.lengths[episode], 1) + 1, *picture.shape), dtype=np.uint8)
        film[count - 1] = picture
    if film is None:
        raise DataError(f"the camera '{key}' has no pictures", where=f"episode {episode}")
    return film[:count]


def _marks(source: Source, numbers: Mapping[str, np.ndarray], steps: int, episode: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mark, key in source.defaults.marks.items():
        values = numbers[key].reshape(len(numbers[key]), -1)[-steps:, 0]
        if (place := not_finite(values)) is not None:
            raise DataError(f"'{key}' is not finite", where=f"episode {episode}, step {place[0]}")
        found[mark] = values.astype(np.float32 if mark == "reward" else bool)
    if "done" in found:
        # "Done" does not tell a task that ended from a clock that ran out: success does.
        done, success = found.pop("done"), found.get("success", np.zeros(steps, dtype=bool))
        found["terminated"], found["truncated"] = done & success, done & ~success
    return found


def _check_rate(source: Source, numbers: Mapping[str, np.ndarray], episode: int) -> None:
    times = source.timestamps(numbers)
    found = None if times is None else measured_rate(times)
    if found is None or source.rate is None or abs(found / source.rate - 1) <= RATE_TOLERANCE:
        return
    raise DataError(
        f"the time stamps run at {found:.4g} steps a second, the data set at {source.rate:.4g}",
        where=f"{source.path}, episode {episode}",
        expected="one rate for all episodes: a policy plays its actions at the rate it learnt them",
        cure="leave such episodes out (`policysmith data check` lists them), or resample them",
    )


def _check_memory(source: Source, chosen: Chosen) -> None:
    needed = 2 * picture_bytes(source, chosen)  # pieces, and the whole they are joined into
    available = memory_bytes()
    if needed > available:
        raise DataError(
            f"the pictures need {needed / 2**30:.1f} GiB, and the machine has {available / 2**30:.1f}",
            where=str(source.path),
            cure="load them smaller (--picture-size 96 96), or fewer cameras or episodes",
        )


def picture_bytes(source: Source, chosen: Chosen) -> int:
    """Bytes that the chosen pictures take in memory."""
    steps = sum(source.lengths[episode] for episode in chosen.episodes)
    sizes = (chosen.picture_size or source.features[key].shape[:2] for key in chosen.pictures.values())
    return sum(steps * 3 * int(np.prod(size)) for size in sizes)


def memory_bytes() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

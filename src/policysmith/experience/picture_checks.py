"""Checks of pictures: films that are missing or run at another rate, dark and frozen pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from policysmith.common.errors import PolicysmithError
from policysmith.common.stages import Stage
from policysmith.experience.pictures import Film, Picture, describe_film
from policysmith.experience.sources import Problem, Source, present

DARK = 24
"""A picture is dark where no value, of 0 to 255, is above this."""

MOVED = 0.1
"""A frozen picture counts where the state meanwhile moves by this share of its range in the episode."""

SAMPLES = 6
"""So many episodes show their middle picture on the page."""

_SIZE = (96, 128)


@dataclass
class Seen:
    """What the pictures of one camera show: how many were looked at, and where they are dark or frozen.

    `dark` and `frozen` map episodes to the first step and the number of steps. `film` is what the header of
    the first film says, `samples` the middle picture of a few episodes, `problems` what could not be read.
    """

    looked_at: int = 0
    film: Film | None = None
    size: tuple[int, int] | None = None
    dark: dict[int, tuple[int, int]] = field(default_factory=dict)
    frozen: dict[int, tuple[int, int]] = field(default_factory=dict)
    samples: dict[int, Picture] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def film_problems(source: Source, cameras: Sequence[str]) -> list[Problem]:
    """Films that are missing or cannot be played, and films of another rate than the data; headers only."""
    problems: list[Problem] = []
    for key, paths in source.films().items():
        if key not in cameras:
            continue
        owners: dict[Path, list[int]] = {}
        for episode, path in enumerate(paths):
            owners.setdefault(path, []).append(episode)
        faults: dict[str, list[tuple[Path, int]]] = {}
        cures: dict[str, str] = {}
        for path, episodes in owners.items():
            try:
                film = describe_film(present(path, "the film"))
            except PolicysmithError as error:
                what, cure = error.what.split(":")[0], error.cure
            else:
                if source.rate is None or not film.rate or abs(film.rate / source.rate - 1) < 0.01:
                    continue
                what = f"the film has {film.rate:.4g} pictures a second and the data {source.rate:.4g} steps"
                cure = "the nearest picture is taken for each step: see whether the film belongs to the data"
            faults.setdefault(what, []).append((path, len(episodes)))
            cures[what] = cure
        for what, places in faults.items():
            many = f" ({len(places)} films)" if len(places) > 1 else ""
            stops = "pictures a second" not in what
            where = f"camera '{key}', first {places[0][0]}"
            cure = cures[what] or "choose other cameras, or copy the films again"
            problems.append(Problem(f"{what}{many}", where, cure, stops))
    return problems


def examine(
    source: Source, cameras: Sequence[str], episodes: Sequence[int], seen: dict[str, Seen]
) -> Iterator[Stage]:
    """Look at the pictures of some episodes, camera by camera, and put what they show into `seen`."""
    films = source.films()
    for key in cameras:
        feature = source.features[key]
        if feature.unusable:
            continue
        camera = seen.setdefault(key, Seen(size=feature.shape[:2] if feature.shape else None))  # type: ignore[arg-type]
        for done, episode in enumerate(episodes):
            yield Stage(f"pictures of {key}", done, len(episodes))
            try:
                if key in films and camera.film is None:
                    camera.film = describe_film(films[key][episode])
                state = _movement(source, source.numbers(episode))
                pictures = _sampled(camera, source.pictures(episode, key, size=_SIZE), source, episode)
                _look(camera, pictures, episode, state, _shortest(source))
            except PolicysmithError as error:
                camera.problems.append(Problem.of(error))
        yield Stage(f"pictures of {key}", len(episodes), len(episodes))


def picture_problems(seen: Mapping[str, Seen]) -> list[Problem]:
    """Dark and frozen pictures, and what could not be decoded."""
    problems = []
    for key, camera in seen.items():
        told = {problem.what.split(":")[0]: problem for problem in reversed(camera.problems)}
        problems += list(told.values())
        for places, what, cure in (
            (camera.dark, "pictures are dark", "see whether the camera was covered or off; leave it out"),
            (
                camera.frozen,
                "pictures stand still while the robot moves",
                "the camera dropped out or lags: leave these episodes out",
            ),
        ):
            if places:
                episode, (step, length) = next(iter(places.items()))
                where = f"camera '{key}', first in episode {episode}, {length} steps from step {step} on"
                problems.append(Problem(f"{what} in {len(places)} of the episodes looked at", where, cure))
    return problems


def _sampled(camera: Seen, pictures: Iterable[Picture], source: Source, episode: int) -> Iterator[Picture]:
    """Pass the pictures through and keep the middle one."""
    for step, picture in enumerate(pictures):
        if step == source.lengths[episode] // 2 and len(camera.samples) < SAMPLES:
            camera.samples[episode] = picture
        yield picture


def _shortest(source: Source) -> int:
    """How many equal pictures in a row are frozen ones: half a second, and no fewer than five."""
    return max(5, round((source.rate or 10) / 2))


def _movement(source: Source, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """The default state of an episode, each column in units of its range; empty where there is none."""
    keys = [key for key in source.defaults.state if key in numbers]
    if not keys:
        return np.zeros((0, 0))
    state = np.concatenate([numbers[key].reshape(len(numbers[key]), -1) for key in keys], axis=1).astype(
        float
    )
    state = np.nan_to_num(state)
    spread = np.ptp(state, axis=0)
    return state / np.where(spread > 0, spread, 1)


def _look(camera: Seen, pictures: Iterable[Picture], episode: int, state: np.ndarray, shortest: int) -> None:
    before: np.ndarray | None = None
    dark, equal = [], []
    for picture in pictures:
        values = picture.astype(np.int16)
        dark.append(int(values.max()) <= DARK)
        equal.append(before is not None and int(np.abs(values - before).max()) <= 1)
        before = values
    camera.looked_at += len(dark)
    if run := _longest(dark):
        camera.dark[episode] = run
    run = _longest(equal)
    if run and run[1] >= shortest and not dark[run[0]]:
        # A dark picture is told as such; a robot at rest looks the same, and nothing is wrong.
        during = state[run[0] - 1 : run[0] + run[1]]
        if state.size == 0 or np.ptp(during, axis=0).max(initial=0) > MOVED:
            camera.frozen[episode] = run


def _longest(flags: Sequence[bool]) -> tuple[int, int] | None:
    """Start and length of the longest run of true flags."""
    best, start = (0, 0), None
    for i, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = i
        elif not flag and start is not None:
            best = max(best, (i - start, -start))
            start = None
    return (-best[1], best[0]) if best[0] else None

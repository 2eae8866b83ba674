"""Scripted drivers for the point mazes of Gymnasium-Robotics: one that goes for the goal, one that plays.

Both find their way by a breadth-first search over cells and steer with the same controller towards
the centre of the next cell: force = `gain` * (target - position) - `damping` * velocity. `PointMazeExpert`
takes the shortest way to the environment's goal; where two are equally short, the seed of `reset` chooses
between them for the whole episode. `PlayExpert` has no task: it drives to one random cell after another, each
time by one of the two shortest separate ways, at random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict

from policysmith.common.errors import CapabilityError

WALL = 1
NEIGHBOURS = ((-1, 0), (0, 1), (1, 0), (0, -1))

Cell = tuple[int, int]


class Driver:
    """What the two drivers share: the maze's cells, reading an observation, and the controller.

    `env` gives the maze and the layout of the observation: the dictionary itself, the same flattened, or the
    state alone. Raises `CapabilityError` for an environment that is not a `PointMaze_*`.
    """

    def __init__(self, env: gymnasium.Env, *, gain: float = 10.0, damping: float = 1.0) -> None:
        inner = env.unwrapped
        if not hasattr(inner, "maze") or not isinstance(inner.observation_space, Dict):
            raise CapabilityError(f"{inner} is not a point maze", expected="a PointMaze_* environment")
        self._maze: Any = inner.maze  # type: ignore[attr-defined]
        self._gain, self._damping = gain, damping
        self._places = _places(inner.observation_space)
        self._free = {
            (row, column)
            for row, cells in enumerate(self._maze.maze_map)
            for column, cell in enumerate(cells)
            if cell != WALL
        }

    def _state(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """Position and velocity [4]."""
        if isinstance(observation, dict):
            return observation["state"] if "state" in observation else observation["observation"]
        return observation if len(observation) == 4 else observation[self._places["observation"]]

    def _force(self, state: np.ndarray, target: np.ndarray) -> np.ndarray:
        force = self._gain * (target - state[:2]) - self._damping * state[2:4]
        return np.clip(force, -1.0, 1.0).astype(np.float32)

    def _cell(self, position: np.ndarray) -> Cell:
        row, column = self._maze.cell_xy_to_rowcol(position)
        return int(row), int(column)

    def _centre(self, cell: Cell) -> np.ndarray:
        return self._maze.cell_rowcol_to_xy(np.array(cell))


class PointMazeExpert(Driver):
    """Drives the point of a `PointMaze_*` environment to its goal."""

    def __init__(self, env: gymnasium.Env, *, gain: float = 10.0, damping: float = 1.0) -> None:
        super().__init__(env, gain=gain, damping=damping)
        self._order = {cell: 0.0 for cell in self._free}
        self._distances: dict[Cell, dict[Cell, int]] = {}

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; with a seed, ties between equally short ways are broken by it."""
        rng = np.random.default_rng(seed)
        self._order = {cell: float(rng.random()) if seed is not None else 0.0 for cell in sorted(self._free)}

    def act(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """The force towards the next cell of the way: float32 [2] in [-1, 1]."""
        state = self._state(observation)
        return self._force(state, self._target(state[:2], self._goal(observation)))

    def _goal(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        if isinstance(observation, dict):
            return observation["goal"] if "goal" in observation else observation["desired_goal"]
        return observation[self._places["desired_goal"]]

    def _target(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        here, there = self._cell(position), self._cell(goal)
        if here == there:
            return goal
        if there not in self._distances:
            self._distances[there] = distances_from(there, self._free)
        distance = self._distances[there]
        nearer = [cell for cell in _around(here) if distance.get(cell, -1) == distance.get(here, -1) - 1]
        if not nearer:
            # Pressed into a wall's cell, or cut off from the goal: to the nearest cell that has a way.
            return min(
                map(self._centre, distance), key=lambda centre: float(np.linalg.norm(centre - position))
            )
        return self._centre(min(nearer, key=lambda cell: self._order[cell]))


class PlayExpert(Driver):
    """Plays: drives to random cells one after another, by one of the two shortest separate ways each time.

    A cell counts as reached within `reach` of its centre (in cells' widths where those are 1). The seed of
    `reset` determines targets and ways.
    """

    def __init__(
        self, env: gymnasium.Env, *, gain: float = 10.0, damping: float = 1.0, reach: float = 0.3
    ) -> None:
        super().__init__(env, gain=gain, damping=damping)
        self._reach = reach
        self._rng = np.random.default_rng()
        self._way: list[Cell] = []

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode with a target that is yet to be chosen."""
        self._rng = np.random.default_rng(seed)
        self._way = []

    def act(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """The force towards the next cell of the present way: float32 [2] in [-1, 1]."""
        state = self._state(observation)
        here = self._nearest(state[:2], self._free)
        if not self._way or np.linalg.norm(self._centre(self._way[-1]) - state[:2]) <= self._reach:
            self._way = self._choose(here)
        at = (
            self._way.index(here)
            if here in self._way
            else self._way.index(self._nearest(state[:2], set(self._way)))
        )
        return self._force(state, self._centre(self._way[min(at + 1, len(self._way) - 1)]))

    def _choose(self, here: Cell) -> list[Cell]:
        reachable = sorted(set(distances_from(here, self._free)) - {here})
        target = reachable[self._rng.integers(len(reachable))]
        ways = two_ways(here, target, self._free)
        return ways[self._rng.integers(len(ways))]

    def _nearest(self, position: np.ndarray, cells: Set[Cell]) -> Cell:
        """The cell that the point is in, or the nearest of `cells` where it is in none of them."""
        here = self._cell(position)
        if here in cells:
            return here
        return min(sorted(cells), key=lambda cell: float(np.linalg.norm(self._centre(cell) - position)))


def distances_from(start: Cell, free: Set[Cell]) -> dict[Cell, int]:
    """How many moves between adjacent `free` cells each reachable cell is from `start` (itself included)."""
    distance = {start: 0}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for neighbour in _around(cell):
            if neighbour in free and neighbour not in distance:
                distance[neighbour] = distance[cell] + 1
                queue.append(neighbour)
    return distance


def two_ways(start: Cell, goal: Cell, free: Set[Cell]) -> list[list[Cell]]:
    """The shortest way from `start` to `goal` and the shortest one that shares no cell with it but the ends.

    Each is the list of its cells, ends included; only the first where there is no second, none where the goal
    cannot be reached.
    """
    first = _way(start, goal, free)
    if not first:
        return []
    left = free - set(first[:-1])
    detours = [_way(cell, goal, left) for cell in _around(start) if cell in left and cell not in first]
    return [first, *([start, *way] for way in sorted(filter(None, detours), key=len)[:1])]


def _way(start: Cell, goal: Cell, free: Set[Cell]) -> list[Cell]:
    """A shortest way between two cells, both included; empty where there is none."""
    distance = distances_from(goal, free)
    if start not in distance:
        return []
    way = [start]
    while way[-1] != goal:
        way.append(min(_around(way[-1]), key=lambda cell: distance.get(cell, len(free))))
    return way


def _around(cell: Cell) -> list[Cell]:
    return [(cell[0] + rows, cell[1] + columns) for rows, columns in NEIGHBOURS]


def _places(space: Dict) -> dict[str, slice]:
    """Where each entry of a dictionary of vectors lies once Gymnasium has flattened it."""
    places, start = {}, 0
    for name, entry in space.spaces.items():
        width = int(np.prod(entry.shape or ()))
        places[name] = slice(start, start + width)
        start += width
    return places

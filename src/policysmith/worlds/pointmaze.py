"""A scripted expert for the point mazes of Gymnasium-Robotics: shortest way by cells, then a PD controller.

A breadth-first search from the goal's cell says how many cells each cell is away from it. The point is driven
towards the centre of a neighbour that is one nearer, or towards the goal itself once it is in the goal's
cell: force = `gain` * (target - position) - `damping` * velocity. Where two ways are equally short, the seed
of `reset` chooses between them for the whole episode.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict

from policysmith.common.errors import CapabilityError

WALL = 1
NEIGHBOURS = ((-1, 0), (0, 1), (1, 0), (0, -1))

Cell = tuple[int, int]


class PointMazeExpert:
    """Drives the point of a `PointMaze_*` environment to its goal.

    `env` gives the maze and the layout of the observation, which may be flattened or the dictionary itself.
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
        self._order = {cell: 0.0 for cell in self._free}
        self._distances: dict[Cell, dict[Cell, int]] = {}

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; with a seed, ties between equally short ways are broken by it."""
        rng = np.random.default_rng(seed)
        self._order = {cell: float(rng.random()) if seed is not None else 0.0 for cell in sorted(self._free)}

    def act(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """The force towards the next cell of the way: float32 [2] in [-1, 1]."""
        position, velocity, goal = self._read(observation)
        force = self._gain * (self._target(position, goal) - position) - self._damping * velocity
        return np.clip(force, -1.0, 1.0).astype(np.float32)

    def _read(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if isinstance(observation, dict):
            state, goal = observation["observation"], observation["desired_goal"]
        else:
            state, goal = observation[self._places["observation"]], observation[self._places["desired_goal"]]
        return state[:2], state[2:4], goal

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

    def _cell(self, position: np.ndarray) -> Cell:
        row, column = self._maze.cell_xy_to_rowcol(position)
        return int(row), int(column)

    def _centre(self, cell: Cell) -> np.ndarray:
        return self._maze.cell_rowcol_to_xy(np.array(cell))


def distances_from(start: Cell, free: set[Cell]) -> dict[Cell, int]:
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

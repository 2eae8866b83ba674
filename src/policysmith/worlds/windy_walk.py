"""The windy walk: three corridors to one goal, a short one in the wind and a long one out of it, as tables.

    S . . . . G      a step costs 1, the goal G costs nothing more
    . # # # . .
    . . . . . .      in a corridor (columns 1 to 3 of rows 0, 2 and 4) the wind blows west:
    . # # # . .      a step other than west ends one cell to the west with probability
    . . . . . .      alpha (row 0), alpha^3 (row 2), alpha^6 (row 4)
    . . . . . .

The wind's strength alpha in [0, 0.5] is what is not known. Without wind the short way is best, in a strong
one the long way; which of them is robust can be worked out exactly (`objectives.worst_case`).

Source: the task is that of Zouitine et al. 2024 (2410.06212), section 5.1; the map is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError

SIZE = 6
WALLS = frozenset((row, column) for row in (1, 3) for column in (1, 2, 3))
EXPONENT = {0: 1, 2: 3, 4: 6}
"""Row of a corridor -> the power of alpha that its wind is."""
CORRIDOR = (1, 2, 3)
"""The columns of the corridors."""
START, GOAL = (0, 0), (0, 5)
MOVES = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
"""The actions, in their order."""
DISCOUNT = 0.95
STRENGTHS = tuple(i / 48 for i in range(25))
"""The paper's set of models: 25 winds evenly from 0 to 0.5."""


class WindyWalk(NamedTuple):
    """The walk for every wind of a set; states are cells row by row, actions as in `MOVES`."""

    transition: Float[Tensor, "model state action next"]
    reward: Float[Tensor, "state action"]
    start: Float[Tensor, "state"]


def windy_walk(strengths: Sequence[float] = STRENGTHS) -> WindyWalk:
    """The tables for winds of these strengths; `SettingError` for one outside of [0, 0.5]."""
    if wrong := [alpha for alpha in strengths if not 0 <= alpha <= 0.5]:
        raise SettingError(f"a wind of strength {wrong[0]}", expected="between 0 and 0.5")
    transition = torch.stack([_table(alpha) for alpha in strengths])
    reward = torch.full((SIZE * SIZE, len(MOVES)), -1.0, dtype=torch.double)
    reward[state_of(GOAL)] = 0.0
    start = torch.zeros(SIZE * SIZE, dtype=torch.double)
    start[state_of(START)] = 1.0
    return WindyWalk(transition, reward, start)


def state_of(cell: tuple[int, int]) -> int:
    """The number of a cell (row, column)."""
    return cell[0] * SIZE + cell[1]


def _table(alpha: float) -> Float[Tensor, "state action next"]:
    table = torch.zeros(SIZE * SIZE, len(MOVES), SIZE * SIZE, dtype=torch.double)
    for row in range(SIZE):
        for column in range(SIZE):
            cell = (row, column)
            windy = row in EXPONENT and column in CORRIDOR
            wind = alpha ** EXPONENT[row] if windy else 0.0
            for action, move in enumerate(MOVES.values()):
                here = table[state_of(cell), action]
                here[state_of(_moved(cell, move))] += 1 - wind
                here[state_of(_moved(cell, MOVES["west"]))] += wind
    return table


def _moved(cell: tuple[int, int], move: tuple[int, int]) -> tuple[int, int]:
    """Where a step ends: where it started, if a wall or the edge is in its way, or nowhere from the goal."""
    row, column = cell[0] + move[0], cell[1] + move[1]
    inside = 0 <= row < SIZE and 0 <= column < SIZE
    return (row, column) if cell != GOAL and inside and (row, column) not in WALLS else cell

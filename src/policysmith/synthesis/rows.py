"""Transitions as rows of numbers, x = (s, a, r, s', d): what a generator learns and makes.

A `Layout` says which column is what. Columns are standardised one by one, z = (x - mean) / (deviation +
1e-5); the flag d that the task ended is 0 or 1 and stays as it is, and what a generator makes of it counts as
true above 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError, ShapeError
from policysmith.networks.normalizers import Normalizer

ENDED = 0.5
"""A made flag above this says that the task ended."""

SMALLEST_DEVIATION = 1e-5
"""What is added to a column's deviation; all that a constant column has."""


@dataclass(frozen=True)
class Layout:
    """The columns of a packed transition; `terminals` says whether the flag of the task's end is one of
    them."""

    observation_size: int
    action_size: int
    terminals: bool = True

    @classmethod
    def of(cls, transitions: Mapping[str, Tensor], *, terminals: bool = True) -> Layout:
        """The layout of these transitions.

        Raises `DataError` for actions that are not real numbers, and `ShapeError` for observations or actions
        that are no vectors.
        """
        for key in ("observation", "action"):
            if key not in transitions:
                raise _missing(key, "")
        action = transitions["action"]
        if not isinstance(transitions["observation"], Tensor):
            raise DataError(
                "the observations have parts",
                where=", ".join(map(str, transitions["observation"].keys())),
                expected="one vector per observation",
                cure="encode pictures first, and take the vectors as observations",
            )
        if not action.is_floating_point():
            raise DataError(
                f"the actions are {str(action.dtype).removeprefix('torch.')}: discrete",
                expected="real numbers, of which numbers in between are actions too",
                cure="turn each action into a one-hot vector first, and take the largest of a made one",
            )
        sizes = []
        for key in ("observation", "action"):
            if transitions[key].dim() != 2:
                raise ShapeError(f"'{key}' has shape {list(transitions[key].shape)}", expected="[row, width]")
            sizes.append(transitions[key].shape[1])
        return cls(sizes[0], sizes[1], terminals)

    @property
    def widths(self) -> dict[str, int]:
        """Columns of each key, in order."""
        widths = {
            "observation": self.observation_size,
            "action": self.action_size,
            "reward": 1,
            "next_observation": self.observation_size,
        }
        return widths | ({"terminated": 1} if self.terminals else {})

    @property
    def size(self) -> int:
        """Columns of a row."""
        return sum(self.widths.values())

    @property
    def names(self) -> list[str]:
        """What each column is called."""
        return [
            f"{key} {number}" if key not in ("reward", "terminated") else key
            for key, width in self.widths.items()
            for number in range(width)
        ]

    def pack(self, transitions: Mapping[str, Tensor]) -> Float[Tensor, "row column"]:
        """The transitions as rows.

        Raises `DataError` for a key that is missing, for a value that is not finite (naming its column), and
        for ends of the task where the layout has no column for them; `ShapeError` for other widths.
        """
        for key in self.widths:
            if key not in transitions:
                raise _missing(key, f"rows of {self.size} numbers: {self._described}")
        rows = len(transitions["action"])
        parts = []
        for key, width in self.widths.items():
            part = transitions[key].float().reshape(rows, -1)
            if part.shape[1] != width:
                raise ShapeError(
                    f"'{key}' has {part.shape[1]} columns", expected=f"{width}: {self._described}"
                )
            parts.append(part)
        packed = torch.cat(parts, dim=1)
        self.check(packed)
        if not self.terminals and bool(transitions.get("terminated", torch.zeros(0)).any()):
            raise DataError(
                f"{int(transitions['terminated'].sum())} transitions end the task, and ends are not modelled",
                expected="transitions without ends, as of tasks that only a time limit cuts",
                cure="model them (terminals=True)",
            )
        return packed

    def unpack(self, rows: Float[Tensor, "row column"]) -> dict[str, Tensor]:
        """The transitions in the rows; none ends the task where ends are not modelled.

        Raises `ShapeError` for rows of another width.
        """
        if rows.dim() != 2 or rows.shape[1] != self.size:
            raise ShapeError(
                f"rows of shape {list(rows.shape)} are no transitions of this layout",
                expected=f"[row, {self.size}]: {self._described}",
                cure=f"'terminated' is {'one' if self.terminals else 'none'} of the columns (terminals)",
            )
        keys, widths = zip(*self.widths.items(), strict=True)
        parts = dict(zip(keys, rows.split(list(widths), dim=1), strict=True))
        parts["reward"] = parts["reward"][:, 0]
        ended = parts.get("terminated")
        parts["terminated"] = (
            rows.new_zeros(len(rows), dtype=torch.bool) if ended is None else ended[:, 0] > ENDED
        )
        return parts

    def check(self, rows: Float[Tensor, "row column"]) -> None:
        """Raise `DataError` naming the first column with a value that is not finite."""
        finite = rows.isfinite()
        if not bool(finite.all()):
            row, column = (~finite).nonzero()[0].tolist()
            raise DataError(
                f"the column '{self.names[column]}' has a value that is not finite",
                where=f"transition {row}",
                cure="repair the data or drop these transitions",
            )

    def constant(self, rows: Float[Tensor, "row column"]) -> list[str]:
        """Names of the columns that never vary, but for the flag: made rows have their value too."""
        varies = rows.amax(0) > rows.amin(0)
        return [
            name
            for name, moves in zip(self.names, varies.tolist(), strict=True)
            if not moves and name != "terminated"
        ]

    @property
    def _described(self) -> str:
        return ", ".join(f"{width} of {key}" for key, width in self.widths.items())


@torch.no_grad()
def fit_columns(
    normalizer: Normalizer,
    layout: Layout,
    rows: Float[Tensor, "row column"],
    *,
    range_scaled: bool = False,
    raw_reward: bool = False,
) -> Normalizer:
    """Fit the scaling of every column but the flag's, which stays as it is; returns it.

    To mean 0 and unbiased deviation 1, or with `range_scaled` to [-1, 1]. A column that never varies gets the
    smallest deviation, so that what is made in it is its one value. `raw_reward` leaves the reward as it is.
    Source: Lu et al. 2023 (SynthER), their code.
    """
    layout.check(rows)
    if range_scaled:
        normalizer.fit_range(rows)
    else:
        normalizer.fit_moments(rows, epsilon=SMALLEST_DEVIATION)
    normalizer.scale[rows.amax(0) == rows.amin(0)] = SMALLEST_DEVIATION
    raw = {"terminated", *(["reward"] if raw_reward else [])}
    kept = torch.tensor([name in raw for name in layout.names])
    normalizer.offset[kept] = 0.0
    normalizer.scale[kept] = 1.0
    return normalizer


def _missing(key: str, expected: str) -> DataError:
    return DataError(
        f"the transitions have no '{key}'",
        expected=expected,
        cure="leave ends out of the model (terminals=False) where the task has none"
        if key == "terminated"
        else "",
    )

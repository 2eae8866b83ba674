"""Pictures of a replay, each kept once: what is seen after a step is what is seen before the next one.

    row n        sees     frames n - time + 1 ... n             (time 1: the frame n)
    after it     sees     frames n - time + 2 ... n + 1         the same, one further on

so that a row costs one frame, however many it is read from. Nobody is asked whether an episode goes on. Where
a step does not begin with what the one before ended with, what that one ended with is put aside, be it at a
reset or after steps that were lost; and so are the frames of pictures that are no such stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

Make = Callable[[str, Sequence[int]], Tensor]
"""(name, shape) -> uint8 memory."""

SEEN, AFTER = 0, 1
"""The two observations of a row, before its action and after it."""

SPARES = 16
"""Frames that are made room for aside, at first."""


class FrameRing:
    """The frames of the last `length` rows of `columns` environments side by side, for one camera.

    `shape`: of an observation, [height, width, 3] or [time, height, width, 3]. `make` gives memory, under
    `name` and what it is for.

    A place is where a frame lies: below `slots` in the ring of the row's own column, from there on aside,
    where a frame stays for as long as a row names it.
    """

    def __init__(self, length: int, columns: int, shape: Sequence[int], *, name: str, make: Make) -> None:
        self.length, self.columns, self.shape = length, columns, tuple(shape)
        self.name, self.make = name, make
        self.time = shape[0] if len(shape) == 4 else 1
        self.frame = self.shape[-3:]
        # The oldest row reaches back to `time` - 1 frames before it, the newest one frame ahead.
        self.slots = length + self.time
        self.ring = make(name, (self.slots, columns, *self.frame))
        self.places = torch.zeros(2, length, columns, self.time, dtype=torch.long)
        self.aside = torch.empty(0, *self.frame, dtype=torch.uint8)
        self.uses = torch.zeros(0, dtype=torch.long)

    def add(self, number: int, seen: UInt8[Tensor, "column *shape"], after: Tensor) -> None:
        """The row with this number since the beginning, in every column; numbers come one after another."""
        seen, after = (part.reshape(self.columns, self.time, *self.frame) for part in (seen, after))
        row, here, ahead = number % self.length, number % self.slots, (number + 1) % self.slots
        before = (number - 1) % self.length
        if number:
            expected = self.places[AFTER, before].clone()
            goes_on = (self._frames(expected, torch.arange(self.columns)) == seen).flatten(1).all(1)
            self._begin_anew(before, here, (~goes_on).nonzero()[:, 0])
        if number >= self.length:
            self._release(self.places[:, row])
        for column in range(self.columns):
            if number and goes_on[column]:
                places = self._named(expected[column])
            else:
                self.ring[here, column] = seen[column, -1]
                places = self._places(seen[column], here)
            self.places[SEEN, row, column] = places
            self.ring[ahead, column] = after[column, -1]
            if torch.equal(after[column, :-1], seen[column, 1:]):
                self.places[AFTER, row, column, :-1] = self._named(places[1:])
                self.places[AFTER, row, column, -1] = ahead
            else:
                self.places[AFTER, row, column] = self._places(after[column], ahead)

    def at(
        self, which: int, row: Int[Tensor, "row"], column: Int[Tensor, "row"]
    ) -> UInt8[Tensor, "row *shape"]:
        """What was `SEEN` at places of the replay's ring, or `AFTER` it."""
        return self._frames(self.places[which, row, column], column).view(-1, *self.shape)

    def clear(self) -> None:
        """Forget everything."""
        self.uses.zero_()

    def state_dict(self, written: int) -> dict[str, Any]:
        """The frames of so many rows, and where each lies."""
        return {
            "shape": list(self.shape),
            "ring": self.ring[: written + self.time],
            "places": self.places[:, :written],
            "aside": self.aside,
            "uses": self.uses,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.ring[: len(state["ring"])] = state["ring"]
        self.places[:, : state["places"].shape[1]] = state["places"]
        self.aside, self.uses = state["aside"].clone(), state["uses"].clone()

    def _frames(self, places: Int[Tensor, "row time"], column: Int[Tensor, "row"]) -> Tensor:
        inside = places < self.slots
        chosen = places.clamp(max=self.slots - 1) * self.columns + column[:, None]
        found = self.ring.flatten(0, 1).index_select(0, chosen.flatten()).view(*places.shape, *self.frame)
        if not inside.all():
            found[~inside] = self.aside[places[~inside] - self.slots]
        return found

    def _begin_anew(self, before: int, here: int, columns: Int[Tensor, "column"]) -> None:
        """Put aside what the row before ended with, where the new one begins with something else."""
        for column in columns.tolist():
            places = self.places[AFTER, before, column]
            ends = places == here
            kept = self._put_aside(self.ring[here, column])
            self.uses[kept - self.slots] += int(ends.sum()) - 1
            places[ends] = kept

    def _places(self, frames: UInt8[Tensor, "time *frame"], newest: int) -> Int[Tensor, "time"]:
        """Where the frames of a stack lie whose newest is in the ring; a stack begins with copies of one."""
        return torch.tensor(
            [newest if torch.equal(one, frames[-1]) else self._put_aside(one) for one in frames]
        )

    def _put_aside(self, frame: Tensor) -> int:
        """A place aside for a frame that one row names once."""
        free = (self.uses == 0).nonzero()[:1, 0].tolist()
        if not free:
            free = [len(self.uses)]
            room = max(SPARES, 2 * len(self.uses))
            larger = self.make(f"{self.name}.aside-{room}", (room, *self.frame))
            larger[: len(self.aside)] = self.aside
            self.aside = larger
            self.uses = torch.cat([self.uses, torch.zeros(room - len(self.uses), dtype=torch.long)])
        self.aside[free[0]], self.uses[free[0]] = frame, 1
        return self.slots + free[0]

    def _named(self, places: Int[Tensor, "time"]) -> Int[Tensor, "time"]:
        """The same places, named once more."""
        self._count(places, 1)
        return places

    def _release(self, places: Tensor) -> None:
        """A row is overwritten, and names its frames no longer."""
        self._count(places, -1)

    def _count(self, places: Tensor, change: int) -> None:
        aside = places[places >= self.slots] - self.slots
        if len(aside):
            self.uses.index_add_(0, aside, torch.full_like(aside, change))

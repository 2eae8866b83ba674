"""Drawing items in passes: each once, in a fresh random order, before any comes again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from policysmith.common.errors import DataError

Item = TypeVar("Item", covariant=True)

BATCHES_AT_A_TIME = 16
"""So many batches are drawn together and sorted by length among themselves."""


class Fingerprinted(Protocol[Item]):
    """A sequence that can tell whether it is the one of a saved run."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    @property
    def fingerprint(self) -> str:
        """A hash of the contents, the same wherever they are the same."""
        ...


class PassSampler(Generic[Item]):
    """Draws items, each once per pass in a fresh random order; its state is the rest of the pass.

    The same contract as `experience.windows.WindowSampler`: `DataError` where a saved state is of other data.
    """

    def __init__(self, items: Fingerprinted[Item], *, rng: torch.Generator) -> None:
        self.items, self.rng = items, rng
        self._order = torch.zeros(0, dtype=torch.long)
        self._fingerprint = items.fingerprint

    def draw(self, count: int) -> Int[Tensor, "count"]:
        """The places of the next `count` items."""
        chosen, self._order = self.coming(count), self._order[count:]
        return chosen

    def coming(self, count: int) -> Int[Tensor, "count"]:
        """The places of the items that the next `count` draws will bring; nothing is drawn yet."""
        while len(self._order) < count:
            self._order = torch.cat([self._order, torch.randperm(len(self.items), generator=self.rng)])
        return self._order[:count]

    def sample(self, count: int) -> Sequence[Item]:
        """The next `count` items."""
        return [self.items[index] for index in self.draw(count).tolist()]

    def state_dict(self) -> dict[str, Any]:
        """What is left of the pass, and of which items."""
        return {"order": self._order, "data": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a pass."""
        if state["data"] != self._fingerprint:
            raise DataError(
                f"the data are not those of the saved run ({self._fingerprint}; saved: {state['data']})",
                cure="resume with the same data, in the same order",
            )
        self._order = state["order"]


class SimilarLengths(PassSampler[Item]):
    """Draws batches of items of similar length, each item once per pass.

    The order of a pass is random. Of every `BATCHES_AT_A_TIME` batches the items are sorted by their length,
    cut into batches, and the batches given in random order: little of a batch is padding, and short and long
    follow each other by chance.
    """

    def __init__(self, items: Fingerprinted[Item], *, rng: torch.Generator) -> None:
        super().__init__(items, rng=rng)
        self._waiting = torch.zeros(0, 0, dtype=torch.long)

    def length(self, place: int) -> int:
        """How long the item at `place` is, in whatever unit."""
        raise NotImplementedError

    def batch(self, count: int) -> list[int]:
        """The places of the next batch, of `count` items."""
        if len(self._waiting) == 0 or self._waiting.shape[1] != count:
            drawn = self.draw(count * BATCHES_AT_A_TIME).tolist()
            batches = torch.tensor(sorted(drawn, key=self.length)).view(BATCHES_AT_A_TIME, count)
            self._waiting = batches[torch.randperm(BATCHES_AT_A_TIME, generator=self.rng)]
        chosen, self._waiting = self._waiting[0], self._waiting[1:]
        return chosen.tolist()

    def sample(self, count: int) -> Sequence[Item]:
        """The next batch, of `count` items."""
        return [self.items[place] for place in self.batch(count)]

    def state_dict(self) -> dict[str, Any]:
        """What is left of the pass, and of the batches that were drawn together."""
        return super().state_dict() | {"waiting": self._waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a pass."""
        super().load_state_dict(state)
        self._waiting = state["waiting"]

"""Drawing items in passes: each once, in a fresh random order, before any comes again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from policysmith.common.errors import DataError

Item = TypeVar("Item", covariant=True)


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
        while len(self._order) < count:
            self._order = torch.cat([self._order, torch.randperm(len(self.items), generator=self.rng)])
        chosen, self._order = self._order[:count], self._order[count:]
        return chosen

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

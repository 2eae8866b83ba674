"""Examples to be imitated: what a language policy is asked, and what it is to write.

    Examples([Example("2+3=", "5"), Example("what is 7-4?", "three")])

An example is plain text. A policy puts its prompt as a question and ends its answer with its end token; so
whatever is asked later in the same words is answered in the manner of the examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from policysmith.common.errors import DataError
from policysmith.experience.passes import PassSampler

BATCHES_AT_A_TIME = 16
"""So many batches are drawn together and sorted by length among themselves."""


@dataclass(frozen=True)
class Example:
    """A `prompt`, which is given, and the `answer`, which is learnt; no end token, which is added."""

    prompt: str
    answer: str


class Examples(Sequence[Example]):
    """A set of examples in a fixed order. Raises `DataError` naming the one that lacks a prompt."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._examples = list(examples)
        if not self._examples:
            raise DataError("there are no examples", expected="at least one")
        for number, example in enumerate(self._examples):
            if not example.prompt:
                raise DataError("an example has no prompt", where=f"example {number}")
        rows = json.dumps([astuple(example) for example in self._examples])
        self.fingerprint = hashlib.sha256(rows.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        """An example, or the examples of a slice."""
        if isinstance(index, slice):
            return Examples(self._examples[index])
        return self._examples[index]


class ExampleSampler(PassSampler[Example]):
    """Draws batches of examples of similar length, each example once per pass.

    The order of a pass is random. Of every `BATCHES_AT_A_TIME` batches the examples are sorted by their
    length in characters, cut into batches, and the batches given in random order: little of a batch is
    padding, and short and long follow each other by chance.
    """

    def __init__(self, examples: Examples, *, rng: torch.Generator) -> None:
        super().__init__(examples, rng=rng)
        self._waiting = torch.zeros(0, 0, dtype=torch.long)

    def sample(self, count: int) -> Sequence[Example]:
        """The next batch, of `count` examples."""
        if len(self._waiting) == 0 or self._waiting.shape[1] != count:
            self._waiting = self._batches(count)
        chosen, self._waiting = self._waiting[0], self._waiting[1:]
        return [self.items[index] for index in chosen.tolist()]

    def _batches(self, count: int) -> torch.Tensor:
        drawn = self.draw(count * BATCHES_AT_A_TIME).tolist()
        drawn.sort(key=lambda index: len(self.items[index].prompt) + len(self.items[index].answer))
        batches = torch.tensor(drawn).view(BATCHES_AT_A_TIME, count)
        return batches[torch.randperm(BATCHES_AT_A_TIME, generator=self.rng)]

    def state_dict(self) -> dict[str, Any]:
        """What is left of the pass, and of the batches that were drawn together."""
        return super().state_dict() | {"waiting": self._waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a pass."""
        super().load_state_dict(state)
        self._waiting = state["waiting"]

"""Examples to be imitated: what a language policy is asked, and what it is to write.

    Examples([Example("2+3=", "5"), Example("what is 7-4?", "three")])

An example is plain text. A policy puts its prompt as a question and ends its answer with its end token; so
whatever is asked later in the same words is answered in the manner of the examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from policysmith.common.errors import DataError
from policysmith.experience.passes import SimilarLengths


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


class ExampleSampler(SimilarLengths[Example]):
    """Draws batches of examples of similar length in characters, each example once per pass."""

    def length(self, place: int) -> int:
        """Characters of the prompt and the answer."""
        return len(self.items[place].prompt) + len(self.items[place].answer)

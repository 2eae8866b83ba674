"""Arithmetic for a small model over characters: sums in a line, worked out step by step.

    prompt     12+73-35=
    solution   12+73=85;85-35=50;#50

The questions are reasoning-gym's `chain_sum`, written without words and spaces, so that a question with its
solution takes some thirty tokens. The solution is a scratchpad of running totals; what follows `#` is the
answer. A level is the number of terms and of their digits: each further term makes the solution a step longer
and each digit makes all its steps harder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import derive, generator, numpy_generator
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts, from_task
from policysmith.rewards.verifiers import after, numeric

MARKER = "#"
"""Stands before the answer."""

right = numeric(after(MARKER))
"""The verifier: whether the number behind the last `#` is the answer."""

_TERM = re.compile(r"[+-]?\d+")
_BLOCK = 1000
"""Questions made at a time; another number makes other questions."""


@dataclass(frozen=True)
class Level:
    """Sums and differences of `terms` numbers of `digits` digits each."""

    terms: int
    digits: int

    def __post_init__(self) -> None:
        if self.terms < 2 or self.digits < 1:
            raise SettingError(
                f"{self.terms} terms of {self.digits} digits", expected="2 terms or more, of 1 digit or more"
            )

    def __str__(self) -> str:
        return f"{self.terms} terms of {self.digits} digit{'s' if self.digits > 1 else ''}"


@dataclass(frozen=True)
class Mixture:
    """Levels with their shares of the questions, which are in proportion and need not sum to one."""

    shares: tuple[tuple[Level, float], ...]

    def __post_init__(self) -> None:
        if not self.shares or min(share for _, share in self.shares) <= 0:
            raise SettingError(f"a mixture of {self.shares}", expected="levels with shares above 0")

    def questions(self, size: int, seed: int, *, held_out: bool = False) -> Prompts:
        """`size` questions, the levels in random order, each as often as its share says (rounded)."""
        whole = sum(share for _, share in self.shares)
        edges, passed = [0], 0.0
        for _, share in self.shares:
            passed += share
            edges.append(round(size * passed / whole))
        prompts = [
            prompt
            for (level, _), begin, end in zip(self.shares, edges, edges[1:], strict=False)
            if end > begin
            for prompt in questions(level, end - begin, seed, held_out=held_out)
        ]
        order = torch.randperm(size, generator=generator(seed, "mixture")).tolist()
        return Prompts(prompts[index] for index in order)


def questions(level: Level, size: int, seed: int, *, held_out: bool = False) -> Prompts:
    """`size` questions of a level, the same for the same arguments; the first ones also of a smaller size.

    A question is held out or is not, by a hash of its text (one in five is): what is asked with `held_out`
    never occurs without it, whatever the seeds. `data` has the `level` and the `solution`.
    """
    return Prompts(islice(_questions(level, seed, held_out), size))


def solution(question: str) -> str:
    """The scratchpad of running totals that works out `question`, with the answer behind the marker.

    Raises `DataError` for what is no sum of two numbers or more ending in `=`.
    """
    terms = _TERM.findall(question)
    if len(terms) < 2 or "".join(terms) + "=" != question:
        raise DataError(f"{question!r} is not a question", expected="such as 12+73-35=")
    total, steps = int(terms[0]), []
    for term in terms[1:]:
        now = total + int(term)
        steps.append(f"{total}{term}={now};")
        total = now
    return "".join(steps) + f"{MARKER}{total}"


def worked_examples(prompts: Prompts) -> Examples:
    """Every question with its solution as the answer to be written."""
    return Examples(Example(str(prompt.text), prompt.data["solution"]) for prompt in prompts)


def careless_examples(prompts: Prompts, slips: float, seed: int) -> Examples:
    """Every question with a solution in which each total is off by 1 to 3 with probability `slips`.

    The work goes on from the wrong total. Taught to a model that can do sums, they make one that knows how
    and does not take care: its likeliest answer is right more often than one that is drawn.
    """
    if not 0 <= slips <= 1:
        raise SettingError(f"slips with probability {slips}", expected="between 0 and 1")
    rng = numpy_generator(seed, "slips")

    def work(question: str) -> str:
        terms = _TERM.findall(question)
        total, steps = int(terms[0]), []
        for term in terms[1:]:
            now = total + int(term)
            if rng.random() < slips:
                now += int(rng.choice([-3, -2, -1, 1, 2, 3]))
            steps.append(f"{total}{term}={now};")
            total = now
        return "".join(steps) + f"{MARKER}{total}"

    return Examples(Example(str(prompt.text), work(str(prompt.text))) for prompt in prompts)


def _questions(level: Level, seed: int, held_out: bool) -> Iterator[Prompt]:
    settings = {
        "min_terms": level.terms,
        "max_terms": level.terms,
        "min_digits": level.digits,
        "max_digits": level.digits,
    }
    # The task draws question i from seed + i, so that sets of neighbouring seeds would be nearly the same.
    for number in count():
        from_seed = derive(seed, "chain_sum", level.terms, level.digits, number)
        for entry in from_task("chain_sum", size=_BLOCK, seed=from_seed, **settings):
            text = entry.data["metadata"]["expression"].replace(" ", "") + "="
            if _is_held_out(text) == held_out:
                yield Prompt(text, entry.answer, {"level": level, "solution": solution(text)})


def _is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0

"""Verifiers: whether an answer is right, as 1.0 or 0.0.

A verifier is a function (text, prompt) -> float; `extract` says what part of the text is the answer. Those
made here also tell how they read a text and which answers are the same to them (`AnswerVerifier`), for
methods that compare answers with each other. None of them runs anything that a model wrote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from policysmith.common.errors import DataError
from policysmith.common.extras import require
from policysmith.experience.prompts import Prompt

Verifier = Callable[[str, Prompt], float]
"""(the policy's text, the prompt) -> 1.0 right, 0.0 wrong."""

Extract = Callable[[str], str | None]
"""The part of a text that is its answer; None where there is none."""

Equal = Callable[[str, str], bool]
"""Whether two answers are the same, in either order."""


@dataclass(frozen=True)
class AnswerVerifier:
    """A verifier that also tells how it reads a text and which answers are the same to it."""

    verify: Verifier
    extract: Extract
    equal: Equal

    def __call__(self, text: str, prompt: Prompt) -> float:
        """1.0 where the answer is right, else 0.0."""
        return self.verify(text, prompt)


_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


def whole(text: str) -> str | None:
    """The text itself, without the space around it; None where nothing is left."""
    return text.strip() or None


def last_line(text: str) -> str | None:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def last_number(text: str) -> str | None:
    """The last number in the text, thousands separators removed."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def between(begin: str, end: str) -> Extract:
    """What stands between the last `begin` and the next `end`, such as answer tags."""

    def extract(text: str) -> str | None:
        _, marker, rest = text.rpartition(begin)
        inside, closed, _ = rest.partition(end)
        return inside.strip() or None if marker and closed else None

    return extract


def after(marker: str) -> Extract:
    """What follows the last `marker` on its line."""

    def extract(text: str) -> str | None:
        _, found, rest = text.rpartition(marker)
        lines = rest.strip().splitlines()
        return lines[0].strip() if found and lines else None

    return extract


def either(*extracts: Extract) -> Extract:
    """What the first of these finds that finds something."""
    return lambda text: next((found for one in extracts if (found := one(text)) is not None), None)


def exact(extract: Extract = whole) -> AnswerVerifier:
    """Right where the answer is the reference, letter by letter."""

    def verify(text: str, prompt: Prompt) -> float:
        return float(extract(text) == str(_reference(prompt)).strip())

    return AnswerVerifier(verify, extract, _same_text)


def numeric(extract: Extract = last_number, *, tolerance: float = 1e-6) -> AnswerVerifier:
    """Right where the answer is a number within `tolerance` of the reference, relative or absolute."""

    def close(a: float, b: float) -> bool:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)

    def verify(text: str, prompt: Prompt) -> float:
        wanted = float(str(_reference(prompt)).replace(",", ""))
        given = _number(extract(text))
        return float(given is not None and close(given, wanted))

    def equal(a: str, b: str) -> bool:
        first, second = _number(a), _number(b)
        return a == b if first is None or second is None else close(first, second)

    return AnswerVerifier(verify, extract, equal)


def mathematical(extract: Extract = whole) -> AnswerVerifier:
    """Right where the answer equals the reference as mathematics (LaTeX or plain), by `math-verify`."""
    package = require("math_verify", extra="language")

    def verify(text: str, prompt: Prompt) -> float:
        wanted = package.parse(str(_reference(prompt)))
        if not wanted:
            raise DataError(f"the reference answer {_reference(prompt)!r} cannot be read as mathematics")
        given = package.parse(extract(text) or "")
        return float(bool(given) and package.verify(wanted, given))

    def equal(a: str, b: str) -> bool:
        first, second = package.parse(a), package.parse(b)
        if not (first and second):
            return a == b
        # The package takes its first argument for the reference, which need not give the same as its second.
        return bool(package.verify(first, second) and package.verify(second, first))

    return AnswerVerifier(verify, extract, equal)


def task(extract: Extract = whole, *, threshold: float = 1.0) -> AnswerVerifier:
    """Right where the procedural task's own checker gives the answer `threshold` or more."""

    def verify(text: str, prompt: Prompt) -> float:
        if "score" not in prompt.data:
            raise DataError(
                "the prompt has no checker of its own", cure="make it by `experience.prompts.from_task`"
            )
        answer = extract(text)
        return float(answer is not None and prompt.data["score"](answer) >= threshold)

    return AnswerVerifier(verify, extract, _same_text)


def _number(answer: str | None) -> float | None:
    try:
        return float((answer or "").replace(",", ""))
    except ValueError:
        return None


def _same_text(a: str, b: str) -> bool:
    return a == b


def _reference(prompt: Prompt) -> object:
    if prompt.answer is None:
        raise DataError(
            "the prompt has no reference answer",
            where=f"'{str(prompt.text)[:60]}'",
            cure="give an answer column",
        )
    return prompt.answer

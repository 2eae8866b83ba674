"""A world with a tool: a question is asked, a calculator may be called, and an answer ends the episode.

    world     123+4567=
    policy    ?123+4567          a call: what stands behind the mark is worked out
    world     4690
    policy    #4690              an answer: the end, and what it was worth

What a policy can work out by itself needs no call, and a call may cost something; when it is worth one is
what there is to learn. Sums are of its own making, from one digit, which are soon known by heart, to several;
or questions are those of any task of reasoning-gym, by the task's own checker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import torch

from policysmith.common.calculation import calculated
from policysmith.common.errors import DataError, SettingError, UnknownNameError
from policysmith.common.extras import require
from policysmith.common.rng import numpy_generator
from policysmith.worlds.text import Episode, Player, TextStep

CALL, ANSWER = "?", "#"
"""What stands before an expression, and before an answer."""

_NUMBER = re.compile(r"[-+]?[0-9]{1,200}(\.[0-9]{1,200})?")
_LARGEST_QUESTION = 90
"""Digits of all numbers together, so that a question can always be worked out."""


def same_number(text: str, answer: str) -> float:
    """1 where `text` is the number `answer` and nothing else, however it is written; 0 otherwise."""
    text = text.strip()
    return float(bool(_NUMBER.fullmatch(text)) and Decimal(text) == Decimal(answer))


class Calculator:
    """Answer a question, with a calculator or without.

    What the policy says is an answer where the mark `answer` stands in it, else a call where the mark `call`
    does; what counts is the rest of the line behind the last mark. A call is told its value, or what hinders
    (division by zero, unreadable, too long, ...); any other text is told the two forms. The episode ends with
    an answer, worth what `verify(text, right answer)` says of it, or after `turns`. Each call costs `cost`,
    whatever comes of it.

    - `operations`, `terms`, `digits`: of the questions. A question has `terms` numbers with operations of
      `operations` (of `+-*`) between; its numbers have all the same count of digits, from 1 to `digits`.
    - `task`: in their place a task of reasoning-gym, made with `task_options`, by its own checker.
    - `call`, `answer`: the marks, such as `calculate:` and `answer:` for a model that writes prose.

    `info` has `success` (a value of 1 or more), `calls` so far, and `digits` of the question.
    Raises `SettingError` for settings that make no question, `UnknownNameError` for an unknown task.
    """

    def __init__(
        self,
        *,
        operations: str = "+-",
        terms: int = 2,
        digits: int = 3,
        turns: int = 4,
        cost: float = 0.0,
        call: str = CALL,
        answer: str = ANSWER,
        task: str = "",
        verify: Callable[[str, str], float] = same_number,
        **task_options: Any,
    ) -> None:
        _check(operations, terms, digits, turns, cost)
        if not call or not answer or call in answer or answer in call:
            raise SettingError(f"the marks {call!r} and {answer!r}", expected="two that cannot be confused")
        if task_options and not task:
            raise SettingError(
                f"options {sorted(task_options)}, which the calculator does not have",
                expected="operations, terms, digits, turns, cost, call, answer, or task with its own options",
            )
        self.operations, self.terms, self.digits = operations, terms, digits
        self.turns, self.cost = turns, cost
        self.marks = {"call": call, "answer": answer}
        self.verify = verify
        self.task, self.task_options = task, task_options
        if task:
            self._task(0)  # an unknown one is told at once

    def reset(self, seed: int) -> TextStep:
        """Ask a question."""
        self.left, self.calls = self.turns, 0
        question = self._from_task(seed) if self.task else self._sum(seed)
        return TextStep(question, info=self._info())

    def step(self, text: str) -> TextStep:
        """Judge an answer, or work out an expression."""
        self.left -= 1
        said = _behind(self.marks["answer"], text)
        asked = _behind(self.marks["call"], text)
        if said is not None:
            worth = float(self._worth(said))
            reply = "right" if worth >= 1 else f"wrong: {self.right}"
            return TextStep(reply, reward=worth, done=True, info=self._info(success=worth >= 1))
        self.calls += asked is not None
        reward = 0.0 if asked is None else -float(self.cost)
        if self.left == 0:
            return TextStep(f"no answer: {self.right}", reward=reward, done=True, info=self._info())
        return TextStep(self._forms() if asked is None else _worked_out(asked), reward, info=self._info())

    def _info(self, *, success: bool = False) -> dict[str, Any]:
        told = {"success": success, "calls": self.calls}
        return told if self.task else {**told, "digits": self.size}

    def _forms(self) -> str:
        return f"{self.marks['call']}EXPRESSION or {self.marks['answer']}ANSWER"

    # ---- questions -------------------------------------------------------------------------------------

    def _sum(self, seed: int) -> str:
        rng = numpy_generator(seed, "calculator")
        self.size = int(rng.integers(1, self.digits + 1))
        low, high = (0, 10) if self.size == 1 else (10 ** (self.size - 1), 10**self.size)
        numbers = [str(rng.integers(low, high)) for _ in range(self.terms)]
        between = [str(rng.choice(list(self.operations))) for _ in numbers[1:]]
        expression = numbers[0] + "".join(map("".join, zip(between, numbers[1:], strict=True)))
        self.right = calculated(expression)
        self._worth = lambda text: self.verify(text, self.right)
        return f"{expression}="

    def _from_task(self, seed: int) -> str:
        task = self._task(seed)
        entry = task[0]
        self.right = str(entry["answer"])
        self._worth = lambda text: task.score_answer(text, entry)
        return str(entry["question"])

    def _task(self, seed: int) -> Any:
        gym = require("reasoning_gym", extra="language")
        try:
            return gym.create_dataset(self.task, size=1, seed=seed % 2**31, **self.task_options)
        except ValueError as error:
            if "not registered" not in str(error):
                raise
            raise UnknownNameError(f"reasoning-gym has no task '{self.task}'") from error
        except AssertionError as error:  # how it refuses settings out of their range
            raise SettingError(f"the task '{self.task}' refuses its options: {error}") from error


def asking(rng: torch.Generator, *, chance: float = 0.5, slips: float = 0.0) -> Player:
    """A player of sums who calls with probability `chance` whatever is asked, and else answers by heart.

    What it writes is right, but for a share `slips` of the answers by heart, which are off by 1 to 9. Taught
    to a model that can copy and cannot do sums, it makes one that knows the forms, but not when to call.
    """

    def drawn() -> float:
        return float(torch.rand((), generator=rng))

    def say(episode: Episode) -> str:
        if len(episode.steps) > 1:
            return ANSWER + episode.steps[-1].observation
        expression = episode.steps[0].observation.removesuffix("=")
        if drawn() < chance:
            return CALL + expression
        off = 1 + int(9 * drawn()) if drawn() < slips else 0
        return f"{ANSWER}{int(calculated(expression)) + off}"

    return say


def _check(operations: str, terms: int, digits: int, turns: int, cost: float) -> None:
    if not operations or set(operations) - set("+-*"):
        raise SettingError(f"the operations {operations!r}", expected="some of + - *")
    if terms < 2 or digits < 1 or terms * digits > _LARGEST_QUESTION:
        raise SettingError(
            f"{terms} terms of {digits} digits",
            expected=f"2 terms or more, of 1 digit or more, together at most {_LARGEST_QUESTION} digits",
        )
    if turns < 1 or not 0 <= cost < float("inf"):
        raise SettingError(
            f"{turns} turns, and {cost} for a call", expected="a turn or more, and 0 or more for a call"
        )


def _behind(mark: str, text: str) -> str | None:
    """The rest of the line behind the last `mark`; None where there is none."""
    _, found, rest = text.rpartition(mark)
    return rest.partition("\n")[0].strip() if found else None


def _worked_out(expression: str) -> str:
    try:
        return calculated(expression.removesuffix("="))
    except DataError as error:
        return error.what

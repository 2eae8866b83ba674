"""Scoring a batch of answers: several rewards by name, weighted, and what happens when one breaks.

    score = Scoring({"right": numeric(), "form": form()}, weights={"form": 0.5})
    score(texts, prompts)      Scores: the total per row, and each reward's own column for the log

A reward is a function of one answer, `(text, prompt) -> float`, or of all, marked by `batched`. One that has
`score_samples` (a reward model) is given the tokens themselves where the answers come as `Samples`. One that
raises, returns NaN or None, or does not come back in time is reported with its sample; the run stops, or goes
on with a value in its place, or without the answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError, PolicysmithError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.samples import Samples

OnError = Literal["stop", "replace", "drop"]


@dataclass(frozen=True)
class Scores:
    """`total` [row], the weighted sum; `columns`, each reward as it was given; `problems`, a line each.

    `failed` are the rows that have a problem.
    """

    total: Float[Tensor, "row"]
    columns: Mapping[str, Float[Tensor, "row"]]
    problems: tuple[str, ...] = ()
    failed: frozenset[int] = frozenset()


def batched(reward: Callable[[Sequence[str], Sequence[Prompt]], Sequence[float]]) -> Any:
    """Mark a reward that scores all answers in one call: a model, a judge behind a server."""
    reward.batched = True  # type: ignore[attr-defined]
    return reward


class Scoring:
    """Applies rewards to answers.

    - `weights`: by name, 1 where not given.
    - `workers`: answers are scored by so many threads at a time; 1 is in turn, without time limit.
    - `seconds`: a call that takes longer is a problem (needs `workers` of 2 or more: the thread that hangs is
      left behind).
    - `on_error` "stop" raises `DataError` with the sample; "replace" puts `replacement` and goes on; "drop"
      does too, and whoever samples leaves the answer out (`rewards.scored`).
    """

    def __init__(
        self,
        rewards: Mapping[str, Callable[..., Any]],
        *,
        weights: Mapping[str, float] | None = None,
        workers: int = 1,
        seconds: float | None = None,
        on_error: OnError = "stop",
        replacement: float = 0.0,
    ) -> None:
        if not rewards:
            raise SettingError("no reward was given", expected="at least one")
        if unknown := sorted(set(weights or {}) - set(rewards)):
            raise SettingError(f"weights for {unknown}", expected=f"among {sorted(rewards)}")
        if workers < 1 or (seconds is not None and (seconds <= 0 or workers < 2)):
            raise SettingError(
                f"{workers} workers with a limit of {seconds} seconds",
                expected="1 or more; a limit above 0 needs 2 or more",
            )
        self.rewards, self.weights = dict(rewards), {name: 1.0 for name in rewards} | dict(weights or {})
        self.workers, self.seconds = workers, seconds
        self.on_error, self.replacement = on_error, replacement

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> Scores:
        """The scores of each answer to its prompt."""
        return self._score(texts, prompts, None)

    def of_samples(self, samples: Samples) -> Scores:
        """The scores of answers that were sampled, on their tokens where a reward reads those."""
        return self._score(samples.texts, samples.about, samples)

    def _score(self, texts: Sequence[str], prompts: Sequence[Prompt], samples: Samples | None) -> Scores:
        if len(texts) != len(prompts):
            raise DataError(f"{len(texts)} answers for {len(prompts)} prompts")
        columns, problems, failed = {}, [], set()
        for name, reward in self.rewards.items():
            if samples is not None and hasattr(reward, "score_samples"):
                outcomes = self._together(name, partial(reward.score_samples, samples), len(texts))
            elif hasattr(reward, "batched"):
                outcomes = self._together(name, partial(reward, texts, prompts), len(texts))
            else:
                outcomes = self._one_by_one(reward, texts, prompts)
            column = torch.zeros(len(texts))
            for row, outcome in enumerate(outcomes):
                problem = _problem(outcome)
                if problem:
                    failed.add(row)
                    problems.append(self._report(name, problem, row, texts[row], prompts[row], outcome))
                column[row] = self.replacement if problem else float(outcome)
            columns[name] = column
        total = sum(
            (self.weights[name] * column for name, column in columns.items()), torch.zeros(len(texts))
        )
        return Scores(total, columns, tuple(problems), frozenset(failed))

    def _together(self, name: str, call: Callable[[], Any], rows: int) -> list[Any]:
        try:
            outcomes = call()
            found = list(outcomes)
        except PolicysmithError:
            raise
        except Exception as error:  # a reward is anybody's code: whatever it raises is told with its sample
            return [error] * rows
        shape = list(getattr(outcomes, "shape", [len(found)]))
        if shape != [rows]:
            raise DataError(
                f"the reward '{name}' returned "
                + (f"{len(found)} values" if len(shape) == 1 else f"an array of shape {shape}"),
                where=f"{rows} answers",
                expected="one number for each",
            )
        return found

    def _one_by_one(self, reward: Any, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Any]:
        def call(text: str, prompt: Prompt) -> Any:
            try:
                return reward(text, prompt)
            except Exception as error:  # as above
                return error

        if self.workers == 1:
            return [call(*pair) for pair in zip(texts, prompts, strict=True)]
        return _in_threads(call, list(zip(texts, prompts, strict=True)), self.workers, self.seconds)

    def _report(self, name: str, problem: str, row: int, text: str, prompt: Prompt, cause: Any) -> str:
        error = DataError(
            f"the reward '{name}' {problem}",
            where=f"row {row}: prompt {str(prompt.text)[:80]!r}, answer {text[:80]!r}",
            cure="mend the reward, or set on_error='replace' (or 'drop') to go on without it",
        )
        if self.on_error == "stop":
            raise error from (cause if isinstance(cause, BaseException) else None)
        return str(error)


def _in_threads(
    call: Callable[..., Any], jobs: list[tuple[str, Prompt]], workers: int, seconds: float | None
) -> list[Any]:
    """The outcome of each job, at most `workers` at a time; a `TimeoutError` where one took too long.

    Daemon threads and no pool, which would wait at the interpreter's end for a call that never comes back.
    """
    outcomes: list[Any] = [None] * len(jobs)
    found: list[Any] = []
    for start in range(0, len(jobs), workers):
        running = []
        for row in range(start, min(start + workers, len(jobs))):

            def work(row: int = row) -> None:
                outcomes[row] = (call(*jobs[row]),)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            running.append((row, thread))
        deadline = None if seconds is None else time.monotonic() + seconds
        for row, thread in running:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            late = TimeoutError(f"no answer within {seconds} seconds")
            found.append(late if thread.is_alive() else outcomes[row][0])
    return found


def _problem(outcome: Any) -> str:
    if isinstance(outcome, BaseException):
        return f"raised {type(outcome).__name__}: {outcome}"
    try:
        value = float(outcome)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        return f"returned {outcome!r:.40}, which is no number"
    return "" if math.isfinite(value) else f"returned {value}"

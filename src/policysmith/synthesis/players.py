"""Who plays for preference pairs: a target that writes, tools, a judge, a reward of pairs, feedback.

    propose(prompts, instruction, rng)             the target's answers to each prompt
    tool(prompt, candidates)                       what is known about them: text, a mapping, or None
    judge(prompt, candidates, knowledge, rubric)   a score for each candidate, or (scores, reasons)
    reward(pair)                                   how good a pair is, from 0 to 1, and a critique
    revise(instructions, critiques, rng)           other instructions for target and judge

All are functions. `synthesis.preferences` plays the game; `synthesis.tools`, `synthesis.judging` and
`synthesis.feedback` have players to begin with.

Source: Anyprefer (2504.19276), whose reward of pairs is a model; the plain one here is of this library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.verifiers import Verifier

Knowledge = Mapping[str, str]
"""What each tool said, as text: empty for nothing, `tools.NO_KNOWLEDGE` where it failed."""

Propose = Callable[[Sequence[Prompt], Any, torch.Generator], list[list[str]]]
"""(prompts, the target's instruction, rng) -> the candidates for each prompt."""

Tool = Callable[[Prompt, Sequence[str]], str | Mapping[str, Any] | None]
"""(prompt, candidates) -> what is known about them, None for nothing.

A tool that knows the right answer makes this supervised learning: that is what `Players.verify` is for.
"""

Assess = Callable[[Prompt, Sequence[str], Knowledge, Any], Any]
"""(prompt, candidates, knowledge, rubric) -> a score for each candidate, or (scores, reasons).

Scores are best on a scale from 0 to 10, which the plain reward of pairs reads; None for a candidate of which
the judge cannot say anything.
"""


@dataclass(frozen=True)
class Instructions:
    """What the game may change: the target's instruction and the judge's rubric, both plain data."""

    target: Any = ""
    judge: Any = ""

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"target": self.target, "judge": self.judge}


@dataclass(frozen=True)
class JudgedPair:
    """Two answers to a prompt, the better one first, what the judge gave and said, and what was known."""

    prompt: Prompt
    answers: tuple[str, str]
    scores: tuple[float, float]
    reasons: tuple[str, str] = ("", "")
    knowledge: Knowledge = field(default_factory=dict)


PairReward = Callable[[JudgedPair], tuple[float, str]]
"""A judged pair -> how good it is to learn from, from 0 to 1, and a critique for the feedback."""

Revise = Callable[[Instructions, Sequence[str], torch.Generator], Instructions]
"""(instructions, critiques of the pairs they led to, rng) -> instructions to be tried in their place."""

Choose = Callable[[Prompt, Sequence[str]], Sequence[str]]
"""(prompt, the tools' names) -> those that are asked."""


@dataclass(frozen=True)
class Players:
    """All but the target.

    - `judge`, with its first `rubric`; `tools` by name, all of them asked, or those that `choose` says.
    - `reward`: of pairs; by default `by_scores`, told `verify` where there is one.
    - `verify`: whether an answer is right. It knows the truth, and the records say that it was there.
    - `revise`: proposes other instructions; None for no feedback.
    - `well_formed`: 1.0 for candidates that may be learnt from. What loses for its form alone teaches form.
    """

    judge: Assess
    rubric: Any = ""
    tools: Mapping[str, Tool] = field(default_factory=dict)
    choose: Choose | None = None
    reward: PairReward | None = None
    verify: Verifier | None = None
    revise: Revise | None = None
    well_formed: Verifier | None = None


def by_scores(
    *, margin: float = 2.0, scale: float = 1.0, floor: float = 6.0, verify: Verifier | None = None
) -> PairReward:
    """The plain reward of a pair, on scores s from 0 to 10:

        R = 1 where `verify` finds the better answer right and the worse one wrong,
            sigmoid((s_better - s_worse - margin) / scale) where s_better >= floor, else 0.

    Raises `SettingError` for a scale that is not above 0.
    """
    if not 0 < scale < math.inf:
        raise SettingError(f"a scale of {scale}", expected="above 0, and finite")

    def reward(pair: JudgedPair) -> tuple[float, str]:
        better, worse = pair.scores
        if verify is not None:
            right = [verify(answer, pair.prompt) >= 1 for answer in pair.answers]
            if right == [True, False]:
                return 1.0, "the better answer is right and the worse one is wrong"
        if better < floor:
            return 0.0, f"the better answer has a score of {better:g}, below {floor:g}: write better answers"
        value = 1 / (1 + math.exp(-max(-700.0, (better - worse - margin) / scale)))
        return value, f"the scores are {better:g} and {worse:g}: tell good from bad answers more clearly"

    return reward


def assessed(
    judge: Assess, prompt: Prompt, candidates: Sequence[str], knowledge: Knowledge, rubric: Any
) -> tuple[list[float | None], list[str]]:
    """What the judge gives and says, a score (or None) and a reason for each candidate.

    Raises `DataError` naming the prompt where these are not as many as candidates, or a score is not finite.
    """
    said = judge(prompt, candidates, knowledge, rubric)
    with_reasons = isinstance(said, tuple) and len(said) == 2 and not _is_number(said[0])
    scores, reasons = said if with_reasons else (said, [""] * len(candidates))
    try:
        found = [None if score is None else float(score) for score in scores]
        words = [str(reason) for reason in reasons]
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the judge gave {said!r:.60}", where=named(prompt), expected=f"{len(candidates)} scores"
        ) from error
    if len(found) != len(candidates) or len(words) != len(candidates):
        raise DataError(
            f"the judge gave {len(found)} scores and {len(words)} reasons",
            where=named(prompt),
            expected=f"{len(candidates)}, one for each candidate",
        )
    for score in found:
        if score is not None and not math.isfinite(score):
            raise DataError(f"the judge gave {score}", where=named(prompt), expected="finite scores")
    return found, words


def named(prompt: Prompt) -> str:
    """How errors call a prompt."""
    return f"prompt {str(prompt.text)[:80]!r}"


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)

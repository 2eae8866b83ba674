"""Thoughts that may be left out: how an answer with a thought is laid out, and examples that skip it.

    <think>12+73=85;85-35=50</think><answer>50</answer>          <think>\\n\\n</think><answer>50</answer>

A policy that has only ever seen thoughts never tries to do without. `thought_dropout` empties the thoughts of
a share of the examples, so that both kinds of answer are likely; which one a question needs is then found by
reinforcement. The tags stay: an empty thought is a choice that can be seen.

Source: Wang et al. 2025 (TON), section 3.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.examples import Example, Examples
from policysmith.experience.explanations import Ask, answer_in_view, check_answers
from policysmith.experience.prompts import Prompts
from policysmith.experience.rollouts import Sampler

EMPTY = "\n\n"
"""What stands between the tags of a thought that is left out."""

REVERSE = (
    "{question}\n\nThe answer is {answer}. Give the reasoning by which one comes to it, as if you did not "
    "know it yet, and do not state the answer itself."
)
"""How a thought is asked for where the answer is known."""


@dataclass(frozen=True)
class Layout:
    """The tags around a thought and around the answer behind it.

    Raises `SettingError` where a tag that has to be found is empty; only the last one may be.
    """

    think: tuple[str, str] = ("<think>", "</think>")
    answer: tuple[str, str] = ("<answer>", "</answer>")

    def __post_init__(self) -> None:
        if not all((*self.think, self.answer[0])):
            raise SettingError(
                f"the tags {self.think} and {self.answer}", expected="tags that are not empty, but the last"
            )

    @property
    def pattern(self) -> str:
        """What a whole text has to match (dots match line ends); an empty thought passes."""
        begin, end, before, behind = map(re.escape, (*self.think, *self.answer))
        return rf"\s*{begin}(.*?){end}\s*{before}(.*?){behind}\s*"

    def write(self, thought: str, answer: str) -> str:
        """Thought and answer in their tags."""
        return f"{self.think[0]}{thought}{self.think[1]}{self.answer[0]}{answer}{self.answer[1]}"

    def read(self, text: str) -> tuple[str, str] | None:
        """Thought and answer of a text; None where it is not laid out so."""
        found = re.fullmatch(self.pattern, text, re.DOTALL)
        return (found[1], found[2]) if found else None

    def skips(self, text: str) -> bool:
        """Whether the text is laid out so and its thought is empty but for white space."""
        found = self.read(text)
        return found is not None and not found[0].strip()


def skip_ratio(texts: Sequence[str], layout: Layout) -> float:
    """The share of texts that leave their thought out. Raises `DataError` where there are no texts."""
    if not texts:
        raise DataError("there are no texts to look for thoughts in", expected="at least one")
    return sum(map(layout.skips, texts)) / len(texts)


def thinking_examples(prompts: Prompts, layout: Layout, *, column: str = "thought") -> Examples:
    """Every question with its thought, from the column of its data, and its answer, laid out.

    Raises `DataError` naming the question that lacks either, or that is a conversation.
    """
    examples = []
    for row, prompt in enumerate(prompts):
        where = f"row {row}: prompt {str(prompt.text)[:80]!r}"
        thought = prompt.data.get(column)
        if not isinstance(thought, str) or not thought.strip():
            raise DataError(
                "a question has no thought",
                where=where,
                expected=f"a text in the column '{column}'",
                cure="name the column that has it, or let a model write thoughts: "
                "experience.thoughts.reverse_thoughts",
            )
        if prompt.answer is None or not isinstance(prompt.text, str):
            raise DataError(
                "a question is no example to be imitated",
                where=where,
                expected="a text with a reference answer",
            )
        examples.append(Example(prompt.text, layout.write(thought, str(prompt.answer))))
    return Examples(examples)


def thought_dropout(
    examples: Examples, *, probability: float, rng: torch.Generator, layout: Layout
) -> Examples:
    """The examples, each with its thought emptied with this probability; tags and answers stay.

    Raises `SettingError` for a probability outside [0, 1] and `DataError` naming an example that is not laid
    out; warns at 1, which leaves no thought to be learnt.
    """
    if not 0 <= probability <= 1:
        raise SettingError(f"thoughts dropped with probability {probability}", expected="0 to 1")
    if probability == 1:
        warnings.warn("all thoughts are dropped: none is left to be learnt", stacklevel=2)
    dropped = torch.rand(len(examples), generator=rng) < probability
    found = []
    for number, example in enumerate(examples):
        read = layout.read(example.answer)
        if read is None:
            raise DataError(
                "an example is not a thought and an answer, each in its tags",
                where=f"example {number}: {example.answer[:80]!r}",
                expected=layout.write("...", "..."),
            )
        written = layout.write(EMPTY, read[1]) if bool(dropped[number]) else example.answer
        found.append(Example(example.prompt, written))
    return Examples(found)


def reverse_thoughts(
    sampler: Sampler,
    prompts: Prompts,
    *,
    rng: torch.Generator,
    ask: Ask | None = None,
    column: str = "thought",
) -> Prompts:
    """The questions with a thought in `column`, written by `sampler` with the true answer in view.

    Questions that have one keep it. Raises `DataError` naming a question without an answer, or whose thought
    came out empty.
    """
    check_answers(prompts)
    ask = ask or answer_in_view(REVERSE)
    lacking = {row: ask(prompt) for row, prompt in enumerate(prompts) if not prompt.data.get(column)}
    written: dict[int, str] = {}
    if lacking:
        samples = sampler(lacking, rng=rng, copies=1)
        written = dict(zip(samples.batch["group_id"].tolist(), map(str.strip, samples.texts), strict=True))
    if empty := [row for row, text in written.items() if not text]:
        raise DataError(
            f"{len(empty)} of {len(lacking)} thoughts are empty",
            where=f"row {empty[0]}: prompt {str(prompts[empty[0]].text)[:80]!r}",
            cure="ask in words that the model answers; a chat model needs its template",
        )
    return Prompts(
        (
            replace(prompt, data={**prompt.data, column: written[row]}) if row in written else prompt
            for row, prompt in enumerate(prompts)
        ),
        provenance=prompts.provenance,
    )

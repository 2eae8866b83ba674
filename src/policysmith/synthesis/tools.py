"""Tools that know something about a prompt: a calculator, a table of facts, and how any tool is asked.

    tools = {"calculator": calculator(), "facts": lookup({"capital of france": "Paris"})}
    ask(tools, prompt, candidates, seconds=5)        what each said, and which failed

A tool that raises or takes too long has no knowledge; the judge is told so and the game goes on.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from policysmith.common.calculation import calculated
from policysmith.common.errors import DataError, FileError
from policysmith.experience.prompts import Prompt, dataset_rows
from policysmith.synthesis.players import Tool

NO_KNOWLEDGE = "no knowledge"
"""Stands for what a tool would have said that failed."""

_EXPRESSION = re.compile(r"\(*\s*[-+]?\d[\d.]*(?:[\s()]*(?:\*\*|[-+*/%^])\s*[\s()]*[-+]?\d[\d.]*[\s)]*)+")


def ask(
    tools: Mapping[str, Tool], prompt: Prompt, candidates: Sequence[str], *, seconds: float = 0.0
) -> tuple[dict[str, str], dict[str, str]]:
    """What each tool said, as text, and for each that failed, why.

    `seconds`: a tool that takes longer has failed (its thread is left behind); 0: none is hurried.
    """
    said, failed = {}, {}
    for name, tool in tools.items():
        outcome = _within(seconds, tool, prompt, candidates)
        if isinstance(outcome, Exception):
            said[name], failed[name] = NO_KNOWLEDGE, f"{type(outcome).__name__}: {outcome}"
        else:
            said[name] = _as_text(outcome)
    return said, failed


def calculator() -> Tool:
    """The value of the last arithmetic expression in a prompt, such as of `What is 12 + 7 * 3?`: `33`.

    Nothing is run: the expression is parsed, and only numbers under + - * / // % ** are worked out. None
    where the prompt has no expression, or one that has no value.
    """

    def tool(prompt: Prompt, candidates: Sequence[str]) -> str | None:
        value = None
        for found in _EXPRESSION.findall(words(prompt)):
            value = evaluated(found.strip()) or value
        return value

    return tool


def evaluated(expression: str) -> str | None:
    """The value of an arithmetic expression as text; None without one (see `common.calculation`)."""
    try:
        return calculated(expression)
    except DataError:
        return None


def lookup(facts: Mapping[str, Any]) -> Tool:
    """The fact whose key occurs in the prompt, the longest where several do; None where none does.

    Case and the space between words do not count; a key is found at the borders of words only.
    """
    table = {_squeezed(key): str(value) for key, value in facts.items()}
    if not table:
        raise DataError("a table of facts without a fact", expected="at least one")
    by_length = sorted(table, key=lambda key: (-len(key), key))

    def tool(prompt: Prompt, candidates: Sequence[str]) -> str | None:
        text = _squeezed(words(prompt))
        if text in table:
            return table[text]
        for key in by_length:
            if key in text and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text):
                return table[key]
        return None

    return tool


def facts_from_file(path: str, *, key: str = "key", value: str = "value") -> Tool:
    """`lookup` over the rows of a file, by its columns `key` and `value`; `FileError` where they are not."""
    rows = list(dataset_rows(path))
    if not rows or key not in rows[0] or value not in rows[0]:
        raise FileError(
            "the file is no table of facts",
            where=path,
            expected=f"rows with the columns '{key}' and '{value}'",
        )
    return lookup({str(row[key]): row[value] for row in rows})


def words(prompt: Prompt) -> str:
    """The prompt as one text; of a conversation, what its turns say."""
    return prompt.text if isinstance(prompt.text, str) else "\n".join(turn["content"] for turn in prompt.text)


# ---- parts -------------------------------------------------------------------------------------------


def _within(seconds: float, tool: Tool, prompt: Prompt, candidates: Sequence[str]) -> Any:
    """What the tool returns, or the exception it raised, or a `TimeoutError`."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(tool(prompt, list(candidates)))
        except Exception as error:  # a tool is anybody's code, and often behind a network
            outcome.append(error)

    if not seconds:
        work()
        return outcome[0]
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else TimeoutError(f"no answer within {seconds:g} seconds")


def _as_text(outcome: Any) -> str:
    if outcome is None:
        return ""
    return outcome if isinstance(outcome, str) else json.dumps(outcome, default=str, sort_keys=True)


def _squeezed(text: str) -> str:
    return " ".join(str(text).lower().split())

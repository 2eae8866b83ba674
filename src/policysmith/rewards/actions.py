"""Rewards of actions that are written as text: what is done, and where.

    <action>{'action': 'click', 'value': None, 'position': [0.50, 0.31]}</action>

The reference is such a mapping, or text that holds one. Positions are shares of the screen's width and
height. Only literals are read: nothing that a model wrote is run.

Source: Wang et al. 2025 (TON), the rewards of phone navigation.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.verifiers import Extract, Verifier, between

IN_TAGS = between("<action>", "</action>")
"""What stands in the tags of an action."""


def same_action(extract: Extract = IN_TAGS) -> Verifier:
    """1.0 where the name of the action is the reference's, in upper or lower case."""

    def reward(text: str, prompt: Prompt) -> float:
        wanted, given = _reference(prompt, extract), read_action(extract(text))
        return float(given is not None and _name(given) == _name(wanted))

    return reward


def click_near(tolerance: float = 0.14, extract: Extract = IN_TAGS) -> Verifier:
    """1.0 where both are clicks, at most `tolerance` apart; 0.0 for every other action.

    Raises `DataError` where the reference clicks outside [0, 1], as pixels do.
    """
    if not tolerance > 0:
        raise SettingError(f"a tolerance of {tolerance}", expected="above 0, as a share of the screen")

    def reward(text: str, prompt: Prompt) -> float:
        wanted, given = _reference(prompt, extract), read_action(extract(text))
        if _name(wanted) != "click":
            return 0.0
        goal = _position(wanted)
        if goal is None:
            raise DataError(
                f"the reference clicks at {wanted.get('position')!r}",
                where=f"prompt {str(prompt.text)[:80]!r}",
                expected="two numbers from 0 to 1, shares of width and height",
                cure="divide pixels by the size of the screen",
            )
        if given is None or _name(given) != "click" or (place := _position(given)) is None:
            return 0.0
        return float(math.dist(place, goal) <= tolerance)

    return reward


def read_action(text: str | None) -> Mapping[str, Any] | None:
    """The action that a text describes; None where it is no mapping with the name of an action."""
    try:
        found = ast.literal_eval((text or "").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, Mapping) and isinstance(found.get("action"), str) else None


def _reference(prompt: Prompt, extract: Extract) -> Mapping[str, Any]:
    answer = prompt.answer
    found = answer if isinstance(answer, Mapping) else read_action(extract(str(answer)) or str(answer))
    if found is None or not isinstance(found.get("action"), str):
        raise DataError(
            f"the reference {answer!r:.80} is no action",
            where=f"prompt {str(prompt.text)[:80]!r}",
            expected="such as {'action': 'click', 'position': [0.5, 0.31]}",
        )
    return found


def _name(action: Mapping[str, Any]) -> str:
    return action["action"].lower()


def _position(action: Mapping[str, Any]) -> tuple[float, float] | None:
    place = action.get("position")
    if isinstance(place, str):
        try:
            place = ast.literal_eval(place)
        except (ValueError, SyntaxError):
            return None
    if not isinstance(place, list | tuple) or len(place) != 2:
        return None
    if not all(isinstance(number, int | float) and 0 <= number <= 1 for number in place):
        return None
    return float(place[0]), float(place[1])

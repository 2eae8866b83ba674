"""Rewards of form: whether an answer has the shape that was asked for, and how long it is."""

from __future__ import annotations

import re

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.verifiers import Verifier

THINK_THEN_ANSWER = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
"""Thought, then answer, each in its tags and nothing around them; an empty thought passes."""


def form(pattern: str = THINK_THEN_ANSWER) -> Verifier:
    """1.0 where the whole text matches `pattern` (dots match line ends), else 0.0."""
    compiled = re.compile(pattern, re.DOTALL)
    return lambda text, prompt: float(compiled.fullmatch(text) is not None)


def shorter(*, free: int, limit: int) -> Verifier:
    """0 up to `free` characters, falling evenly to -1 at `limit` and beyond.

    Source: Yu et al. 2025 (DAPO), the soft penalty on overlong answers, in characters.
    """
    if not 0 <= free < limit:
        raise SettingError(f"free {free} and limit {limit}", expected="0 <= free < limit")

    def reward(text: str, prompt: Prompt) -> float:
        return -min(1.0, max(0.0, (len(text) - free) / (limit - free)))

    return reward

"""Rewards by name: those of this library, and your own as `my_package.module:function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policysmith.common.errors import CapabilityError, UnknownNameError
from policysmith.common.named import load_named
from policysmith.rewards import verifiers
from policysmith.rewards.form import form

REWARDS: dict[str, Callable[[], Callable[..., Any]]] = {
    "numeric": verifiers.numeric,
    "exact": verifiers.exact,
    "last-line": lambda: verifiers.exact(verifiers.last_line),
    "answer-tags": lambda: verifiers.exact(verifiers.between("<answer>", "</answer>")),
    "mathematical": verifiers.mathematical,
    "task": verifiers.task,
    "form": form,
}
"""By name: the last number, the whole text, the last line, or what stands between answer tags is the
reference; equal as mathematics; the procedural task's own checker; thought and answer in their tags."""


def reward_named(name: str) -> Callable[..., Any]:
    """The reward of that name, or the function (text, prompt) -> number at `my_package.module:function`."""
    if name in REWARDS:
        return REWARDS[name]()
    if ":" not in name:
        raise UnknownNameError(
            f"no reward is called '{name}'", expected=", ".join(REWARDS) + ", or my_package.module:function"
        )
    found = load_named(name, what="reward")
    if not callable(found):
        raise CapabilityError(f"'{name}' cannot be called", expected="a function (text, prompt) -> number")
    return found

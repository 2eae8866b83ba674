"""Rewards by name: those of this library, your own as `my_package.module:function`, saved reward models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policysmith.common.errors import CapabilityError, UnknownNameError
from policysmith.common.named import load_named
from policysmith.rewards import verifiers
from policysmith.rewards.form import form
from policysmith.rewards.reward_model import RewardModel, is_reward_model

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
    """The reward of that name.

    Otherwise the reward model that was saved into the folder `name`, or into a run's, or the function
    (text, prompt) -> number at `my_package.module:function`.
    """
    if name in REWARDS:
        return REWARDS[name]()
    if is_reward_model(name):
        return RewardModel.from_pretrained(name).requires_grad_(False)
    if ":" not in name:
        raise UnknownNameError(
            f"no reward is called '{name}', and no reward model was saved there",
            expected=", ".join(REWARDS) + ", the folder of a reward model, or my_package.module:function",
        )
    found = load_named(name, what="reward")
    if not callable(found):
        raise CapabilityError(f"'{name}' cannot be called", expected="a function (text, prompt) -> number")
    return found

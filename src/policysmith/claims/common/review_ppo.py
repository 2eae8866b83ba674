"""PPO on a learnt reward of reviews: the budget that experiments share, and the reward it climbs.

proxy = yield from learnt_reward(start, folder)              the bench's reward model, by path and name
start.asked(prompts, proxy.model, proxy.name)                where arms start that climb it
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.claims.common.review_learning import Begun
from policysmith.claims.common.rlhf import ANSWER_LIMIT, Pairs, Proxy, Rankings, proxy_accuracy
from policysmith.common.stages import Stage
from policysmith.rewards.reward_model import RewardModel
from policysmith.systems.ppo_max import UNCLIPPED

PROXY = "proxy reward"
EVERY = 25
"""Steps between the measurements of a curve."""
BUDGET: dict[str, Any] = {
    "prompts": 32, "steps": 150, "optimizer_steps": 1, "answer_limit": ANSWER_LIMIT, "top_p": 1.0,
    "learning_rate": 5e-4, "critic_learning_rate": 1e-3, "warmup_steps": 5, "text_weight": 0.0, "lam": 0.95,
}  # fmt: skip
"""What all arms of PPO-max have."""
WITHOUT: dict[str, Any] = {
    "kl": 0.0, "rescale": "none", "reward_clip": 0.0, "value_low": UNCLIPPED, "value_high": UNCLIPPED,
    "critic_warmup": 0,
}  # fmt: skip
"""PPO-max with its tricks taken out."""
HELD: dict[str, Any] = {
    **{name: value for name, value in BUDGET.items() if name != "text_weight"},
    "learning_rate": 3e-4, "whiten": False, "clip": 0.2, "kl": 0.05, "value_low": 0.2, "value_high": 0.2,
    "critic_warmup": 0,
}  # fmt: skip
"""PPO as other systems are compared with it: held by the penalty and the critic's clip, and at a rate at
which its gold keeps up; at that of the budget a reward can be run over."""


@dataclass(frozen=True)
class LearntReward:
    """A reward model that has been made: itself, its folder (a critic may begin as it), and its name."""

    model: RewardModel
    path: Path
    name: str


def learnt_reward(start: Begun, folder: Path) -> Generator[Stage, None, LearntReward]:
    """The reward model of a start's ranked answers, made where it is not in the cache `folder` yet."""
    proxy = Proxy(Rankings(start.recipe))
    model = (yield from proxy.make(folder)).requires_grad_(False)
    return LearntReward(model, proxy.path(folder), proxy.name)


def accuracy(start: Begun, model: RewardModel, folder: Path) -> Generator[Stage, None, float]:
    """How often the reward model ranks two answers to a held-out record as the program does."""
    pairs = yield from Pairs(start.recipe, size=400, held_out=True, seed=1).make(folder)
    return proxy_accuracy(model, pairs)

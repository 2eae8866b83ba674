"""Rank-relative policy optimisation: an answer is worth its rank in the group, from -1 to 1, ties shared.

Ranks do not care how far rewards lie apart, so that one very good answer cannot drown the others: a use for
rewards on no particular scale. The worked example of docs/guides/group-relative.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.training.learners.group_relative import advantages, clipped, with_entropy
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings


@dataclass(frozen=True)
class Config(LanguageSettings):
    """`clip`: range of the ratio on either side; `bonus`: weight of the entropy."""

    clip: float = 0.2
    bonus: float = 0.0


PRESETS = {"paper": Config(), "tiny": Config(steps=6, prompts=2, group_size=2, answer_limit=4)}


def rank_advantage(reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """(answers it beats - answers that beat it) / (others in the group), 0 for an answer alone."""
    together = group_id[:, None] == group_id
    beaten = torch.sign(reward[:, None] - reward) * together
    return beaten.sum(1) / (together.sum(1) - 1).clamp(min=1)


def train(policy, prompts, reward, *, config=PRESETS["paper"], seed=0, state=None):
    """Train a model (a folder, a name or a policy) on its answers to `prompts`."""
    label = advantages(rank_advantage)
    loss = with_entropy(clipped(low=config.clip, high=config.clip), config.bonus)
    return language_run(
        policy, prompts, reward, settings=config, label=label, loss=loss, seed=seed, state=state
    )

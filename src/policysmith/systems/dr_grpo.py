"""Dr. GRPO: group-relative policy optimisation without its two biases.

Dividing an answer's advantage by the group's deviation makes questions that are nearly always or nearly never
answered count more; averaging over each answer's own tokens makes a long wrong answer cost less per token
than a short one, so that wrong answers grow. Dr. GRPO drops both divisions: A_i = r_i - mean over the group,
and each token counts the same whatever the length of its answer, the sum being divided by the constant
`answer_limit`. There is no divergence from a reference. All else is `grpo`.

Reference: Liu et al. 2025, Understanding R1-Zero-like training (2503.20783), section 3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.prompts import Prompts
from policysmith.objectives.averaging import constant_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import centred, clipped
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the authors' code for a model of 7 B: 128 prompts of 8 answers, 128 answers to a step.

    - `clip`: range of the ratio on either side (PPO's usual value).
    """

    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 3000
    optimizer_steps: int = 8
    learning_rate: float = 1e-6
    clip: float = 0.2


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32, group_size=8, answer_limit=48, optimizer_steps=4, steps=100, learning_rate=3e-4
    ),
    "tiny": Config(prompts=2, group_size=2, answer_limit=4, optimizer_steps=2, steps=6),
}
"""The paper's, a laptop's for a small model learnt from scratch, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, which is then trained in place) on its scored answers."""
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        label=centred(),
        loss=clipped(low=config.clip, high=config.clip),
        weight=lambda batch: constant_weight(batch["mask"], length=config.answer_limit),
        seed=seed,
        state=state,
    )

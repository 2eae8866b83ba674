"""GRPO: group-relative policy optimisation of a language model against a reward.

Each prompt is answered G times, and an answer is worth its reward relative to the others': A_i = (r_i - mean)
/ std over the group. No value function is learnt. The loss is PPO's, clipped, the mean over each answer's
tokens and then over answers, with the estimate k3 of the divergence from the model as it was at the start.
`dr-grpo`, `dapo` and `rloo` change one of these words each.

Reference: Shao et al. 2024, DeepSeekMath (2402.03300), section 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.prompts import Prompts
from policysmith.objectives.averaging import sequence_mean_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import clipped, group_relative, with_kl
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the paper (section 4.2: 1,024 answers a batch, 64 to a prompt, one update per rollout).

    - `clip`: range of the ratio on either side (PPO's usual value); `beta`: weight of the divergence.
    """

    prompts: int = 16
    group_size: int = 64
    answer_limit: int = 1024
    learning_rate: float = 1e-6
    clip: float = 0.2
    beta: float = 0.04


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32, group_size=8, answer_limit=48, optimizer_steps=4, steps=100, learning_rate=3e-4, beta=0.0
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
        label=group_relative(),
        loss=with_kl(clipped(low=config.clip, high=config.clip), config.beta),
        weight=lambda batch: sequence_mean_weight(batch["mask"]),
        reference=config.beta > 0,
        seed=seed,
        state=state,
    )

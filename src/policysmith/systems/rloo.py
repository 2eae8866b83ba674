"""RLOO: REINFORCE with the other answers as the baseline, the whole answer being one action.

    R_i = r_i - beta log(pi(y_i) / pi_ref(y_i)),    gradient of -(R_i - mean of the others' R) log pi(y_i)

A language model begins close to where it is to end, and the reward is one number at the end of the answer: so
there is nothing for a value function, for clipping, or for an advantage per token to do. The divergence from
the model as it was at the start is part of the reward. log pi(y) is the sum over the answer's tokens.

Reference: Ahmadian et al. 2024, Back to basics (2402.14740), section 3 and equation 8; Kool et al. 2019 for
the baseline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.objectives.averaging import constant_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import kl_in_reward, leave_one_out, reinforce, then
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the size of the paper's experiment on summaries: 512 answers a rollout, 256 to a step.

    - `beta`: weight of the log-ratio to the reference in the reward.

    Not checked against the paper's appendix: learning rate, its rise over 3 % of the optimiser steps, `beta`
    and `steps`. `answer_limit` is ours.
    """

    steps: int = 600
    prompts: int = 128
    group_size: int = 4
    answer_limit: int = 128
    optimizer_steps: int = 2
    learning_rate: float = 1e-6
    warmup_steps: int = 36
    beta: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="at least 2: the others are the baseline"
            )
        if self.beta < 0:
            raise SettingError(f"beta is {self.beta}", expected="0 or more")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32, group_size=8, answer_limit=48, optimizer_steps=1, steps=100, learning_rate=3e-4,
        warmup_steps=0, beta=0.0,
    ),
    "tiny": Config(prompts=2, group_size=2, answer_limit=4, steps=6, warmup_steps=2),
}  # fmt: skip
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
        label=then(kl_in_reward(config.beta), leave_one_out()),
        loss=reinforce(),
        # The sum of an answer's tokens, the mean of the answers.
        weight=lambda batch: constant_weight(batch["mask"], length=1),
        reference=config.beta > 0,
        seed=seed,
        state=state,
    )

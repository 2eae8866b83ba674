"""NFT: negative-aware fine-tuning, by maximum likelihood on right and wrong answers.

Rejection fine-tuning raises the likelihood of right answers and throws wrong ones away. NFT keeps them. A
share r of the answers to a prompt is right, so that the sampling policy is r pi_right + (1 - r) pi_wrong. The
policy pi learns to be pi_right, and then wrong answers follow (pi_old - r pi) / (1 - r): their likelihood
under that policy, which is no second network, trains the same pi. Per token, with R = pi / pi_old,

    right:  -log R          wrong:  -log max((1 - r R) / (1 - r), floor)

weighed by 1 - r per prompt and summed. While nothing has moved (R = 1) this is the gradient of `dr-grpo`
(reward minus the group's mean), and with `weight` "spread" that of `grpo`. After that a wrong token that has
become less likely is pushed ever more softly, where a clip would drop it. There is no clip, no reference and
no entropy bonus. With `negative_weight` 0 it is rejection fine-tuning.

Reference: Chen et al. 2025, Bridging Supervised Learning and Reinforcement Learning in Math Reasoning
(2505.18116), and the authors' code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.objectives.averaging import fixed_weight
from policysmith.objectives.negative_aware import PromptWeight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.negative_aware import negative_aware, outcomes
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the authors' `train_7B.sh`: 512 prompts with answers of both kinds, 32 to a step.

    - `negative_weight`: of wrong answers (1; 0.5 for the 32B model, 0 is rejection fine-tuning);
      `negative_floor`, `positive_floor`: under the ratios whose logarithms are taken (1 and 0).
    - `weight`: what a prompt counts: "difficulty" 1 - r, "spread" sqrt((1 - r) / r), "none" 1.
    - `denominator`: what the sum over tokens is divided by, which only `max_grad_norm` notices: the authors
      divide by 1,000 on each of 32 GPUs and take the mean of their gradients.
    """

    prompts: int = 512
    group_size: int = 16
    answer_limit: int = 3584
    filter_agreeing: bool = True
    rounds: int = 10
    optimizer_steps: int = 16
    learning_rate: float = 1e-6
    warmup_steps: int = 10
    weight_decay: float = 0.1
    recompute_old: bool = True
    negative_weight: float = 1.0
    negative_floor: float = 1.0
    positive_floor: float = 0.0
    weight: PromptWeight = "difficulty"
    denominator: float = 32_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="at least 2: one right answer and one wrong"
            )
        if not self.negative_floor > 0:
            raise SettingError(
                f"negative_floor is {self.negative_floor}",
                expected="above 0: the logarithm of (1 - r R) / (1 - r) is taken, which may be negative",
            )
        if not self.negative_weight >= 0:
            raise SettingError(f"negative_weight is {self.negative_weight}", expected="0 or more")
        if not self.denominator > 0:
            raise SettingError(f"denominator is {self.denominator}", expected="above 0")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32,
        group_size=8,
        answer_limit=48,
        optimizer_steps=4,
        steps=100,
        learning_rate=3e-4,
        warmup_steps=0,
        weight_decay=0.0,
        recompute_old=False,
        denominator=3072.0,
    ),
    "tiny": Config(
        prompts=2,
        group_size=4,
        answer_limit=4,
        optimizer_steps=2,
        steps=6,
        warmup_steps=0,
        learning_rate=1e-3,
    ),
}
"""The paper's; a laptop's for a small model learnt from scratch, divided as `dr-grpo` does; a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, then trained in place) on its right and wrong answers.

    `reward` gives 1 or 0; `DataError` names the prompt where it does not, and, with `filter_agreeing` off,
    where a prompt's answers are all right or all wrong.
    """
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        label=outcomes(filtered=config.filter_agreeing),
        loss=negative_aware(
            negative_weight=config.negative_weight,
            negative_floor=config.negative_floor,
            positive_floor=config.positive_floor,
            weight=config.weight,
        ),
        weight=lambda batch: fixed_weight(batch["mask"], denominator=config.denominator),
        seed=seed,
        state=state,
    )

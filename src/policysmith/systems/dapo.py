"""DAPO: group-relative policy optimisation for long answers, with four changes to GRPO.

    clip higher     the ratio may rise to 1 + 0.28 and fall to 1 - 0.2: rare tokens get room to rise
    sample again    groups whose rewards all agree are dropped, and further prompts asked in their place
    token mean      all tokens of the batch count alike, those of long answers too
    overlong        answers within `overlong_buffer` tokens of the limit lose up to 1 of their reward

Groups are dropped by their reward before the overlong penalty, as in the authors' code: what they differ in
has to be more than their length. There is no divergence from a reference.

Reference: Yu et al. 2025, DAPO (2503.14476), section 3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import (
    clipped,
    finished_only,
    group_relative,
    overlong,
    then,
    with_entropy,
)
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import Label, LanguageSettings, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the paper (section 4.1), `weight_decay` of the authors' script.

    - `clip_low`, `clip_high`: range of the ratio below and above 1.
    - `overlong_buffer`: tokens before `answer_limit` over which the penalty grows from 0 to 1; 0 for none.
    - `finished_only`: answers cut off at the limit teach nothing (the paper's overlong filtering, which it
      tried before the penalty).
    - `entropy_bonus`: weight of the tokens' entropy in the loss (the paper has none).

    The learning rate rises over 20 rollouts, which are 320 optimiser steps.
    """

    prompts: int = 512
    group_size: int = 16
    answer_limit: int = 20480
    filter_agreeing: bool = True
    optimizer_steps: int = 16
    learning_rate: float = 1e-6
    warmup_steps: int = 320
    weight_decay: float = 0.1
    clip_low: float = 0.2
    clip_high: float = 0.28
    overlong_buffer: int = 4096
    finished_only: bool = False
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.overlong_buffer <= self.answer_limit:
            raise SettingError(
                f"overlong_buffer is {self.overlong_buffer} for answers of at most {self.answer_limit}",
                expected="0 (no penalty) to answer_limit",
            )


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
        overlong_buffer=0,
    ),
    "tiny": Config(
        prompts=2,
        group_size=2,
        answer_limit=4,
        optimizer_steps=2,
        steps=6,
        rounds=2,
        warmup_steps=2,
        overlong_buffer=2,
    ),
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
        label=_label(config),
        loss=with_entropy(clipped(low=config.clip_low, high=config.clip_high), config.entropy_bonus),
        seed=seed,
        state=state,
    )


def _label(config: Config) -> Label:
    labels = [group_relative()]
    if config.overlong_buffer:
        labels.insert(0, overlong(limit=config.answer_limit, buffer=config.overlong_buffer))
    if config.finished_only:
        labels.append(finished_only())
    return then(*labels)

"""GHPO: hints for the questions that are still too hard, and for no others.

Where every answer to a question is wrong, GRPO learns nothing from it. Guided Hybrid Policy Optimization
finds such groups as they come and asks again with the first 25, 50 and 75 % of a reference solution beside
the question, until some answer is right:

    q* = q where some answer is right, else q + hint;     A_i = (r_i - mean) / (std + 1e-4) over answers to q*

Questions within reach stay ordinary reinforcement learning; hard ones become a beginning that is given and a
rest that is explored. The answers are learnt on the prompt they were written on, of which the hint is a part
and never a target. Apart from the sampler this is GRPO with the mean over all tokens. `critique-grpo` helps
with words instead, and only afterwards.

Reference: Liu et al. 2025, GHPO (2507.10628), and the authors' code. Two things are not as in that code:
there a group that was solved with a short hint is learnt without its hint whenever another group needs a
longer one, and the learning rate falls by a cosine, while here it stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.guidance import (
    HINT,
    STAGES,
    check_solutions,
    check_stages,
    check_template,
    guided,
)
from policysmith.experience.prompts import Prompts
from policysmith.experience.world_prompts import check_answered
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import clipped, group_relative, with_kl
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the released configuration (196 questions of 8 answers a step, up to 2,048 tokens each).

    - `stages`: shares of the solution that are shown, one after the other (released code); `template`: how.
    - `hint_from`: the step from which on hints are given: 0 as released, about 20 in the paper, so that early
      slips of form are not taken for difficulty.
    - `accuracy`: the reward that says whether an answer is right, where there are several. Released: accuracy
      counts 1 and form 0.5; form says nothing of difficulty.
    - `skip_unsolved`: ask questions without a solution plainly, instead of refusing them.
    - `clip`: range of the ratio on either side; `beta`: weight of the divergence from the start (released 0).
    - `warmup_steps`: a tenth of the steps, as released.
    """

    prompts: int = 196
    group_size: int = 8
    answer_limit: int = 2048
    learning_rate: float = 1e-6
    warmup_steps: int = 50
    stages: tuple[float, ...] = STAGES
    template: str = HINT
    hint_from: int = 0
    accuracy: str = ""
    skip_unsolved: bool = False
    clip: float = 0.2
    beta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages)
        check_template(self.template, "question", "hint")
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="2 or more: answers are compared with each other"
            )


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=16, answer_limit=48, steps=100, optimizer_steps=2, learning_rate=3e-4, warmup_steps=0
    ),
    "tiny": Config(prompts=2, group_size=2, answer_limit=4, steps=6, warmup_steps=0),
}
"""The paper's, a laptop's for a small model learnt from scratch, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, in place) on its scored answers, with hints where needed.

    The prompts have a `solution` column, worked out in text. Raises `DataError` naming a row without one,
    unless `skip_unsolved`, and naming a prompt that does not fit the context with its hint.
    """
    check_answered(prompts, "its hints are the beginnings of a known answer, and an episode has none")
    if not config.skip_unsolved:
        check_solutions(prompts)
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        wrap=lambda sampler, _: guided(
            sampler,
            stages=config.stages,
            template=config.template,
            column=config.accuracy,
            begin=config.hint_from,
            skip_unsolved=config.skip_unsolved,
        ),
        label=group_relative(eps=1e-4),
        loss=with_kl(clipped(low=config.clip, high=config.clip), config.beta),
        reference=config.beta > 0,
        seed=seed,
        state=state,
    )

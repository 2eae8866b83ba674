"""Online DPO: the policy answers twice, a judge says which answer is better, and the pair is learnt at once.

Pairs that were written long ago by another model say little about what the policy writes now. Here every step
asks new prompts for `group_size` answers of the policy as it is; the reward (a verifier, a reward model, a
rule) ranks them, the best and the worst of a prompt make its pair, and the step is `dpo`'s, against the model
at the start:

    loss = -log sigmoid(beta h),    h = log pi/pi_ref (best) - log pi/pi_ref (worst)

Prompts whose answers are all equal are passed over. `dno` learns in long rounds whose reference moves.

Reference: Guo et al. 2024, Direct language model alignment from online AI feedback (2402.04792).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.outcomes import picked
from policysmith.experience.pairing import best_worst
from policysmith.experience.prompts import Prompts
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.preferences import check_beta, dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.rewards.judged import judged_pairs
from policysmith.rewards.judges import Judge
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.preference import on_pairs
from policysmith.training.learners.preference_rounds import preference_rounds
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the paper where it states them: two answers, batch 128, temperature 0.9, rate and warm-up.

    - `beta`: weight of the divergence from the model at the start.
    - `round_steps`: steps on the pairs of a rollout; 1 is online.
    """

    prompts: int = 128
    group_size: int = 2
    temperature: float = 0.9
    learning_rate: float = 5e-7
    warmup_steps: int = 150
    beta: float = 0.1
    round_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="2 answers or more: they are compared"
            )


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32, answer_limit=48, temperature=1.0, steps=200, learning_rate=1e-4, warmup_steps=10
    ),
    "tiny": Config(
        prompts=4, group_size=3, answer_limit=4, steps=6, learning_rate=1e-3, warmup_steps=0, round_steps=2
    ),
}
"""The paper's, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    judge: Judge | None = None,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on pairs of its own answers.

    A reward says which answer is better, or `judge` where there is one, of the first two answers to a prompt;
    a reward is then only reported. Raises `SettingError` where there is neither.
    """
    check_answered(prompts, "it learns from pairs of answers to the same prompt")
    if reward is None and judge is None:
        raise SettingError("nobody compares the answers", cure="give a reward, or judge=...")
    return preference_rounds(
        policy,
        prompts,
        reward,
        settings=config,
        build=picked(best_worst) if judge is None else partial(judged_pairs, judge=judge),
        loss=on_pairs(partial(dpo_loss, beta=config.beta)),
        round_steps=config.round_steps,
        seed=seed,
        state=state,
    )

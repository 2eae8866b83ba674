"""Token PPO: proximal policy optimisation of a language model, with a critic that values every token.

An answer earns its reward at its last token. A second network, the critic, learns what an answer is worth as
it stands before each token, and a token's advantage is what it changed, by generalised advantage estimation:

    delta_t = r_t + V(s_{t+1}) - V(s_t),    A_t = delta_t + lam A_{t+1},    V = 0 behind the end.

The loss is PPO's, clipped, the mean over the tokens of a batch; the critic's is clipped as well. Every token
may also cost its log-ratio to the model as it was at the start. `grpo` has no critic and values whole answers
by their group; `t-ppo` learns from answers that have not ended.

References: Schulman et al. 2017, Proximal policy optimization algorithms (1707.06347); Ouyang et al. 2022,
Training language models to follow instructions with human feedback (2203.02155), appendix C.4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.critics import CriticSettings, language_run_with_critic
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.language_settings import Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(CriticSettings):
    """Defaults of Ouyang et al.: 512 answers a rollout in 8 optimiser batches, seen once, clip 0.2, no
    discount, a penalty of 0.02. Learning rates, warm-up and `lam` (PPO's 0.95) are ours.

    - `clip`: range of the ratio on either side; `kl`: what a nat of log-ratio to the start costs a token.
    """

    prompts: int = 512
    group_size: int = 1
    optimizer_steps: int = 8
    learning_rate: float = 9e-6
    critic_learning_rate: float = 9e-6
    warmup_steps: int = 80
    clip: float = 0.2
    kl: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl < 0 or self.clip < 0:
            raise SettingError(f"clip is {self.clip} and kl {self.kl}", expected="0 or more")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=64, answer_limit=96, optimizer_steps=2, steps=100, learning_rate=3e-4,
        critic_learning_rate=1e-3, warmup_steps=0, critic_warmup=5, kl=0.0,
    ),
    "tiny": Config(prompts=4, answer_limit=4, optimizer_steps=2, steps=6, critic_warmup=1, warmup_steps=0),
}  # fmt: skip
"""The paper's, a laptop's for a small model, and a test's."""


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
    return language_run_with_critic(
        policy,
        prompts,
        reward,
        settings=config,
        loss=clipped(low=config.clip, high=config.clip),
        kl=config.kl,
        seed=seed,
        state=state,
    )

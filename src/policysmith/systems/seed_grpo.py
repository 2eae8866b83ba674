"""SEED-GRPO: group-relative policy optimisation that moves less where the model is unsure.

The answers to a prompt fall into clusters of one meaning. Their semantic entropy SE is 0 where all agree and
log G where all G differ, and the prompt's advantages A_i = r_i - mean(r) are scaled by a factor that falls
with it:

    A_i f(alpha SE / log G),    f(x) = 1 / (1 + x)

It costs no further sampling. A lone success among many different wrong answers, where GRPO's division by the
deviation pushes hardest, is damped most. The rest is `dr-grpo`: no deviation, tokens summed and divided by a
constant, no divergence. The factor never changes signs or order within a prompt.

What the authors' released code does and what the paper prints differ in places. The defaults are the code's
(reciprocal factor, Shannon's form on length-normalised likelihoods, alpha 0.0417), with which the factor
stays above 0.95; for an effect that can be seen take `alpha` from 0.2 to 1.

Reference: Chen et al. 2025, SEED-GRPO (2505.12346), section 3; settings of the released code as its
re-implementation in maxent-grpo reports them, over those of Liu et al. 2025, Dr. GRPO (2503.20783).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.averaging import constant_weight, token_mean_weight
from policysmith.objectives.semantic_entropy import Damping, Estimator
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.rewards.scoring import Scoring
from policysmith.rewards.verifiers import AnswerVerifier, whole
from policysmith.training.learners.group_relative import centred, clipped, group_relative, then
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_collect import as_scoring
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.uncertainty import Read, shrunk_by_uncertainty
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the released code: `alpha` and the group of 8; the run is Dr. GRPO's for 7B on mathematics.

    - `alpha`: how much uncertainty counts; `damping`: the factor f ("reciprocal" in the code; the paper lists
      "linear", "exponential" and "focal"); `estimator`: of the semantic entropy ("likelihood" in the code,
      "printed" as in the paper, "frequency" without log-probabilities).
    - `standardise`: divide by the group's deviation, as GRPO does, before the factor.
    - `token_mean`: all tokens' mean instead of the sum over `answer_limit`.
    - `selective` False: every prompt gets the mean factor, to tell smaller steps from chosen ones.
    - `clip`: range of the ratio on either side.
    """

    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 3000
    optimizer_steps: int = 8
    learning_rate: float = 1e-6
    alpha: float = 0.0417
    damping: Damping = "reciprocal"
    estimator: Estimator = "likelihood"
    standardise: bool = False
    token_mean: bool = False
    selective: bool = True
    clip: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="at least 2: one answer cannot disagree"
            )
        if not self.alpha >= 0:
            raise SettingError(f"alpha is {self.alpha}", expected="0 or more")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=32,
        group_size=8,
        answer_limit=48,
        optimizer_steps=4,
        steps=100,
        learning_rate=3e-4,
        alpha=1.0,
    ),
    "tiny": Config(prompts=2, group_size=4, answer_limit=4, optimizer_steps=2, steps=6, alpha=1.0),
}
"""The paper's; a laptop's for a small model learnt from scratch, with an alpha that shows; a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    read: Read | None = None,
    equal: Callable[[Any, Any], bool] | None = None,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, which is then trained in place) on its scored answers.

    `read` takes the answer from a text and `equal` says whether two answers mean the same; by default as the
    verifier among the rewards does both, and where there is none by the whole text.
    """
    check_answered(
        prompts, "it compares what answers to the same prompt mean, and a conversation is no answer"
    )
    read, equal = meaning(as_scoring(reward), read, equal)
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        label=then(
            group_relative() if config.standardise else centred(),
            shrunk_by_uncertainty(
                read,
                equal,
                alpha=config.alpha,
                damping=config.damping,
                estimator=config.estimator,
                selective=config.selective,
            ),
        ),
        loss=clipped(low=config.clip, high=config.clip),
        weight=lambda batch: (
            token_mean_weight(batch["mask"])
            if config.token_mean
            else constant_weight(batch["mask"], length=config.answer_limit)
        ),
        seed=seed,
        state=state,
    )


def meaning(
    scoring: Scoring, read: Read | None, equal: Callable[[Any, Any], bool] | None
) -> tuple[Read, Callable[[Any, Any], bool] | None]:
    """How answers are read and compared: as given, else as the first verifier of the scoring does it."""
    if read is not None:
        return read, equal
    for reward in scoring.rewards.values():
        if isinstance(reward, AnswerVerifier):
            return reward.extract, equal or reward.equal
    return whole, equal

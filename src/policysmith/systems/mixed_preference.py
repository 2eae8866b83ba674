"""Mixed preference optimisation: DPO on the pairs that are clear, then PPO on the prompts of the others.

A pair whose answers are nearly as good as each other is labelled by a coin as much as by its reader, and DPO
learns the coin; PPO asks a reward about fresh answers instead, but is slow, and is held by its penalty to a
reference that is no better than its start. So both, in order:

    g = |r(chosen) - r(rejected)|         easy where g > threshold, difficult elsewhere
    easy        DPO on the easy pairs, reference: the model as it was given
    difficult   PPO on the prompts of the difficult pairs, start and reference: what DPO has come to

The threshold is in the reward's own units; `quantile` takes it from the gaps. The answers of difficult pairs
are not learnt from. `start_as_reference`, `difficult_first` and `split` take the method apart.

Another method of the same initials, a weighted sum of three losses on each pair, is not this one.

Reference: Wang et al. 2024, Mixed preference optimization: reinforcement learning with data selection and
better reference model (2403.19443). The paper's thresholds and rates could not be found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.experience.outcomes import preference_rows
from policysmith.experience.preferences import Preferences, check_pairs
from policysmith.objectives.preferences import check_beta, dpo_loss, split_by_gap
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.rewards.named import reward_named
from policysmith.rewards.reward_model import RewardModel, check_trained, is_reward_model, outcome_scores
from policysmith.training.learners.critics import CriticSettings, language_run_with_critic
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import as_scoring
from policysmith.training.learners.language_settings import Reward
from policysmith.training.learners.preference import PreferenceSettings, on_pairs, preference_run
from policysmith.training.loop import Progress, RunState
from policysmith.training.stages import in_turn

EASY, DIFFICULT = "easy", "difficult"
"""The stages of a run, as its state's `phase` says them."""


@dataclass(frozen=True)
class Config(CriticSettings):
    """Common values, for the paper's are not known; `quantile` makes the difficult part the smaller one.

    - `reward`: what splits pairs and scores answers, where `train` is given none: the folder of a reward
      model, or `my_package.module:function`.
    - `steps`: of both stages; `easy_steps` of them are DPO's, with `easy_batch` pairs each, at
      `easy_learning_rate` and `beta`. The other settings are PPO's.
    - `threshold`: pairs whose rewards differ by more are easy; 0: `quantile` of the gaps is the threshold.
    - `drop_contradicted`: leave out easy pairs whose rewards contradict their label.
    - `clip`: range of PPO's ratio; `kl`: what a nat of log-ratio to the reference costs a token.
    - `start_as_reference`: hold PPO to the model as it was given, and not to what it begins as.
    - `difficult_first`: the stages in the other order. `split` off: both stages have all pairs and prompts.
    """

    steps: int = 2000
    prompts: int = 128
    group_size: int = 1
    optimizer_steps: int = 4
    learning_rate: float = 1e-6
    critic_learning_rate: float = 1e-6
    reward: str = ""
    easy_steps: int = 1000
    easy_batch: int = 64
    easy_learning_rate: float = 1e-6
    beta: float = 0.1
    threshold: float = 0.0
    quantile: float = 0.4
    drop_contradicted: bool = False
    clip: float = 0.2
    kl: float = 0.05
    start_as_reference: bool = False
    difficult_first: bool = False
    split: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        if not 0 < self.easy_steps < self.steps:
            raise SettingError(
                f"easy_steps is {self.easy_steps} of {self.steps} steps",
                expected="at least 1, and fewer than steps",
            )
        if not 0 < self.quantile < 1 or self.threshold < 0:
            raise SettingError(
                f"quantile is {self.quantile}, threshold {self.threshold}",
                expected="a quantile between 0 and 1; a threshold of 0 (none) or more",
            )
        if self.kl < 0 or self.clip < 0:
            raise SettingError(f"clip is {self.clip} and kl {self.kl}", expected="0 or more")
        _ = self.easy  # whose settings are checked too

    @property
    def easy(self) -> PreferenceSettings:
        """The settings of DPO."""
        return PreferenceSettings(
            steps=self.easy_steps,
            batch_size=self.easy_batch,
            micro_batch=self.micro_batch,
            learning_rate=self.easy_learning_rate,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            answer_limit=self.answer_limit,
            system=self.system,
            lora_rank=self.lora_rank,
        )

    @property
    def difficult(self) -> CriticSettings:
        """The settings of PPO, whose critic begins as the reward where that is a saved model."""
        own = {one.name: getattr(self, one.name) for one in fields(CriticSettings)}
        learnt = self.reward if self.reward and is_reward_model(self.reward) else ""
        return CriticSettings(
            **own | {"steps": self.steps - self.easy_steps, "critic": self.critic or learnt}
        )

    @property
    def order(self) -> tuple[Literal["easy", "difficult"], ...]:
        """The stages in their order."""
        return (DIFFICULT, EASY) if self.difficult_first else (EASY, DIFFICULT)


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=300, easy_steps=150, easy_batch=32, easy_learning_rate=1e-4, prompts=64, answer_limit=48,
        optimizer_steps=2, learning_rate=1e-4, critic_learning_rate=3e-4, warmup_steps=10, critic_warmup=10,
    ),
    "tiny": Config(
        steps=6, easy_steps=3, easy_batch=2, easy_learning_rate=1e-3, prompts=2, answer_limit=4,
        optimizer_steps=2,
    ),
}  # fmt: skip
"""Common values at the paper's scale, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    reward: Reward | None = None,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on pairs, and on a reward after it.

    Warns where the reward ranks the pairs no better than chance. Raises `DataError` naming a row that is no
    pair, and where all pairs are easy or all difficult, with the quantiles of their gaps.
    """
    if reward is None:
        if not config.reward:
            raise SettingError(
                "which reward?", cure="give --reward FOLDER of a reward model, or my_package.module:function"
            )
        reward = reward_named(config.reward)
    trained = opened(policy, config, seed=seed)
    given = trained.frozen_copy() if config.start_as_reference else None
    easy, difficult = parts(preferences, reward, config)

    def on_easy(saved: Mapping[str, Any] | None) -> Iterator[Progress]:
        loss = on_pairs(partial(dpo_loss, beta=config.beta))
        # Adapters have learnt something where this is the second stage: they are then part of the reference.
        reference = trained.frozen_copy() if config.difficult_first and trained.has_lora else None
        return preference_run(
            trained, easy, loss=loss, settings=config.easy, reference=reference, seed=seed, state=saved
        )

    def on_difficult(saved: Mapping[str, Any] | None) -> Iterator[Progress]:
        reference: Any = given or trained.frozen_copy()
        return language_run_with_critic(
            trained,
            difficult.prompts,
            reward,
            settings=config.difficult,
            loss=clipped(low=config.clip, high=config.clip),
            kl=config.kl,
            reference=reference,
            sources={"reference": reference},
            seed=seed,
            state=saved,
        )

    stages = {EASY: on_easy, DIFFICULT: on_difficult}
    return in_turn({name: stages[name] for name in config.order}, steps=config.steps, state=state)


def parts(preferences: Preferences, reward: Reward, config: Config) -> tuple[Preferences, Preferences]:
    """The easy pairs and the difficult ones; all of them both times where they are not to be split."""
    check_pairs(preferences, reader="mixed preference optimisation")
    if not config.split:
        return preferences, preferences
    chosen, rejected = pair_scores(preferences, reward, config).unbind(1)
    check_trained(chosen - rejected)
    found = split_by_gap(
        chosen,
        rejected,
        threshold=config.threshold or None,
        quantile=None if config.threshold else config.quantile,
        drop_contradicted=config.drop_contradicted,
    )
    easy, difficult = (
        Preferences([preferences[i] for i in part.tolist()], provenance=preferences.provenance)
        for part in found
    )
    return easy, difficult


def pair_scores(preferences: Preferences, reward: Reward, config: Config) -> Float[Tensor, "pair 2"]:
    """What the reward says of both answers; a reward model reads them as long as they are learnt from."""
    if isinstance(reward, RewardModel):
        limit, system = config.answer_limit, config.system
        rows = preference_rows(reward.policy, preferences, answer_limit=limit, system=system)
        return outcome_scores(reward, rows)
    texts = [text for row in preferences for text in row.answers]
    prompts = [row.prompt for row in preferences for _ in row.answers]
    return as_scoring(reward)(texts, prompts).total.view(-1, 2)

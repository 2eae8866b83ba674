"""DR-PO: PPO whose answers begin in the middle of good ones, so that they come to where the reward is.

An answer of a policy that seldom does well seldom earns anything, and PPO has nothing to learn from. But a
text can be taken up anywhere, and good answers are at hand: those that people preferred, or wrote. So with
the probability b (`reset_probability`) an answer begins with the first k tokens of the prompt's reference
answer y*, k even over 1 .. L - 1 of its L tokens, and the policy writes the rest:

    b = 0 is PPO;    policy loss = sum of max(-A rho, -A clip(rho)) over the tokens it drew / their number

Nothing else changes. Tokens that were given have no policy gradient, but the critic is fitted to them too,
advantages (GAE) run through them, and each costs `kl` times its log-ratio to the start. Rewards per token are
whitened around their mean, and an answer without an end has the reward `missing_end`.

Answers that begin with y* are better than the policy's own, and so is their `reward`; `unaided_reward` is
that of the others. With b = 1 there are hardly any, and first tokens are not learnt. Nobody resets at test
time. `ppo-max` holds PPO by other means; `ghpo` puts the beginning of a solution into the prompt, and only
where every answer fails.

Not as in the authors' code: what lies behind an end token is always masked (there it is whitened, valued and
learnt from as well); critic and policy have optimisers of their own, where one of both takes a tenth of the
critic's loss; gradients are clipped.

Reference: Chang et al. 2024, Dataset reset policy optimization for RLHF (2404.08495), and the authors' code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from policysmith.common.errors import SettingError
from policysmith.experience.examples import Examples
from policysmith.experience.preferences import Preferences
from policysmith.experience.prompts import Prompts
from policysmith.experience.resets import (
    COLUMN,
    References,
    Resetting,
    check_probability,
    drawn_weight,
    sampled_from,
    with_references,
    written,
)
from policysmith.experience.rollouts import Sampler
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.advantages import whiten
from policysmith.objectives.token_rewards import whiten_around_mean
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scored import unless_unfinished
from policysmith.training.learner import linear_schedule
from policysmith.training.learners.critics import CriticSettings, generalised, language_run_with_critic
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_settings import Label, Reward
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(CriticSettings):
    """Defaults of the authors' code: a million answers in rollouts of 512, each seen four times.

    - `reset_probability`: that an answer begins with a part of a reference answer (b).
    - `resets`: from the reference answers (`data`), or from answers that the model as it was at the start
      gives now, among the tokens that have `start_top_p` together (`start`, PPO++: no data needed).
    - `reference`: the column of the prompts that holds the reference answers.
    - `epochs`: passes over a rollout, in `optimizer_steps` parts each; `decay`: the learning rates fall
      evenly to 0 over the run, in place of `warmup_steps`.
    - `clip`: range of the ratio on either side; `kl`: what a nat of log-ratio to the start costs a token.
    - `whiten_rewards`: rewards of all tokens of a rollout to variance 1 around their mean.
    - `missing_end`: the reward of an answer that met its limit and did not end; None: as it was scored.
    """

    steps: int = 1953
    prompts: int = 512
    group_size: int = 1
    answer_limit: int = 53
    temperature: float = 0.7
    learning_rate: float = 3e-6
    critic_learning_rate: float = 3e-6
    reset_probability: float = 1.0
    resets: Literal["data", "start"] = "data"
    start_top_p: float = 0.92
    reference: str = COLUMN
    epochs: int = 4
    decay: bool = True
    clip: float = 0.2
    kl: float = 0.05
    whiten_rewards: bool = True
    missing_end: float | None = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability(self.reset_probability)
        for name in ("clip", "kl"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if self.resets not in ("data", "start"):
            raise SettingError(f"resets are '{self.resets}'", expected="data or start")
        if not 0 < self.start_top_p <= 1:
            raise SettingError(f"start_top_p is {self.start_top_p}", expected="above 0 and at most 1")
        if self.epochs < 1:
            raise SettingError(f"epochs is {self.epochs}", expected="at least 1")
        if self.decay and self.warmup_steps:
            raise SettingError(
                f"a warm-up of {self.warmup_steps} steps, and learning rates that fall from the first on",
                cure="set decay off, or warmup_steps to 0",
            )

    @property
    def needs_references(self) -> bool:
        """Whether answers are begun with what stands in the data."""
        return self.reset_probability > 0 and self.resets == "data"


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=64, answer_limit=48, steps=200, temperature=1.0, learning_rate=1e-4,
        critic_learning_rate=3e-4, epochs=2, reset_probability=0.5, decay=False, critic_warmup=5,
    ),
    "tiny": Config(prompts=4, answer_limit=4, steps=6, epochs=2, reset_probability=0.5, temperature=1.0),
}  # fmt: skip
"""The authors' recipe, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    data: Prompts | Preferences | Examples,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on a reward of its answers.

    `data` are pairs, of which the preferred answers are begun with, examples, or prompts that have reference
    answers in the column `config.reference`. Raises `DataError` naming a prompt without one, where answers
    are to begin with it, and warns where some are longer than an answer may be. `config.critic` names the
    reward model that the critic begins as.
    """
    check_answered(data, "it begins answers with parts of good ones, and an episode has none")
    policy = opened(policy, config, seed=seed)
    prompts = with_references(data, config.reference)
    sources = {}
    if config.needs_references:
        limit, column = config.answer_limit, config.reference
        sources["references"] = References(policy, prompts, limit=limit, column=column)
    total = config.steps * config.epochs * config.optimizer_steps
    return language_run_with_critic(
        policy,
        prompts,
        reward,
        settings=config,
        loss=clipped(low=config.clip, high=config.clip),
        weight=drawn_weight,
        kl=config.kl,
        engine=partial(resetting, config=config),
        around=ending(config),
        label=partial(labelled, config=config),
        epochs=config.epochs,
        schedule=linear_schedule(total=total) if config.decay else None,
        sources=sources,
        seed=seed,
        state=state,
    )


def resetting(policy: LanguagePolicy, config: Config) -> Engine:
    """What writes the answers, those that are begun and the others."""
    engine = LocalEngine(policy)
    if config.resets == "start" and config.reset_probability:
        begun = sampled_from(LocalEngine(policy.frozen_copy()), top_p=config.start_top_p)
    else:
        begun = written(policy, config.reference)
    return Resetting(engine, begun, probability=config.reset_probability)


def ending(config: Config) -> Callable[[Sampler], Sampler]:
    """What is put around the sampler so that answers without an end have their reward."""
    if config.missing_end is None:
        return lambda sampler: sampler
    return partial(unless_unfinished, otherwise=config.missing_end)


def labelled(*given: Any, config: Config, **options: Any) -> Label:
    """Advantages and targets of every token, given or drawn, from whitened rewards; see `generalised`."""
    if config.whiten_rewards:
        options["rescale"] = whiten_around_mean
    label = generalised(*given, whitening=partial(whiten, correction=0), **options)

    def unaided(samples: Samples) -> Samples:
        begun = samples.batch["prefix_length"] > 0
        samples.log("unaided_reward", samples.batch["reward"].masked_fill(begun, torch.nan))
        return label(samples)

    return unaided

"""SALSA: reinforcement learning that is held to a soup of supervised models, in place of one of them.

A policy on a learnt reward is tied to the supervised model it began as. That model is one draw of many: the
mean of the weights of two that were fine-tuned from the same start by different seeds is better than each,
and lies in a wider basin. A policy that is held to this soup may go further and is still held:

    reward of a token  -kl (log pi - log pi_soup),    pi_soup: weights alpha theta_0 + (1 - alpha) theta_1

Only the reference changes against PPO (`ppo-max`, `token-ppo`): the policy begins as the first model, so that
it is drawn to the soup while it climbs. The penalty is above 0 from the first step, and a large one can be
lowered cheaply by short answers: watch `answer_tokens`, and take a smaller `kl` than PPO's. Logged besides
`kl`, which is that to the soup, are `kl_first` and `kl_second`, how far the policy is from either model.

Models that do not lie in one basin have no useful mean: with `examples` of what they were taught, `train`
looks whether they do, and refuses those that do not.

Reference: Chegini et al. 2024, SALSA: soup-based alignment learning for stronger adaptation in RLHF
(2411.01798).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from policysmith.common.errors import SettingError
from policysmith.experience.examples import Examples
from policysmith.experience.prompts import Prompts
from policysmith.networks.soup import check_barrier, loss_barrier, soup
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.training.learners.critics import (
    CriticSettings,
    check_same_text,
    generalised,
    language_run_with_critic,
)
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.language_settings import Label, Reward
from policysmith.training.learners.language_update import rescore
from policysmith.training.learners.supervised import mean_loss
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(CriticSettings):
    """Settings of PPO are common values; the paper's are not known but for `alpha`, the midpoint.

    - `second`: folder or name of the other supervised model, fine-tuned from the same start as the policy.
      Empty: the policy itself, which makes it PPO.
    - `alpha`: the share of the policy's own weights in the soup.
    - `begin_as_soup`: begin as the soup, and not as the policy.
    - `clip`: range of the ratio on either side; `kl`: what a nat of log-ratio to the soup costs a token.
    - `log_parents`: log the divergences from both models, which then stay in memory besides their soup.
    """

    prompts: int = 128
    group_size: int = 1
    optimizer_steps: int = 4
    learning_rate: float = 1e-6
    critic_learning_rate: float = 1e-6
    clip: float = 0.2
    kl: float = 0.05
    second: str = ""
    alpha: float = 0.5
    begin_as_soup: bool = False
    log_parents: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl < 0 or self.clip < 0:
            raise SettingError(f"clip is {self.clip} and kl {self.kl}", expected="0 or more")
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha is {self.alpha}", expected="0 to 1")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=64, answer_limit=48, optimizer_steps=2, steps=250, learning_rate=1e-4,
        critic_learning_rate=3e-4, critic_warmup=10,
    ),
    "tiny": Config(prompts=4, answer_limit=4, optimizer_steps=2, steps=6, critic_warmup=1),
}  # fmt: skip
"""The paper's idea with common values, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    second: LanguagePolicy | None = None,
    examples: Examples | None = None,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on a reward, held to a soup of two.

    `second` is the other supervised model where it is not named by `config.second`; `examples` are some of
    what both were taught, or like it, by which it is checked that they lie in one basin.

    Raises `ShapeError` for models of different architecture, `CapabilityError` for adapters that have not
    been merged, another tokenizer, or models between which the loss of the examples rises.
    """
    policy = policy if isinstance(policy, LanguagePolicy) else open_policy(policy)
    if second is None and config.second:
        second = open_policy(config.second)
    reference, parents = policy.frozen_copy(), {}
    if second is not None:
        check_same_text(policy, second, what="second model")
        mixed = soup([policy.state_dict(), second.state_dict()], [config.alpha, 1 - config.alpha])
        if examples is not None:
            check_basin(policy, second, examples)
        if config.log_parents:
            parents = {"kl_first": policy.frozen_copy(), "kl_second": second.frozen_copy()}
        reference.load_state_dict(mixed)
        if config.begin_as_soup:
            policy.load_state_dict(mixed)
    return language_run_with_critic(
        policy,
        prompts,
        reward,
        settings=config,
        loss=clipped(low=config.clip, high=config.clip),
        kl=config.kl,
        reference=reference,
        label=beside(parents),
        seed=seed,
        state=state,
    )


def check_basin(first: LanguagePolicy, second: LanguagePolicy, examples: Examples) -> list[float]:
    """The loss of the examples along the line between two models, each taught like these.

    Raises `CapabilityError` where it rises between them: they do not lie in one basin.
    """
    losses = loss_barrier(
        first, first.state_dict(), second.state_dict(), lambda _: mean_loss(first, examples)
    )
    check_barrier(losses)
    return losses


def beside(others: Mapping[str, LanguagePolicy]) -> Callable[..., Label]:
    """The usual advantages, and the divergence of each answer from `others` logged by their names."""

    def make(critic: LanguageCritic, settings: CriticSettings, **options: Any) -> Label:
        usual = generalised(critic, settings, **options)

        def label(samples: Samples) -> Samples:
            batch = samples.batch
            for name, other in others.items():
                apart = batch["behaviour_log_prob"] - rescore(other, batch, settings.temperature)
                samples.log(name, torch.where(batch["mask"], apart, 0.0).sum(1))
            return usual(samples)

        return label

    return make

"""Clip-Cov and KL-Cov: group-relative learning that does not buy its reward with all of its entropy.

Under plain policy gradients the entropy H of a reasoning model is gone within a few hundred steps, and the
reward, which follows R = -a exp(H) + b, stops at b - a. A step changes H by about minus the covariance of
log-probability and advantage, and few tokens carry most of that. Two small changes to the clipped loss act on
those tokens alone:

    clip-cov    no gradient through a few tokens drawn from a band of large covariance
    kl-cov      beta |log pi - log pi_old| on the tokens of largest covariance, and no clip elsewhere

`objectives.entropy_covariance.fit_entropy_law` and `evaluation.entropy_law` fit the law to a run.

Reference: Cui et al. 2025, The entropy mechanism of reinforcement learning for reasoning language models
(2505.22617), sections 2 to 4.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.covariance import (
    choose_dropped,
    choose_held,
    clip_covariance,
    kl_covariance,
)
from policysmith.training.learners.group_relative import group_relative
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Prepare, Reward, TokenLoss
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the authors' scripts for a model of 7 B (256 prompts of 8 answers, 32 prompts to a step).

    - `method`: which tokens are chosen and what becomes of them.
    - `held`, `beta` (kl-cov): share of the tokens, and weight of their distance from the sampling policy.
    - `dropped`, `low`, `high` (clip-cov): share of the tokens, and the band of covariance they are drawn
      from; `low_quantile`: the band begins at that quantile of the batch's covariances and has no upper end.
    - `clip` (clip-cov): range of the ratio on either side; at 1 hardly anything is clipped.

    Shares are in (0, 1]: 0.002 is 0.2 per cent. The scripts for 32 B hold 0.0002 at a learning rate of 1e-6.
    """

    prompts: int = 256
    group_size: int = 8
    answer_limit: int = 8192
    filter_agreeing: bool = True
    optimizer_steps: int = 8
    learning_rate: float = 5e-7
    recompute_old: bool = True
    method: Literal["kl-cov", "clip-cov"] = "kl-cov"
    held: float = 0.002
    beta: float = 1.0
    dropped: float = 0.0002
    low: float = 1.0
    high: float = 5.0
    low_quantile: float | None = None
    clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise SettingError(f"method is '{self.method}'", expected=" or ".join(METHODS))
        for name in ("held", "dropped"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(
                    f"{name} is {getattr(self, name)}",
                    expected="a share of the tokens in (0, 1]",
                    cure="0.2 per cent is written 0.002",
                )
        if self.low >= self.high:
            raise SettingError(
                f"low is {self.low} and high is {self.high}", expected="the lower end below the upper"
            )
        if self.low_quantile is not None and not 0 <= self.low_quantile < 1:
            raise SettingError(f"low_quantile is {self.low_quantile}", expected="in [0, 1)")


def kl_cov(config: Config) -> tuple[Prepare, TokenLoss]:
    """The tokens of largest covariance are held near the policy that drew them."""
    return choose_held(fraction=config.held, temperature=config.temperature), kl_covariance(beta=config.beta)


def clip_cov(config: Config) -> tuple[Prepare, TokenLoss]:
    """A few tokens of large covariance get no gradient."""
    prepare = choose_dropped(
        fraction=config.dropped,
        low=config.low,
        high=config.high,
        low_quantile=config.low_quantile,
        clip=config.clip,
        temperature=config.temperature,
    )
    return prepare, clip_covariance(clip=config.clip)


METHODS: dict[str, Callable[[Config], tuple[Prepare, TokenLoss]]] = {"kl-cov": kl_cov, "clip-cov": clip_cov}
"""What each method puts at the seams `prepare` and `loss`."""

_SMALL: dict[str, Any] = {
    "prompts": 32,
    "answer_limit": 48,
    "filter_agreeing": False,
    "optimizer_steps": 4,
    "steps": 100,
    "learning_rate": 3e-4,
    "recompute_old": False,
    "held": 0.01,
    "dropped": 0.01,
    "low_quantile": 0.98,
}

PRESETS = {
    "paper": Config(),
    "clip-cov": Config(method="clip-cov"),
    "bench": Config(**_SMALL),
    "bench-clip-cov": Config(**_SMALL, method="clip-cov"),
    "tiny": Config(prompts=2, group_size=2, answer_limit=4, optimizer_steps=2, steps=6, rounds=2, held=0.2),
}
"""The paper's two, a laptop's for a small model learnt from scratch, and a test's.

Of the few hundred tokens of a small batch the paper's shares are one or none, and its band of covariance
was found on a vocabulary a thousand times as large: the small presets take larger shares and a band by
quantile.
"""


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
    if config.method == "kl-cov" and config.optimizer_steps == 1:
        warnings.warn(
            "with one optimiser step per rollout nothing has moved when KL-Cov looks, and its penalty has no "
            "gradient: take 2 optimizer_steps or more",
            stacklevel=2,
        )
    prepare, loss = METHODS[config.method](config)
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        label=group_relative(),
        loss=loss,
        prepare=prepare,
        seed=seed,
        state=state,
    )

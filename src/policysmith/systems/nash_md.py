"""Nash-MD: a policy that no other beats, learnt from who is preferred to whom and not from a reward.

Preferences of many people go in circles: A before B, B before C, C before A. No reward says that, and a
policy that is best for a fitted one is beaten. The policy sought here is the equilibrium of the game in which
two policies answer and a judge says whose answer is better, regularised by the divergence from the model at
the start. Each step the policy answers, and so does an opponent, the geometric mixture of the policy and the
start, pi^(1 - mixture) mu^mixture, token by token; then

    gradient = E[ grad log pi(y) (P(y better than y') - 1/2 - tau log pi(y)/mu(y)) ]

`opponent` self is plain self-play, which circles; ref is the best answer to the start; ema plays against an
average of the weights so far (Nash-EMA). With a reward in place of a judge, P = sigmoid(r(y) - r(y')), the
game is transitive and nothing is gained over `rloo`.

Reference: Munos et al. 2023, Nash learning from human feedback (2312.00886).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.experience.opponents import against
from policysmith.experience.prompts import Prompts
from policysmith.experience.rollouts import Sampler, sampled
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.averaging import sequence_sum_weight
from policysmith.objectives.nash import Form, nash_policy_gradient_loss
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import geometric_mixture
from policysmith.rewards.judges import Judge, checked, judge_by
from policysmith.training.learners.language import language_run, opened
from policysmith.training.learners.language_collect import as_scoring
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.references import MovableReference
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Mixture and divergence from the ranges that were best in the paper; batch and rate are usual values.

    - `opponent`: `mixture` of the policy and the start, `ema` of the weights so far, the policy itself
      (`self`), or the start (`ref`).
    - `mixture`: the share of the start in the mixture, or by how much less the average follows the policy: 0
      is self-play, 1 the start. `divergence`: tau, the weight of the divergence from the start.
    - `form`: `sequence`, the divergence of whole answers, or `token`, each token weighed by its own ratio.
    """

    prompts: int = 64
    group_size: int = 1
    opponent: Literal["mixture", "ema", "self", "ref"] = "mixture"
    mixture: float = 0.25
    divergence: float = 0.05
    form: Form = "sequence"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mixture <= 1:
            raise SettingError(f"mixture is {self.mixture}", expected="0 to 1")
        if not 0 <= self.divergence < float("inf"):
            raise SettingError(f"divergence is {self.divergence}", expected="0 or more, and finite")
        for name, words in (
            ("opponent", ("mixture", "ema", "self", "ref")),
            ("form", ("sequence", "token")),
        ):
            if getattr(self, name) not in words:
                raise SettingError(f"{name} is '{getattr(self, name)}'", expected=", ".join(words))


PRESETS = {
    "paper": Config(),
    "bench": Config(answer_limit=48, steps=300, learning_rate=1e-4),
    "tiny": Config(prompts=4, answer_limit=4, steps=6, learning_rate=1e-3),
}
"""The paper's, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None = None,
    *,
    judge: Judge | None = None,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) to be preferred.

    `judge` says how likely the first of two answers is better; with a `reward` instead, that is the sigmoid
    of the difference. Raises `SettingError` unless exactly one of them is given.
    """
    check_answered(prompts, "a judge compares two answers to the same prompt")
    if (judge is None) == (reward is None):
        raise SettingError("a judge or a reward?", expected="exactly one of them")
    if judge is None:
        assert reward is not None
        judge = judge_by(as_scoring(reward))
    policy = opened(policy, config, seed=seed)
    other = MovableReference(policy, temperature=config.temperature)
    if config.opponent == "mixture":
        engine = LocalEngine(policy, others=[other.policy], combine=geometric_mixture(config.mixture))
    else:
        engine = LocalEngine(policy if config.opponent == "self" else other.policy)
    opponent = sampled(policy, engine, config.sampling, copies=config.group_size, system=config.system)
    word = checked(judge)

    def wrap(sampler: Sampler, policy: LanguagePolicy) -> Sampler:
        game = against(sampler, opponent, word)

        def sample(groups: Any, **options: Any) -> Samples:
            if config.opponent == "ema":
                other.move(1 - config.mixture)
            return game(groups, **options)

        return sample

    return language_run(
        policy,
        prompts,
        None,
        settings=config,
        wrap=wrap,
        label=whole,
        loss=game_loss(config),
        weight=lambda batch: sequence_sum_weight(batch["mask"]),
        reference=True,
        sources={"opponent": other},
        seed=seed,
        state=state,
    )


def whole(samples: Samples) -> Samples:
    """The samples as they are: the loss itself knows what an answer is worth."""
    return samples


def game_loss(config: Config) -> Any:
    """The policy gradient of the game, per token."""

    def loss(
        log_prob: Float[Tensor, "row time"], entropy: Float[Tensor, "row time"], batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        values = nash_policy_gradient_loss(
            log_prob,
            batch["reference_log_prob"],
            batch["reward"],
            batch["mask"],
            divergence=config.divergence,
            form=config.form,
        )
        return values, {}

    return loss

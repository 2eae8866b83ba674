"""Critics of language runs: a value for every token, learnt beside the policy, on rows of its own.

    label     values under the weights of now -> advantages (GAE) and targets, constant from here on
    update    steps of the critic, then the policy's usual steps

The critic is fitted to T = A + V_old by 0.5 max((V - T)^2, (clip(V, V_old - low, V_old + high) - T)^2).

The pieces are for `RunState`s with two learners, `policy` and `critic`; `language_run_with_critic` puts them
together as PPO does, and recipes that learn from other rows use them one by one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.prompts import Prompts, PromptSampler
from policysmith.experience.rollouts import Sampler
from policysmith.experience.world_prompts import table_of
from policysmith.objectives.advantages import generalised_advantage, whiten
from policysmith.objectives.averaging import token_mean_weight
from policysmith.objectives.policy_gradient import clipped_value_loss
from policysmith.objectives.token_rewards import explained_variance, kl_penalty, reward_at_end
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.reward_model import RewardModel, is_reward_model
from policysmith.training.learner import Learner, Loss, Schedule
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import collecting, usual_sampler
from policysmith.training.learners.language_settings import (
    Label,
    LanguageSettings,
    Prepare,
    Reward,
    TokenLoss,
    Weight,
)
from policysmith.training.learners.language_update import (
    frozen_reference,
    logged,
    passes,
    policy_learner,
    rescore,
    updating,
    warming,
)
from policysmith.training.loop import Progress, RunState, Stateful, Update, run

TokenRewards = Callable[[Float[Tensor, "row time"], Bool[Tensor, "row time"]], Float[Tensor, "row time"]]
"""(rewards or advantages per token, mask) -> the same on another scale."""


@dataclass(frozen=True)
class CriticSettings(LanguageSettings):
    """What a language run with a critic needs besides.

    - `critic`: folder or name of the model that the critic begins as; the policy itself where it is empty. Of
      a saved reward model it takes over body and head, and so begins as that reward of what is written so
      far. `critic_learning_rate`: its own; the rest of AdamW is the policy's.
    - `critic_warmup`: steps at the beginning in which the critic alone learns.
    - `discount`, `lam`: of GAE; `whiten`: scale the advantages of a rollout to mean 0 and variance 1.
    - `value_low`, `value_high`: how far the critic may move from what it said, before its loss stops helping.
    """

    critic: str = ""
    critic_learning_rate: float = 1e-5
    critic_warmup: int = 0
    discount: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    value_low: float = 0.2
    value_high: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("critic_learning_rate", "critic_warmup", "value_low", "value_high"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        for name in ("discount", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 to 1")


def language_run_with_critic(
    model: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    settings: CriticSettings,
    loss: TokenLoss,
    kl: float = 0.0,
    weight: Weight = lambda batch: token_mean_weight(batch["mask"]),
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    around: Callable[[Sampler], Sampler] = lambda sampler: sampler,
    prepare: Prepare | None = None,
    reference: LanguagePolicy | None = None,
    engine: Callable[[LanguagePolicy], Engine] = LocalEngine,
    label: Callable[..., Label] | None = None,
    epochs: int = 1,
    schedule: Schedule | None = None,
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """`language_run` with advantages from a critic, and a penalty `kl` per token for leaving the reference.

    An answer ends where it ends: one that was cut by the limit is followed by nothing, too. `around` wraps
    the sampler of all answers, whichever process wrote them: there rewards are normalised over the run
    (`rewards.normalised`), whose moments are one of the `sources`. `reference` is what may not be left, by
    default the policy as it is given; `prepare` as of `language_run`, for the policy's steps.

    `engine` makes what writes the answers, of the policy as it is given; `label` takes the place of
    `generalised` and is called as it is; both learners go over a rollout `epochs` times, at the rate of their
    settings times `schedule`, where there is one, by their own steps.
    """
    policy = opened(model, settings, seed=seed)
    start = _reference(policy, reference, settings) if kl else None
    critic = critic_learner(policy, settings, schedule=schedule)
    module: Any = critic.module
    writer = engine(policy)
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers = generator(seed, "answers")
    run_state = RunState(
        learners={
            "policy": policy_learner(policy, loss, settings, schedule=schedule),
            "critic": critic,
        },
        generators={
            "prompts": source.rng,
            "answers": answers,
            "update": generator(seed, "update"),
            "critic": generator(seed, "critic"),
        },
        sources={"prompts": source, **sources},
    ).restored(state)
    return run(
        run_state,
        collect=collecting(
            source,
            around(
                usual_sampler(policy, reward, settings, wrap=wrap, engine=writer, table=table_of(prompts))
            ),
            (label or generalised)(module, settings, kl=kl, reference=start),
            settings,
            rng=answers,
        ),
        update=with_critic(
            updating(weight, settings, prepare=prepare, epochs=epochs), settings, epochs=epochs
        ),
        steps=settings.steps,
    )


# ---- the pieces --------------------------------------------------------------------------------------


def _reference(
    policy: LanguagePolicy, reference: LanguagePolicy | None, settings: CriticSettings
) -> Callable[[TensorDict], Tensor]:
    """Log-probabilities under the given reference, or under the policy as it is now."""
    if reference is None:
        return frozen_reference(policy, temperature=settings.temperature)
    check_same_text(policy, reference, what="reference")
    return lambda batch: rescore(reference, batch, settings.temperature)


def critic_learner(
    policy: LanguagePolicy, settings: CriticSettings, *, schedule: Schedule | None = None
) -> Learner:
    """The critic under its clipped loss: a copy of the policy as it is now, or what `settings.critic` names.

    `schedule` takes the place of the settings' warm-up.

    Raises `CapabilityError` where that model reads other tokens than the policy, or fewer of them.
    """
    critic = begun_critic(policy, settings.critic)
    check_same_text(policy, critic.policy)
    optimizer = torch.optim.AdamW(
        [p for p in critic.parameters() if p.requires_grad],
        lr=settings.critic_learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return Learner(
        critic,
        value_loss(low=settings.value_low, high=settings.value_high),
        optimizer=optimizer,
        schedule=schedule or warming(settings.warmup_steps),
        max_grad_norm=settings.max_grad_norm,
        micro_batch=settings.micro_batch,
    )


def begun_critic(policy: LanguagePolicy, source: str = "") -> LanguageCritic:
    """A critic that begins as a saved reward model, another model (with a head of zero), or the policy."""
    if source and is_reward_model(source):
        model = RewardModel.from_pretrained(source)
        return LanguageCritic(model.policy, head=model.head)
    return LanguageCritic(open_policy(source) if source else deepcopy(policy))


def check_same_text(policy: LanguagePolicy, reader: LanguagePolicy, *, what: str = "critic") -> None:
    """Raise `CapabilityError` where a critic or a reference could not read all that the policy writes."""
    if policy.tokenizer.get_vocab() != reader.tokenizer.get_vocab():
        raise CapabilityError(
            f"policy and {what} have different tokenizers",
            expected=f"a {what} that reads the tokens that the policy writes",
            cure=f"begin the {what} as a model of the policy's family",
        )
    if reader.context < policy.context:
        raise CapabilityError(
            f"a {what} that reads {reader.context} tokens for a policy that writes up to {policy.context}",
            expected="a context at least as long as the policy's",
        )


def value_loss(*, low: float, high: float) -> Loss:
    """The clipped squared error per token of `mask`; asks for `old_value` and `value_target` [row, time]."""

    def loss(
        critic: LanguageCritic, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        value = critic.value(batch["token"], batch["attended"], mask=batch["mask"])
        target = batch["value_target"]
        values = clipped_value_loss(value, batch["old_value"], target, low=low, high=high)
        return values, {"error": (value.detach() - target).abs()}

    return loss


def judged(critic: LanguageCritic, batch: TensorDict) -> Float[Tensor, "row time"]:
    """The critic's values before each token of `mask`, 0 elsewhere, without gradient."""
    with torch.no_grad():
        return critic.value(batch["token"], batch["attended"], mask=batch["mask"])


def generalised(
    critic: LanguageCritic,
    settings: CriticSettings,
    *,
    kl: float = 0.0,
    reference: Callable[[TensorDict], Tensor] | None = None,
    rescale: TokenRewards = lambda reward, mask: reward,
    whitening: TokenRewards = whiten,
) -> Label:
    """`advantage`, `old_value` and `value_target` [row, time] by GAE, the reward on each answer's last token.

    With a `reference`, each token costs `kl` times its log-ratio to it, which is part of the reward. The
    rewards of all tokens together are brought to another scale by `rescale` before they are learnt from, the
    advantages by `whitening`, where the settings have it.
    """

    def label(samples: Samples) -> Samples:
        batch = samples.batch
        mask = batch["mask"]
        reward = reward_at_end(batch["reward"], mask)
        if reference is not None:
            batch["reference_log_prob"] = reference(batch)
            drawn = batch["behaviour_log_prob"]
            reward = reward + kl_penalty(drawn, batch["reference_log_prob"], mask, coefficient=kl)
            divergence = torch.where(mask, drawn - batch["reference_log_prob"], 0.0)
            samples.log("kl", divergence.sum(1))
            samples.log("kl_per_token", divergence.sum(1) / mask.sum(1).clamp(min=1))
            samples.log("reference_perplexity", perplexity(batch["reference_log_prob"], mask))
        samples.log("perplexity", perplexity(batch["behaviour_log_prob"], mask))
        reward = rescale(reward, mask)
        value = judged(critic, batch)
        end = torch.zeros_like(value[:, 0])
        advantage = generalised_advantage(
            reward, value, end, mask, discount=settings.discount, lam=settings.lam
        )
        batch["old_value"], batch["value_target"] = value, advantage + value
        batch["advantage"] = whitening(advantage, mask) if settings.whiten else advantage
        return samples

    return label


def perplexity(log_prob: Float[Tensor, "row time"], mask: Bool[Tensor, "row time"]) -> Float[Tensor, "row"]:
    """exp of minus the mean log-probability of an answer's tokens."""
    return (-torch.where(mask, log_prob, 0.0).sum(1) / mask.sum(1).clamp(min=1)).exp()


def with_critic(
    policy_update: Update,
    settings: CriticSettings,
    *,
    rows: Callable[[TensorDict], TensorDict] = lambda batch: batch,
    weight: Weight = lambda batch: token_mean_weight(batch["mask"]),
    epochs: int = 1,
) -> Update:
    """The critic's steps on `rows(batch)`, then the policy's: none of them during the critic's warm-up.

    The critic takes as many steps as the policy, over the prompts of its own rows; none where there are no
    rows.
    """

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        metrics = step_critic(
            state, rows(batch).exclude("log", "weight"), settings, weight=weight, epochs=epochs
        )
        if state.step < settings.critic_warmup:
            return logged(batch) | metrics
        return policy_update(state, batch) | metrics

    return update


def step_critic(
    state: RunState, batch: TensorDict, settings: CriticSettings, *, weight: Weight, epochs: int = 1
) -> dict[str, float]:
    """The critic's steps on a rollout; metrics under `critic/`, of what it said before them `explained`."""
    if len(batch) == 0:
        return {}
    mask = batch["mask"]
    explained = explained_variance(batch["old_value"], batch["value_target"], mask)
    taken = []
    for part in passes(batch, settings.optimizer_steps, epochs=epochs, rng=state.generators["critic"]):
        part["weight"] = weight(part)
        taken.append(state.learners["critic"].step(part))
    means = {f"critic/{name}": sum(one[name] for one in taken) / len(taken) for name in taken[0]}
    return means | {"critic/explained": float(explained)}

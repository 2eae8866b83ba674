"""The language learner: answers are sampled, scored and labelled, and the policy takes steps on their tokens.

    collect   draw prompts -> sampler -> rewards -> filter -> reference -> label (advantages)
    update    cut into optimiser batches -> prepare -> weight per token -> loss per token -> step

Each word is a function that a method may put its own in place of; `language_run` puts them together:

    sampler    groups of prompts -> `Samples` with rewards (`experience.rollouts`); methods wrap the usual one
    label      `Samples` -> `Samples` that know what they are worth, `advantage` [row, 1] or [row, time]
    loss       (log_prob, entropy, batch) -> a value per token, and statistics
    prepare    what is chosen over a whole optimiser batch before it is cut, such as tokens to leave out
    weight     what each token counts (`objectives.averaging`)
    reference  a policy that does not learn; its log-probabilities come with the batch
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.keys import require_keys
from policysmith.common.rng import draw_seed, generator, seeded_initialisation
from policysmith.experience.prompts import Prompt, Prompts, PromptSampler
from policysmith.experience.rollouts import Groups, Sampler, sampled
from policysmith.objectives.advantages import agreeing
from policysmith.objectives.averaging import token_mean_weight
from policysmith.objectives.policy_gradient import truncated_importance_weight
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.memory import check_memory, training_memory
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, in_order, join
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.scored import scored
from policysmith.rewards.scoring import Scoring
from policysmith.training import processes
from policysmith.training.learner import Learner, Loss
from policysmith.training.loop import Collect, Progress, RunState, Stateful, Update, run

Label = Callable[[Samples], Samples]
"""Samples with rewards -> samples with what the loss asks for."""

TokenLoss = Callable[
    [Float[Tensor, "row time"], Float[Tensor, "row time"], TensorDict],
    tuple[Float[Tensor, "row time"], dict[str, Tensor]],
]
"""(log-probabilities, entropies, batch) -> (value per token, statistics per token)."""

Weight = Callable[[TensorDict], Float[Tensor, "row time"]]
"""An optimiser batch -> what each of its tokens counts."""

Prepare = Callable[[LanguagePolicy, TensorDict, torch.Generator], TensorDict]
"""(policy, optimiser batch, rng) -> the batch with what the loss needs of all its rows together."""

Reward = Scoring | Callable[..., Any] | Mapping[str, Callable[..., Any]]
"""A reward, several by name (their sum), or a `Scoring`, which has weights and limits too."""

PATIENCE = 10
"""Steps in a row without anything to learn before a warning says so."""


@dataclass(frozen=True)
class LanguageSettings:
    """What every language run needs; a system's configuration says where its values are from.

    - `steps`: rollouts; each asks `prompts` prompts for `group_size` answers of at most `answer_limit`
      tokens, drawn at `temperature`, with `top_p` and `stop` as in `Sampling`. `system`: a message before
      each prompt.
    - `filter_agreeing`: drop groups whose rewards all agree and ask further prompts, `rounds` times at most.
    - `optimizer_steps` per rollout, over the prompts in random order; `micro_batch` rows at a time.
    - `learning_rate` (constant behind `warmup_steps`), `weight_decay`, `max_grad_norm`: of AdamW.
    - `lora_rank`: train adapters of this rank, 0 for all weights.
    - `recompute_old`: score the answers again under the weights at the start of the update, instead of
      taking the sampler's word for it; `importance_limit`: weigh tokens by how far the two differ, at most
      so much (None: do not).
    """

    steps: int = 500
    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    system: str = ""
    filter_agreeing: bool = False
    rounds: int = 10
    optimizer_steps: int = 1
    micro_batch: int | None = None
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 0
    recompute_old: bool = False
    importance_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "prompts", "group_size", "answer_limit", "optimizer_steps", "rounds"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "lora_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if not self.temperature > 0:
            raise SettingError(
                f"temperature is {self.temperature}",
                expected="above 0: answers are learnt from because they differ",
            )
        if self.optimizer_steps > self.prompts:
            raise SettingError(
                f"{self.optimizer_steps} optimiser steps on {self.prompts} prompts",
                expected="at least one prompt per step",
            )
        if self.importance_limit is not None and not (self.recompute_old and self.importance_limit > 0):
            raise SettingError(
                f"importance_limit is {self.importance_limit}",
                expected="above 0, with recompute_old: it weighs one by the other",
            )

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        return Sampling(
            limit=self.answer_limit, temperature=self.temperature, top_p=self.top_p, stop=tuple(self.stop)
        )


def language_run(
    model: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    settings: LanguageSettings,
    label: Label,
    loss: TokenLoss,
    weight: Weight = lambda batch: token_mean_weight(batch["mask"]),
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    prepare: Prepare | None = None,
    reference: bool = False,
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train the model on its own scored answers; see the module for what the functions are.

    A model given as a folder or a name is loaded; a policy is trained in place. `wrap` makes the method's
    sampler of the usual one, whose answers come with their rewards; `reward` is None where that sampler has
    rewards of its own, as one that plays episodes has (`experience.conversations`). With `reference`, the
    policy as given stays beside the one that learns (for adapters, the model without them). `sources` are
    what the method's functions remember from step to step; they are saved with the run.
    """
    policy = opened(model, settings, seed=seed)
    before = frozen_reference(policy, temperature=settings.temperature) if reference else None
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers = generator(seed, "answers")
    sampler = usual_sampler(policy, reward, settings, wrap=wrap)
    run_state = RunState(
        learners={"policy": policy_learner(policy, loss, settings)},
        generators={"prompts": source.rng, "answers": answers, "update": generator(seed, "update")},
        sources={"prompts": source, **sources},
    ).restored(state)
    return run(
        run_state,
        collect=collecting(source, sampler, label, settings, rng=answers, reference=before),
        update=updating(weight, settings, prepare=prepare),
        steps=settings.steps,
    )


# ---- the pieces --------------------------------------------------------------------------------------


def opened(
    model: LanguagePolicy | str | os.PathLike[str], settings: LanguageSettings, *, seed: int
) -> LanguagePolicy:
    """The policy that a run trains: loaded where a folder or name is given, with adapters where asked.

    Raises `SettingError` where a step would not fit into memory, with the estimate.
    """
    policy = model if isinstance(model, LanguagePolicy) else open_policy(model)
    if settings.lora_rank and not policy.has_lora:
        with seeded_initialisation(seed):
            policy = policy.with_lora(settings.lora_rank)
    rows = settings.micro_batch or math.ceil(
        settings.prompts * settings.group_size / settings.optimizer_steps / processes.count()
    )
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    check_memory(
        training_memory(policy, micro_batch=rows, length=min(policy.context, 2 * settings.answer_limit)),
        policy.device,
        held=weights,
    )
    return policy


def policy_learner(policy: LanguagePolicy, loss: TokenLoss, settings: LanguageSettings) -> Learner:
    """AdamW on the policy's trainable weights, under a loss per token."""
    return adam_learner(policy, over_tokens(loss, temperature=settings.temperature), settings)


def adam_learner(policy: LanguagePolicy, loss: Loss, settings: LanguageSettings) -> Learner:
    """AdamW on the policy's trainable weights, under any loss."""
    optimizer = torch.optim.AdamW(
        [p for p in policy.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    warmup = settings.warmup_steps
    return Learner(
        policy,
        loss,
        optimizer=optimizer,
        schedule=(lambda step: min(1.0, (step + 1) / warmup)) if warmup else None,
        max_grad_norm=settings.max_grad_norm,
        micro_batch=settings.micro_batch,
    )


def over_tokens(loss: TokenLoss, *, temperature: float) -> Loss:
    """A loss of log-probabilities as a loss of a policy; also says how far the two engines' words differ."""

    def apply(policy: LanguagePolicy, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        log_prob, entropy = policy.log_prob(
            batch["token"], batch["attended"], mask=batch["mask"], temperature=temperature
        )
        values, statistics = loss(log_prob, entropy, batch)
        moved = (log_prob.detach() - batch["old_log_prob"]).abs().masked_fill(_off_policy(batch)[:, None], 0)
        return values, {"entropy": entropy.detach(), "moved": moved, **statistics}

    return apply


def usual_sampler(
    policy: LanguagePolicy,
    reward: Reward | None,
    settings: LanguageSettings,
    *,
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    engine: Engine | None = None,
) -> Sampler:
    """Answers of the policy with their rewards, as a method wraps them, shared among the processes."""
    plain = sampled(
        policy,
        engine or LocalEngine(policy),
        settings.sampling,
        copies=settings.group_size,
        system=settings.system,
    )
    usual = plain if reward is None else scored(plain, as_scoring(reward))
    return spread(wrap(usual, policy))


def as_scoring(reward: Reward) -> Scoring:
    """A reward in any of its forms as a `Scoring`."""
    if isinstance(reward, Scoring):
        return reward
    return Scoring(reward if isinstance(reward, Mapping) else {"reward": reward})


def spread(sampler: Sampler) -> Sampler:
    """Each process answers its part of the prompts, and all of them get all answers."""

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        # A generator of their own for the calls inside, whose number depends on the prompts.
        inside = torch.Generator().manual_seed(draw_seed(rng))
        mine = {group: groups[group] for group in processes.share(sorted(groups))}
        part = sampler(mine, rng=inside, version=version, copies=copies) if mine else None
        parts = [one for one in processes.gather(part) if one is not None]
        return parts[0] if len(parts) == 1 else in_order(join(parts))

    return sample


class SpreadEngine:
    """An engine whose requests are shared among the processes; all of them get all answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator, version: int = 0
    ) -> Samples:
        """See `Engine`. A row's draws depend on its group and copy, and so not on who writes it."""
        inside = torch.Generator().manual_seed(draw_seed(rng))  # drawn also by a process without a part
        mine = processes.share(requests)
        part = self.engine.sample(mine, sampling, rng=inside, version=version) if mine else None
        parts = [one for one in processes.gather(part) if one is not None]
        order = [row for first in range(len(parts)) for row in range(first, len(requests), processes.count())]
        found = join(parts).select(torch.tensor(order).argsort().tolist())
        found.steps = max(one.steps for one in parts)  # made side by side
        return found


def collecting(
    source: PromptSampler,
    sampler: Sampler,
    label: Label,
    settings: LanguageSettings,
    *,
    rng: torch.Generator,
    reference: Callable[[TensorDict], Tensor] | None = None,
) -> Collect:
    """The usual `collect`: prompts, answers with rewards, the filter, the reference, the label."""
    idle = 0

    def collect(state: RunState) -> TensorDict:
        nonlocal idle
        samples = gathered(source, sampler, settings, rng=rng, version=state.step)
        state.shown = shown(samples)
        agree = agreement(samples.batch, settings)
        samples.log("agreeing", agree)
        idle = idle + 1 if bool((agree == 1).all()) else 0
        if idle == PATIENCE:
            warnings.warn(
                f"for {PATIENCE} steps the answers that are compared have had equal rewards "
                f"(the last mean is {float(samples.batch['reward'].mean()):.3g}), so that nothing was better "
                "or worse: take prompts that are neither too hard nor too easy, or raise the temperature",
                stacklevel=2,
            )
        if reference is not None:
            samples.batch["reference_log_prob"] = reference(samples.batch)
        return label(samples).batch

    return collect


def agreement(batch: TensorDict, settings: LanguageSettings) -> Float[Tensor, "row"]:
    """1 where all rewards that a row is compared with agree, else 0; NaN for imitated rows: with none."""
    group = compared(batch["group_id"], settings)
    if "imitation" not in batch.keys():  # noqa: SIM118
        return agreeing(batch["reward"], group).float()
    usual = ~(batch["imitation"] > 0)
    agree = torch.full((len(batch),), torch.nan, device=batch["reward"].device)
    agree[usual] = agreeing(batch["reward"][usual], group[usual]).float()
    return agree


def compared(group_id: Int[Tensor, "row"], settings: LanguageSettings) -> Int[Tensor, "row"]:
    """Whose rewards tell better from worse: those of a group, or of all where each prompt has one answer."""
    return group_id if settings.group_size > 1 else torch.zeros_like(group_id)


def gathered(
    source: PromptSampler,
    sampler: Sampler,
    settings: LanguageSettings,
    *,
    rng: torch.Generator,
    version: int,
) -> Samples:
    """Answers to `settings.prompts` prompts; where groups that agree are dropped, to more until enough stay.

    After `rounds` rounds the run goes on with what there is; where nothing is left, with the last round as it
    was.
    """
    kept: list[Samples] = []
    groups = asked = 0
    last = None
    for _ in range(settings.rounds if settings.filter_agreeing else 1):
        wanted = settings.prompts - groups
        last = sampler(dict(enumerate(source.sample(wanted), start=asked)), rng=rng, version=version)
        require_keys(last.batch, ["reward"], reader="learning from answers")
        asked += wanted
        if not settings.filter_agreeing:
            return last
        keep = ~agreeing(last.batch["reward"], last.batch["group_id"])
        kept.append(last.select(keep.nonzero()[:, 0].tolist()))
        groups += len(kept[-1].batch["group_id"].unique())
        if groups == settings.prompts:
            break
    assert last is not None
    if not groups:
        warnings.warn(
            f"of {asked} prompts none was left whose answers differ in reward, the last being "
            f"{_text(last.about[-1])[:80]!r}: nothing is learnt from this rollout",
            stacklevel=2,
        )
    samples = join(kept) if groups else last
    samples.log("prompts_asked", asked)
    return samples


def updating(weight: Weight, settings: LanguageSettings, *, prepare: Prepare | None = None) -> Update:
    """The usual `update`: `optimizer_steps` steps of the policy on a rollout."""

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        learner = state.learners["policy"]
        policy: Any = learner.module
        metrics = logged(batch)
        batch = batch.exclude("log")
        batch["old_log_prob"] = batch["behaviour_log_prob"]
        if settings.recompute_old:
            batch["old_log_prob"] = rescore(policy, batch, settings.temperature)
        taken = []
        for part in optimiser_batches(batch, settings.optimizer_steps, rng=state.generators["update"]):
            if prepare is not None:
                part = prepare(policy, part, state.generators["update"])
            part["weight"] = weight(part)
            if settings.importance_limit is not None:
                part["weight"] = part["weight"] * importance(part, most=settings.importance_limit)
            taken.append(learner.step(part))
        # Before the first step nothing has moved: what differs then is the engine's arithmetic.
        gap = taken[0].pop("moved")
        if settings.recompute_old:
            gap = _gap(batch)
        means = {name: _mean([one[name] for one in taken if name in one]) for name in taken[0]}
        return metrics | means | {"gap": gap}

    return update


def importance(batch: TensorDict, *, most: float) -> Float[Tensor, "row time"]:
    """How far the weights at the start of the update differ from those that sampled; 1 on `off_policy` rows.

    How likely those were where they were written says nothing of where they are learnt.
    """
    weight = truncated_importance_weight(batch["old_log_prob"], batch["behaviour_log_prob"], most=most)
    return weight.masked_fill(_off_policy(batch)[:, None], 1.0)


def optimiser_batches(batch: TensorDict, count: int, *, rng: torch.Generator) -> list[TensorDict]:
    """The rows in `count` parts, groups in random order and whole; fewer parts for fewer groups."""
    if count == 1:
        return [batch.clone(recurse=False)]
    groups = batch["group_id"].unique()
    order = groups[torch.randperm(len(groups), generator=rng)]
    return [
        batch[torch.isin(batch["group_id"], part)] for part in order.tensor_split(min(count, len(groups)))
    ]


def rescore(policy: LanguagePolicy, batch: TensorDict, temperature: float) -> Float[Tensor, "row time"]:
    """The log-probabilities of what the batch learns from, under the weights of now, without gradient."""
    with torch.no_grad():
        return policy.log_prob(
            batch["token"], batch["attended"], mask=batch["mask"], temperature=temperature
        )[0]


def frozen_reference(policy: LanguagePolicy, *, temperature: float) -> Callable[[TensorDict], Tensor]:
    """Log-probabilities under the policy as it is now: a frozen copy, or the model without its adapters."""
    if policy.has_lora:

        def without(batch: TensorDict) -> Tensor:
            with policy.without_lora() as bare:
                return rescore(bare, batch, temperature)

        return without
    frozen = policy.frozen_copy()
    return lambda batch: rescore(frozen, batch, temperature)


def shown(samples: Samples, *, most: int = 4) -> list[dict[str, Any]]:
    """A few answers, of different prompts, as plain data."""
    if not len(samples):
        return []
    _, first = torch.unique(samples.batch["group_id"], return_inverse=True)
    rows = [int((first == group).nonzero()[0]) for group in range(min(most, int(first.max()) + 1))]
    return [
        {
            "prompt": _text(samples.about[row]),
            "answer": samples.texts[row],
            "reward": float(samples.batch["reward"][row]),
        }
        for row in rows
    ]


def logged(batch: TensorDict) -> dict[str, float]:
    """The means of what was logged per row, over the rows that it says something of (not NaN)."""
    if "log" not in batch.keys():  # noqa: SIM118
        return {}
    means = {str(name): float(values.float().nanmean()) for name, values in batch["log"].items()}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def _text(prompt: Prompt) -> str:
    return prompt.text if isinstance(prompt.text, str) else "\n".join(turn["content"] for turn in prompt.text)


def _gap(batch: TensorDict) -> float:
    mask = batch["mask"] & ~_off_policy(batch)[:, None]
    gap = (batch["old_log_prob"] - batch["behaviour_log_prob"])[mask].abs()
    return float(gap.mean()) if len(gap) else 0.0


def _off_policy(batch: TensorDict) -> Bool[Tensor, "row"]:
    """Rows that were written on another prompt; none where the batch does not say."""
    if "off_policy" in batch.keys():  # noqa: SIM118
        return batch["off_policy"]
    return torch.zeros(len(batch), dtype=torch.bool, device=batch["mask"].device)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

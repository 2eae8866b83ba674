"""Preference learning: a policy learns which of several outcomes is better, from labels, without a reward.

    collect   a batch of preferences -> what the reference says of their outcomes, asked once
    update    log pi(outcome) - log pi_ref(outcome) -> loss of each list -> step

The loss is the seam: a direct preference method is one function of the log-ratios of a list of outcomes and
of their labels, and the functions of `objectives` become one by `on_pairs` and `on_lists`. What an outcome is
only `log_prob` knows, by default the sum over an answer's tokens; the rest serves robot segments and samples
of a diffusion policy as well.

`preference_run` learns from preferences that are there; `training.learners.preference_rounds` makes its own
from what the policy writes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.outcomes import PreferenceSampler
from policysmith.experience.passes import BATCHES_AT_A_TIME
from policysmith.experience.preferences import Preferences
from policysmith.policies.language.policy import TOKENS_AT_A_TIME, LanguagePolicy
from policysmith.training import processes
from policysmith.training.learner import Learner, Loss, Schedule, cosine_schedule
from policysmith.training.learners.language import opened_for
from policysmith.training.loop import Progress, RunState, Stateful, run

PreferenceLoss = Callable[
    [Float[Tensor, "row outcome"], TensorDict], tuple[Float[Tensor, "row"], dict[str, Tensor]]
]
"""(log-ratios to the reference, rows) -> (value per row, statistics per row).

The rows have `label` and `present` (`common.keys`), and `log_prob` with its gradient for losses that look at
more than ratios. Where an outcome is not present its log-ratio is 0.
"""

LogProb = Callable[[Any, TensorDict], Float[Tensor, "row outcome"]]
"""(policy, rows) -> the log-probability of each outcome as a whole, 0 where there is none."""

RowWeight = Callable[[TensorDict], Float[Tensor, "row"]]
"""What each row of an optimiser batch counts; the weights of a batch sum to 1."""


@dataclass(frozen=True)
class PreferenceSettings:
    """What every run on stored preferences needs.

    - `steps` of `batch_size` preferences each; `micro_batch`: so many of them at a time.
    - `learning_rate`, `weight_decay`, `max_grad_norm`: of AdamW; the rate rises over `warmup_steps` and then
      stays (`constant`) or falls to 0 at the last step (`linear`, `cosine`: `decay`).
    - `answer_limit`: answers are cut behind so many tokens; 0: they are not.
    - `system`: a message before each prompt. `lora_rank`: train adapters of this rank, 0 for all weights.
    """

    steps: int = 1000
    batch_size: int = 64
    micro_batch: int | None = None
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    answer_limit: int = 0
    system: str = ""
    lora_rank: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "lora_rank", "answer_limit"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if self.decay not in ("constant", "linear", "cosine"):
            raise SettingError(f"decay is '{self.decay}'", expected="constant, linear or cosine")
        if not self.max_grad_norm > 0:
            raise SettingError(f"max_grad_norm is {self.max_grad_norm}", expected="above 0")


def preference_run(
    model: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    loss: PreferenceLoss,
    settings: PreferenceSettings,
    weight: RowWeight | None = None,
    reference: LanguagePolicy | None = None,
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model on stored preferences; see the module for what the functions are.

    - `reference`: what the policy is compared with; by default the model as it is given (of adapters, the
      model without them). It is asked once, before the first step, about the preferences that the run will
      see, so that no second model has to stay in memory.
    - `weight`: what each list of a batch counts, by default all the same.

    Raises `SettingError` where reference and policy are one object, and `DataError` naming the row that
    cannot be learnt from.
    """
    policy = opened_for(
        model,
        lora_rank=settings.lora_rank,
        rows=2 * (settings.micro_batch or math.ceil(settings.batch_size / processes.count())),
        answer_limit=settings.answer_limit or 512,
        seed=seed,
    )
    if reference is policy:
        raise SettingError(
            "policy and reference are one object: no outcome would ever be likelier under one of them",
            cure="leave the reference out, or give policy.frozen_copy()",
        )
    sampler = PreferenceSampler(
        preferences,
        policy,
        rng=generator(seed, "preferences"),
        answer_limit=settings.answer_limit or None,
        system=settings.system,
    )

    def collect(state: RunState) -> TensorDict:
        if state.step == 0:
            _ask_reference(sampler, policy, reference, settings)
        batch = sampler.rows(sampler.batch(settings.batch_size))
        if weight is not None:
            batch["weight"] = weight(batch)
        return batch

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        return state.learners["policy"].step(batch)

    run_state = RunState(
        learners={"policy": preference_learner(policy, loss, settings)},
        generators={"preferences": sampler.rng},
        sources={"preferences": sampler, **sources},
    ).restored(state)
    return run(run_state, collect=collect, update=update, steps=settings.steps)


def preference_learner(policy: Any, loss: PreferenceLoss, settings: PreferenceSettings) -> Learner:
    """AdamW on what of the policy is trainable, under a loss of its outcomes."""
    return Learner(
        policy,
        over_outcomes(loss),
        optimizer=torch.optim.AdamW(
            [p for p in policy.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        ),
        schedule=_schedule(settings),
        max_grad_norm=settings.max_grad_norm,
        micro_batch=settings.micro_batch,
    )


# ---- what outcomes come to ---------------------------------------------------------------------------


def outcome_log_prob(policy: LanguagePolicy, batch: TensorDict) -> Float[Tensor, "row outcome"]:
    """The log-probability of each answer as a whole: the sum over its tokens in `mask`; 0 for no answer.

    Answers to one prompt run it once (`policies.language.shared_prompts`).
    """
    there = batch["present"]
    parts = [batch[key][there] for key in ("token", "attended", "mask")]
    log_prob, _ = policy.log_prob(parts[0], parts[1], mask=parts[2])
    return torch.zeros_like(there, dtype=log_prob.dtype).masked_scatter(there, log_prob.sum(1))


def over_outcomes(loss: PreferenceLoss, log_prob: LogProb = outcome_log_prob) -> Loss:
    """A loss of log-ratios as a loss of a policy.

    Also says, per row: `ordered`, the share of pairs that the policy has the right way round; `margin`, how
    far apart they are on average; `chosen` and `rejected`, the log-ratios of the best and the worst outcome.
    """

    def apply(policy: Any, batch: TensorDict) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        found = log_prob(policy, batch)
        ratio = (found - batch["reference_log_prob"]).masked_fill(~batch["present"], 0.0)
        check_ratios(ratio, batch)
        seen = batch.clone(recurse=False)
        seen["log_prob"] = found
        values, statistics = loss(ratio, seen)
        return values, {**standing(ratio.detach(), batch), **statistics}

    return apply


def standing(ratio: Float[Tensor, "row outcome"], batch: TensorDict) -> dict[str, Float[Tensor, "row"]]:
    """How outcomes stand to each other: see `over_outcomes`; without pairs a row counts as 0."""
    label, there = batch["label"], batch["present"]
    better = (label[:, :, None] > label[:, None, :]) & there[:, :, None] & there[:, None, :]
    gap = ratio[:, :, None] - ratio[:, None, :]
    pairs = better.sum((1, 2)).clamp(min=1)
    right = ((gap > 0) & better).sum((1, 2)) + 0.5 * ((gap == 0) & better).sum((1, 2))
    best = label.masked_fill(~there, -math.inf).argmax(1, keepdim=True)
    worst = label.masked_fill(~there, math.inf).argmin(1, keepdim=True)
    return {
        "ordered": right / pairs,
        "margin": (gap * better).sum((1, 2)) / pairs,
        "chosen": ratio.gather(1, best)[:, 0],
        "rejected": ratio.gather(1, worst)[:, 0],
    }


def check_ratios(ratio: Float[Tensor, "row outcome"], batch: TensorDict) -> None:
    """Raise `DataError` naming the rows with a log-ratio that is not finite."""
    if bool(ratio.isfinite().all()):
        return
    rows = batch["row_id"][~ratio.isfinite().all(1)].tolist()
    raise DataError(
        "the log-ratio of an outcome is not finite",
        where=f"preferences {', '.join(map(str, rows[:10]))}",
        cure="look for outcomes without a token, or a reference that was asked about other rows",
    )


def on_pairs(loss: Callable[[Tensor], Tensor]) -> PreferenceLoss:
    """A loss of margins, [pair] -> [pair], as one of rows of two outcomes, the better one first."""

    def apply(
        ratio: Float[Tensor, "row outcome"], batch: TensorDict
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        if ratio.shape[1] != 2:
            raise DataError(
                f"lists of {ratio.shape[1]} outcomes for a loss of pairs",
                cure="make pairs of lists: preferences.as_pairs()",
            )
        return loss(ratio[:, 0] - ratio[:, 1]), {}

    return apply


# ---- the reference -----------------------------------------------------------------------------------


def reference_log_prob(policy: LanguagePolicy, batch: TensorDict) -> Float[Tensor, "row outcome"]:
    """What a reference says of the outcomes, without gradient, a few rows at a time."""
    most = batch["token"][0].numel()
    rows = max(1, TOKENS_AT_A_TIME // most)
    with torch.no_grad():
        parts = [outcome_log_prob(policy, batch[i : i + rows]) for i in range(0, len(batch), rows)]
    return torch.cat(parts)


def _ask_reference(
    sampler: PreferenceSampler,
    policy: LanguagePolicy,
    reference: LanguagePolicy | None,
    settings: PreferenceSettings,
) -> None:
    """Ask the reference about what the run will draw, shared among the processes."""
    windows = math.ceil(settings.steps / BATCHES_AT_A_TIME)
    missing = sampler.missing(windows * BATCHES_AT_A_TIME * settings.batch_size)
    # Long and short are shared evenly, and rows that are asked together are of similar length.
    mine = processes.share(missing)
    said = []
    for part in (mine[i : i + 64] for i in range(0, len(mine), 64)):
        batch = sampler.rows(part)
        with reference_of(policy) if reference is None else nullcontext(reference) as asked:
            said.append((part, reference_log_prob(asked, batch)))
    for one in processes.gather(said):
        for part, log_prob in one:
            sampler.prepare(part, log_prob)


def reference_of(policy: LanguagePolicy) -> AbstractContextManager[LanguagePolicy]:
    """A policy that has not learnt yet as its own reference: without its adapters where it has some."""
    return policy.without_lora() if policy.has_lora else nullcontext(policy)


def _schedule(settings: PreferenceSettings) -> Schedule | None:
    warmup, total = settings.warmup_steps, settings.steps
    if settings.decay == "cosine":
        return cosine_schedule(warmup=warmup, total=total)

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if settings.decay == "constant" or step < warmup:
            return rising
        return max(0.0, 1 - (step - warmup) / max(1, total - warmup))

    return factor if warmup or settings.decay == "linear" else None

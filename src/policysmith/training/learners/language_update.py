"""The `update` of a language run: optimiser batches of whole groups, weights per token, steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.objectives.policy_gradient import truncated_importance_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learner import Learner, Loss, Schedule
from policysmith.training.learners.language_settings import (
    LanguageSettings,
    Prepare,
    TokenLoss,
    Weight,
)
from policysmith.training.loop import RunState, Update


def policy_learner(
    policy: LanguagePolicy, loss: TokenLoss, settings: LanguageSettings, *, schedule: Schedule | None = None
) -> Learner:
    """AdamW on the policy's trainable weights, under a loss per token; see `adam_learner`."""
    return adam_learner(
        policy, over_tokens(loss, temperature=settings.temperature), settings, schedule=schedule
    )


def adam_learner(
    policy: LanguagePolicy, loss: Loss, settings: LanguageSettings, *, schedule: Schedule | None = None
) -> Learner:
    """AdamW on the policy's trainable weights, under any loss.

    The learning rate is constant behind its warm-up; a `schedule` takes the place of both.
    """
    optimizer = torch.optim.AdamW(
        [p for p in policy.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return Learner(
        policy,
        loss,
        optimizer=optimizer,
        schedule=schedule or warming(settings.warmup_steps),
        max_grad_norm=settings.max_grad_norm,
        micro_batch=settings.micro_batch,
    )


def warming(steps: int) -> Schedule | None:
    """Linear up to 1 within `steps` steps, then 1; None for none."""
    return (lambda step: min(1.0, (step + 1) / steps)) if steps else None


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


def updating(
    weight: Weight, settings: LanguageSettings, *, prepare: Prepare | None = None, epochs: int = 1
) -> Update:
    """The usual `update`: `optimizer_steps` steps of the policy on a rollout, in each of `epochs` passes."""

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        learner = state.learners["policy"]
        policy: Any = learner.module
        metrics = logged(batch)
        batch = batch.exclude("log")
        batch["old_log_prob"] = batch["behaviour_log_prob"]
        if settings.recompute_old:
            batch["old_log_prob"] = rescore(policy, batch, settings.temperature)
        taken = []
        for part in passes(batch, settings.optimizer_steps, epochs=epochs, rng=state.generators["update"]):
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


def passes(batch: TensorDict, count: int, *, epochs: int, rng: torch.Generator) -> Iterator[TensorDict]:
    """The optimiser batches of `epochs` passes over the rows, each cut anew by `optimiser_batches`."""
    for _ in range(epochs):
        yield from optimiser_batches(batch, count, rng=rng)


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


def logged(batch: TensorDict) -> dict[str, float]:
    """The means of what was logged per row, over the rows that it says something of (not NaN)."""
    if "log" not in batch.keys():  # noqa: SIM118
        return {}
    means = {str(name): float(values.float().nanmean()) for name, values in batch["log"].items()}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


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

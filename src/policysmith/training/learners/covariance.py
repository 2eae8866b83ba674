"""Sparing the entropy at the seams of the language run: which tokens make a policy sure, and what of them.

    language_run(..., prepare=choose_dropped(...), loss=clip_covariance(...))      Clip-Cov
    language_run(..., prepare=choose_held(...), loss=kl_covariance(...))           KL-Cov

`prepare` scores a whole optimiser batch under the weights of now, without gradient, and marks tokens by the
product of centred advantage and centred log-probability; the loss treats the marked ones in its own way. Any
label that makes advantages goes with either.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.objectives.entropy_covariance import (
    clip_binds,
    clip_covariance_loss,
    draw_tokens,
    kl_covariance_loss,
    largest_tokens,
    token_covariance,
)
from policysmith.objectives.policy_gradient import clipped_share
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.language_settings import Prepare, TokenLoss
from policysmith.training.learners.language_update import rescore

MARKED = "marked"
"""Entry of the optimiser batch: [row, time] bool, the tokens that were chosen."""


# ---- what is chosen ----------------------------------------------------------------------------------


def choose_dropped(
    *,
    fraction: float,
    low: float,
    high: float,
    clip: float,
    temperature: float,
    low_quantile: float | None = None,
) -> Prepare:
    """Marks `fraction` of the tokens, drawn among those of covariance between `low` and `high` (Clip-Cov).

    With `low_quantile` the band begins at that quantile of the batch's covariances and has no upper end: what
    a band in absolute numbers holds depends on the vocabulary, and may be nothing.
    """

    def prepare(policy: LanguagePolicy, batch: TensorDict, rng: torch.Generator) -> TensorDict:
        log_prob, old, mask = rescore(policy, batch, temperature), batch["old_log_prob"], batch["mask"]
        covariance = token_covariance(log_prob, batch["advantage"], mask)
        begin, end = low, high
        if low_quantile is not None:
            begin, end = float(covariance[mask].quantile(low_quantile)), torch.inf
        free = mask & ~clip_binds(log_prob, old, batch["advantage"], low=clip, high=clip)
        drawn = draw_tokens(
            covariance, free, tokens=int(mask.sum()), fraction=fraction, low=begin, high=end, rng=rng
        )
        eligible = free & (covariance > begin) & (covariance < end)
        return _marked(batch, drawn, covariance, eligible)

    return prepare


def choose_held(*, fraction: float, temperature: float) -> Prepare:
    """Marks the `fraction` of the tokens that have the largest covariance (KL-Cov)."""

    def prepare(policy: LanguagePolicy, batch: TensorDict, rng: torch.Generator) -> TensorDict:
        log_prob, mask = rescore(policy, batch, temperature), batch["mask"]
        covariance = token_covariance(log_prob, batch["advantage"], mask)
        return _marked(batch, largest_tokens(covariance, mask, fraction=fraction), covariance, mask)

    return prepare


def _marked(batch: TensorDict, marked: Tensor, covariance: Tensor, eligible: Tensor) -> TensorDict:
    batch[MARKED], batch["covariance"], batch["eligible"] = marked, covariance, eligible
    batch["largest_covariance"] = covariance.max().expand(len(batch), 1)
    return batch


# ---- what becomes of it ------------------------------------------------------------------------------


def clip_covariance(*, clip: float) -> TokenLoss:
    """The clipped loss, without value or gradient on the marked tokens."""

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        old, advantage = batch["old_log_prob"], batch["advantage"]
        values = clip_covariance_loss(log_prob, old, advantage, batch[MARKED], low=clip, high=clip)
        clipped = clipped_share(log_prob, old, advantage, low=clip, high=clip)
        return values, {"clipped": clipped, **_statistics(log_prob, batch)}

    return loss


def kl_covariance(*, beta: float) -> TokenLoss:
    """The unclipped loss, plus `beta` times the distance from the sampling policy on the marked tokens."""

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        old, advantage = batch["old_log_prob"], batch["advantage"]
        return kl_covariance_loss(log_prob, old, advantage, batch[MARKED], beta=beta), _statistics(
            log_prob, batch
        )

    return loss


def _statistics(log_prob: Tensor, batch: TensorDict) -> dict[str, Tensor]:
    return {
        "marked": batch[MARKED].float(),
        "eligible": batch["eligible"].float(),
        "covariance": batch["covariance"],
        "largest_covariance": batch["largest_covariance"],
        "log_ratio": (log_prob.detach() - batch["old_log_prob"]).abs(),
    }

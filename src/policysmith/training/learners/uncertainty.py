"""Advantages that count less where the policy is unsure, at the label of the language run (SEED-GRPO).

    label = then(centred(), shrunk_by_uncertainty(verify.extract, verify.equal, alpha=1.0))

How much the answers to a prompt differ in meaning (`objectives.semantic_entropy`) is known from the answers
that are there already. All advantages of a prompt get one factor, so that signs and order stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.objectives.advantages import scale_by_group
from policysmith.objectives.semantic_entropy import (
    Damping,
    Estimator,
    semantic_clusters,
    semantic_entropy,
    uncertainty_factor,
)
from policysmith.policies.language.samples import Samples
from policysmith.training.learners.language_settings import Label

Read = Callable[[str], Any]
"""A text -> its answer; None where there is none, which then agrees with no other."""


@dataclass(frozen=True)
class Uncertainty:
    """By group, in the order of the sorted ids: semantic entropy in nats, and the number of answers."""

    entropy: Float[Tensor, "group"]
    size: Int[Tensor, "group"]


def group_uncertainty(
    samples: Samples,
    read: Read,
    equal: Callable[[Any, Any], bool] | None = None,
    *,
    estimator: Estimator = "likelihood",
) -> Uncertainty:
    """The semantic entropy of each group's answers, which are the same where `equal` says so (None: by `==`).

    Raises `DataError` where `estimator` needs how likely the answers were and they have no such record.
    """
    batch = samples.batch
    if estimator != "frequency" and "off_policy" in batch.keys() and bool(batch["off_policy"].any()):  # noqa: SIM118
        raise DataError(
            f"semantic entropy by '{estimator}' needs the log-probabilities of the answers",
            where=f"row {int(batch['off_policy'].nonzero()[0])}, which was not drawn for its prompt",
            cure="count answers instead: estimator='frequency'",
        )
    length = batch["mask"].sum(1)
    mean_log_prob = (batch["behaviour_log_prob"] * batch["mask"]).sum(1) / length.clamp(min=1)
    entropy, size = [], []
    for group in batch["group_id"].unique().tolist():
        rows = (batch["group_id"] == group).nonzero()[:, 0]
        labels = semantic_clusters([read(samples.texts[row]) for row in rows.tolist()], equal)
        entropy.append(semantic_entropy(labels, mean_log_prob[rows], kind=estimator))
        size.append(len(rows))
    return Uncertainty(torch.tensor(entropy), torch.tensor(size))


def shrunk_by_uncertainty(
    read: Read,
    equal: Callable[[Any, Any], bool] | None = None,
    *,
    alpha: float,
    damping: Damping = "reciprocal",
    estimator: Estimator = "likelihood",
    selective: bool = True,
) -> Label:
    """Scale the advantages of each group by its `uncertainty_factor`; comes behind the label that made them.

    Without `selective`, every group gets the mean of the factors: as much smaller steps, whatever the group,
    which tells the effect of choosing from that of a lower rate. Raises `SettingError` for groups of one.
    """

    def label(samples: Samples) -> Samples:
        batch = samples.batch
        found = group_uncertainty(samples, read, equal, estimator=estimator)
        pairs = zip(found.entropy.tolist(), found.size.tolist(), strict=True)
        factor = torch.tensor(
            [uncertainty_factor(entropy, size, alpha=alpha, kind=damping) for entropy, size in pairs]
        )
        if not selective:
            factor = factor.mean().expand(len(factor))
        ids = batch["group_id"]
        batch["advantage"] = scale_by_group(batch["advantage"][:, 0], factor, ids)[:, None]
        ones = torch.ones(len(ids))
        samples.log("semantic_entropy", scale_by_group(ones, found.entropy, ids))
        samples.log("factor", scale_by_group(ones, factor, ids))
        return samples

    return label

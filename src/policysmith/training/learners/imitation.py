"""Rows that are learnt by their likelihood, beside those that are learnt by their advantage.

    J = J_policy-gradient + imitation x mean of log pi(row)

Such a row has an `imitation` above 0 (`experience.explanations.imitating`): it is no member of its group, has
no advantage, no importance ratio, no clip and no divergence. Each part of a group-relative run is told so:

    language_run(..., label=apart(group_relative()), loss=with_imitation(with_kl(clipped(), beta)),
                 weight=imitation_weight(sequence_mean, token_mean))

Source: Zhou et al. 2025 (ExPO), the ExP-SFT term.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.policies.language.samples import Samples, join
from policysmith.training.learners.language_settings import Label, TokenLoss, Weight

Reduction = Callable[[Bool[Tensor, "row time"]], Float[Tensor, "row time"]]
"""Tokens -> what each of them counts: one of `objectives.averaging`."""


def apart(label: Label) -> Label:
    """`label` on the rows that are not imitated; of what it adds, imitated rows have zeros."""

    def labelled(samples: Samples) -> Samples:
        imitated = samples.batch["imitation"] > 0
        if not bool(imitated.any()):
            return label(samples)
        usual, given = (samples.select(chosen.nonzero()[:, 0].tolist()) for chosen in (~imitated, imitated))
        usual = label(usual)
        there = set(given.batch.keys(True, True))
        for key in usual.batch.keys(True, True):
            if key not in there:
                like = usual.batch[key]
                given.batch[key] = like.new_zeros(len(given), *like.shape[1:])
        return join([usual, given])

    return labelled


def with_imitation(loss: TokenLoss) -> TokenLoss:
    """`loss`, and minus the log-probability on the tokens of imitated rows."""

    def together(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        imitated = (batch["imitation"] > 0)[:, None]
        values, statistics = loss(log_prob, entropy, batch)
        return torch.where(imitated, -log_prob, values), {
            name: value.masked_fill(imitated, 0.0) for name, value in statistics.items()
        }

    return together


def imitation_weight(usual: Reduction, imitated: Reduction) -> Weight:
    """`usual` over the tokens of usual rows, and `imitation` times `imitated` over those of the others."""

    def weight(batch: TensorDict) -> Float[Tensor, "row time"]:
        mask, chosen = batch["mask"], (batch["imitation"] > 0)[:, None]
        total = torch.zeros(mask.shape, device=mask.device)
        if bool((mask & ~chosen).any()):
            total = total + usual(mask & ~chosen)
        if bool((mask & chosen).any()):
            total = total + batch["imitation"][:, None] * imitated(mask & chosen)
        return total

    return weight

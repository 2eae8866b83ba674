"""What each token counts in a loss: weights over the whole optimiser batch.

A loss gives a value per token; the step minimises the sum of values times weights. The weights are made here,
once, before the batch is cut into micro-batches or spread over processes, so that the step does not depend on
the cut. The choice is not a detail: with `sequence_mean_weight` a short answer pushes harder per token than a
long one, with `token_mean_weight` all tokens count alike, and with `constant_weight` so do they whatever the
batch's mean length is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError


def token_mean_weight(mask: Bool[Tensor, "row time"]) -> Float[Tensor, "row time"]:
    """One over the number of tokens of the batch, on each of them. Source: Yu et al. 2025 (DAPO)."""
    _check(mask)
    return mask.float() / mask.sum()


def sequence_mean_weight(mask: Bool[Tensor, "row time"]) -> Float[Tensor, "row time"]:
    """The mean of a sequence's tokens, then the mean of the sequences that have any.

    Source: Shao et al. 2024 (GRPO), equation 3.
    """
    _check(mask)
    length = mask.sum(1, keepdim=True)
    return mask.float() / length.clamp(min=1) / (length > 0).sum()


def sequence_sum_weight(mask: Bool[Tensor, "row time"]) -> Float[Tensor, "row time"]:
    """The sum of a sequence's tokens, then the mean of the sequences that have any.

    The mean log-likelihood of whole sequences: long ones pull harder, as their number of tokens.
    """
    _check(mask)
    return mask.float() / mask.any(1).sum()


def constant_weight(mask: Bool[Tensor, "row time"], *, length: int) -> Float[Tensor, "row time"]:
    """One over (number of sequences x `length`), on each token: longer answers weigh more, none is favoured.

    Source: Liu et al. 2025 (Dr. GRPO), with `length` the most tokens an answer may have.
    """
    _check(mask)
    if length < 1:
        raise SettingError(f"a length of {length}", expected="at least 1")
    return mask.float() / (len(mask) * length)


def fixed_weight(mask: Bool[Tensor, "row time"], *, denominator: float) -> Float[Tensor, "row time"]:
    """One over `denominator` on each token, however many there are: a sum and no mean.

    Tokens count among each other as with `constant_weight`; the number matters to what is compared with the
    gradient, such as a limit of its norm. Source: Chen et al. 2025 (NFT), the authors' code.
    """
    _check(mask)
    if not denominator > 0:
        raise SettingError(f"a denominator of {denominator}", expected="above 0")
    return mask.float() / denominator


def segment_mean_weight(
    mask: Bool[Tensor, "row time"], segment_id: Int[Tensor, "row time"]
) -> Float[Tensor, "row time"]:
    """The mean of each segment's tokens, then the mean of the segments; ids are unique over the batch."""
    _check(mask)
    _, index, count = segment_id[mask].unique(return_inverse=True, return_counts=True)
    weight = torch.zeros(mask.shape, device=mask.device)
    weight[mask] = 1 / (count[index] * len(count))
    return weight


def _check(mask: Tensor) -> None:
    if not bool(mask.any()):
        raise DataError("no token of the batch is to be learnt from", where=f"a mask of {list(mask.shape)}")

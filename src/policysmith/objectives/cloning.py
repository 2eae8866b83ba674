"""Objectives of behaviour cloning: how far an answer is from the demonstrated one, and how likely that is."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def action_error(
    predicted: Float[Tensor, "row *shape"], action: Float[Tensor, "row *shape"]
) -> Float[Tensor, "row"]:
    """Squared error, the mean over all steps and dimensions of a row.

    Its minimiser is the mean of the demonstrated actions: between two ways, neither.
    """
    return (predicted - action).square().flatten(1).mean(1)


def mixture_log_prob(
    value: Float[Tensor, "row size"],
    *,
    logits: Float[Tensor, "row component"],
    mean: Float[Tensor, "row component size"],
    deviation: Float[Tensor, "row component size"],
) -> Float[Tensor, "row"]:
    """Log-density of a mixture of diagonal Gaussians: log sum_k w_k N(value; mean_k, deviation_k^2).

    The weights are the softmax of `logits`. Source: Bishop 1994, Mixture Density Networks, equation 22.
    """
    standard = (value[:, None] - mean) / deviation
    density = (-0.5 * standard.square() - deviation.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    return (logits.log_softmax(-1) + density).logsumexp(-1)

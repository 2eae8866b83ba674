"""Binary classification that has to stay soft: smoothed labels, mixtures of inputs, bounded gradients.

A classifier whose answer is a policy's reward is trained on what that policy does, and one that is sure of
itself gives the policy nothing to climb. Three regularisers keep its answer smooth in the input:

    label smoothing  y -> (1 - s) y + s / 2
    mixup            x -> l x + (1 - l) x',  y -> l y + (1 - l) y'
    gradient penalty (|d logit / d x| - 1)^2   at interpolates of the classes

Sources: Zhang et al. 2018 (mixup); Gulrajani et al. 2017, equation 3 (gradient penalty); Luo et al. 2024
(SERL), section IV-B, for the three together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError


def smoothed_label(label: Float[Tensor, "row"], smoothing: float = 0.2) -> Float[Tensor, "row"]:
    """(1 - `smoothing`) y + `smoothing` / 2: 0.2 turns 1 into 0.9 and 0 into 0.1."""
    if not 0 <= smoothing < 1:
        raise SettingError(f"label smoothing of {smoothing}", expected="0 or more, and below 1")
    return (1 - smoothing) * label + smoothing / 2


def classification_loss(logit: Float[Tensor, "row"], label: Float[Tensor, "row"]) -> Float[Tensor, "row"]:
    """Cross-entropy in nats of the probability sigmoid(`logit`) under labels from 0 to 1."""
    return F.binary_cross_entropy_with_logits(logit, label, reduction="none")


def mixed(
    values: Float[Tensor, "row *shape"], partner: Float[Tensor, "row *shape"], share: Float[Tensor, "row"]
) -> Float[Tensor, "row *shape"]:
    """`share` of `values` and the rest of `partner`: the inputs, or the labels, of mixup."""
    if values.shape != partner.shape:
        raise ShapeError(
            f"values of shape {list(values.shape)} to be mixed with {list(partner.shape)}",
            expected="the same shape",
        )
    share = share.view(-1, *[1] * (values.dim() - 1))
    return share * values + (1 - share) * partner


def gradient_penalty(
    logit: Float[Tensor, "row"], point: Float[Tensor, "row feature"]
) -> Float[Tensor, "row"]:
    """(|gradient of each logit at its point| - 1)^2, itself differentiable in what made the logits.

    `point` requires gradients, and row i of `logit` depends on row i of it alone.
    """
    (gradient,) = torch.autograd.grad(logit.sum(), point, create_graph=True)
    # The root of a sum of exact zeros has no derivative; the added number is below float32's rounding.
    return ((gradient.square().sum(-1) + 1e-12).sqrt() - 1).square()

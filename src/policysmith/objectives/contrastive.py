"""Contrastive policy gradient: scores of stored outcomes, each the baseline of the other.

    R_b(y) = R(y) - b h(y),    h = log pi - log pi_ref
    L(y, y') = -[R_{beta/2}(y) - R_{beta/2}(y')] [h(y) - h(y')]

Nothing is detached: the half in beta / 2 makes the gradient that of a policy gradient with regularised
scores, each outcome's baseline being the other's score,

    grad L = -[R_beta(y) - R_beta(y')] grad [log pi(y) - log pi(y')]

The minimum is the policy that is best under the divergence penalty, pi_ref exp(R / beta), whoever wrote the
outcomes. Scores of 1/4 and -1/4 make it IPO but for a constant.

Source: Flet-Berliac et al. 2024, Contrastive policy gradient: aligning LLMs on sequence-level scores in a
supervised-friendly fashion, equations 7 to 9.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.objectives.preferences import check_beta


def copg_loss(
    log_ratio: Float[Tensor, "row outcome"],
    score: Float[Tensor, "row outcome"],
    present: Bool[Tensor, "row outcome"],
    *,
    beta: float,
) -> Float[Tensor, "row"]:
    """(1 / (k - 1)) times the sum of L over every two of a row's k outcomes; of two, L itself.

    Minus its gradient is that of a policy gradient with the mean of the other k - 1 regularised scores as
    baseline. Raises `DataError` naming a row with fewer than two outcomes or a score that is not finite.
    """
    check_beta(beta)
    check_scores(score, present)
    # Filled before anything is computed: what is absent may be NaN, and 0 times NaN would reach the gradient.
    log_ratio, score = log_ratio.masked_fill(~present, 0.0), score.masked_fill(~present, 0.0)
    both = present[:, :, None] & present[:, None]
    gap = log_ratio[:, :, None] - log_ratio[:, None]
    gain = score[:, :, None] - score[:, None]
    # Each pair comes twice, once in either order, with the same value.
    values = (-(gain - 0.5 * beta * gap) * gap).masked_fill(~both, 0.0).sum((1, 2)) / 2
    return values / (present.sum(1) - 1)


def off_policy_gradient_loss(
    log_ratio: Float[Tensor, "row outcome"],
    score: Float[Tensor, "row outcome"],
    present: Bool[Tensor, "row outcome"],
    *,
    beta: float,
    baseline: Float[Tensor, "row"] | float = 0.0,
) -> Float[Tensor, "row"]:
    """-sum (R_beta - baseline) log pi over stored outcomes, the weight detached: the rival of contrast.

    A baseline that is not the mean regularised score of those who wrote the outcomes moves the fixed point
    away from the optimum.
    """
    check_beta(beta)
    check_scores(score, present)
    level = baseline[:, None] if isinstance(baseline, Tensor) else baseline
    weight = (score - beta * log_ratio - level).detach()
    return (-weight * log_ratio).masked_fill(~present, 0.0).sum(1)


def check_scores(score: Float[Tensor, "row outcome"], present: Bool[Tensor, "row outcome"]) -> None:
    """Raise `DataError` naming a row with fewer than two outcomes, or a score that is not finite."""
    few = present.sum(1) < 2
    if bool(few.any()):
        row = int(few.nonzero()[0])
        raise DataError(
            f"{int(present[row].sum())} outcomes",
            where=f"row {row}",
            expected="two or more with a score each",
        )
    wrong = ~score.isfinite() & present
    if bool(wrong.any()):
        row, place = wrong.nonzero()[0].tolist()
        raise DataError(
            f"the score of outcome {place} is {float(score[row, place])}",
            where=f"row {row}",
            expected="a finite number",
        )


def kl_optimum(
    reference: Float[Tensor, "*row outcome"], score: Float[Tensor, "*row outcome"], *, beta: float
) -> Float[Tensor, "*row outcome"]:
    """The best policy under the divergence penalty, pi_ref exp(R / beta) brought to sum to 1."""
    check_beta(beta)
    return torch.softmax(reference.log() + score / beta, -1)

"""Losses on lists of outcomes with graded labels: learning to rank, with a policy's log-ratios as scores.

    s_i = beta [log pi(y_i) - log pi_ref(y_i)],    labels psi_i, higher for better

Two losses look at one outcome at a time (`point_*`), two at every two of them (`pair_*`), three at a whole
list. `lambda_loss` weighs each pair by how much the gain of a ranking would change if the two were
swapped where they now stand:

    Delta_ij = |G_i - G_j| |1 / D(tau_i) - 1 / D(tau_j)|,   G = 2^psi - 1,   D(rank by s) = log2(1 + rank)

Lists are [row, outcome], shorter ones filled up; `present` says which outcomes there are. Every loss is a sum
per list, of `terms` terms: to weigh all terms of a batch alike, divide by their number in the batch, which is
what the paper does. Scores carry gradient, labels and the weights of pairs do not.

Source: Liu et al. 2024, LiPO: listwise preference optimization through learning-to-rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Scores = Float[Tensor, "row outcome"]
Present = Bool[Tensor, "row outcome"]
Pairs = Float[Tensor, "row outcome outcome"]

LambdaWeights = Literal["dcg", "gain", "discount", "none"]
"""Which part of Delta counts: all of it, its difference of gains, of discounts, or 1 for every pair."""


# ---- one outcome at a time ---------------------------------------------------------------------------


def point_mse_loss(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """sum_i (psi_i - s_i)^2."""
    check_lists(scores, labels, present)
    return (labels - scores).masked_fill(~present, 0).square().sum(1)


def point_sigmoid_loss(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """-sum_i [psi_i log sigmoid(s_i) + (1 - psi_i) log sigmoid(-s_i)]."""
    check_lists(scores, labels, present)
    scores, labels = scores.masked_fill(~present, 0), labels.masked_fill(~present, 0)
    values = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    return values.masked_fill(~present, 0).sum(1)


# ---- every two outcomes ------------------------------------------------------------------------------


def pair_logistic_loss(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """The sum over pairs with psi_i > psi_j of log(1 + exp(-(s_i - s_j))); of two outcomes, DPO's loss."""
    return _over_pairs(lambda gap: F.softplus(-gap), scores, labels, present)


def pair_hinge_loss(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """The sum over pairs with psi_i > psi_j of max(0, 1 - (s_i - s_j)); of two outcomes, SLiC's."""
    return _over_pairs(lambda gap: (1 - gap).clamp(min=0), scores, labels, present)


# ---- the list as a whole -----------------------------------------------------------------------------


def list_mle_loss(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """Minus the log-likelihood of the order by labels under Plackett and Luce: draw the best, then the next.

    Equal labels keep the order they are given in; a list in which all are equal has no order, and is 0. Of
    two outcomes it is DPO's loss.
    """
    check_lists(scores, labels, present)
    order = labels.masked_fill(~present, -math.inf).argsort(dim=1, descending=True, stable=True)
    sorted_scores = scores.masked_fill(~present, -math.inf).gather(1, order)
    there = present.gather(1, order)
    rest = sorted_scores.flip(1).logcumsumexp(1).flip(1)
    drawn = there & (pair_terms(labels, present) > 0)[:, None]
    return torch.where(drawn, rest - sorted_scores, 0.0).nan_to_num(0.0).sum(1)


def softmax_loss(
    scores: Scores, labels: Scores, present: Present, *, normalised: bool = True
) -> Float[Tensor, "row"]:
    """-sum_i psi_i log softmax(s)_i, the labels divided by their sum where `normalised` (0 if that is 0)."""
    check_lists(scores, labels, present)
    log_p = scores.masked_fill(~present, -math.inf).log_softmax(1).masked_fill(~present, 0)
    weight = labels.masked_fill(~present, 0)
    if normalised:
        total = weight.sum(1, keepdim=True)
        weight = torch.where(total > 0, weight / total.clamp(min=1e-12), 0.0)
    return -(weight * log_p).sum(1)


def lambda_loss(
    scores: Scores,
    labels: Scores,
    present: Present,
    *,
    weights: LambdaWeights = "dcg",
    scale_by_length: bool = True,
) -> Float[Tensor, "row"]:
    """The sum over pairs with psi_i > psi_j of Delta_ij log(1 + exp(-(s_i - s_j))); Delta is a constant."""
    delta = dcg_lambda_weights(scores, labels, present, weights=weights, scale_by_length=scale_by_length)
    return _over_pairs(lambda gap: delta * F.softplus(-gap), scores, labels, present)


def dcg_lambda_weights(
    scores: Scores,
    labels: Scores,
    present: Present,
    *,
    weights: LambdaWeights = "dcg",
    scale_by_length: bool = True,
) -> Pairs:
    """Delta_ij by the ranks of the present scores, without gradient; times the list's length where asked.

    Ranks are a permutation also where scores are equal, as they all are at the first step: equal scores keep
    the order they are given in, so shuffle lists that were sorted by label.
    """
    check_lists(scores, labels, present)
    if weights not in ("dcg", "gain", "discount", "none"):
        raise SettingError(f"lambda weights '{weights}'", expected="dcg, gain, discount or none")
    with torch.no_grad():
        gain, discount = (
            2 ** labels.masked_fill(~present, 0) - 1,
            1 / (1 + ranks(scores, present).to(scores.dtype)).log2(),
        )
        of_gain = (gain[:, :, None] - gain[:, None]).abs()
        of_discount = (discount[:, :, None] - discount[:, None]).abs()
        ones = torch.ones_like(of_gain)
        delta = {
            "dcg": of_gain * of_discount,
            "gain": of_gain,
            "discount": of_discount,
            "none": ones,
        }[weights]
        return delta * present.sum(1)[:, None, None] if scale_by_length and weights != "none" else delta


def ranks(scores: Scores, present: Present) -> Int[Tensor, "row outcome"]:
    """1 for the highest score of a row; equal ones in the order given, what is not present last."""
    order = scores.masked_fill(~present, -math.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(1) + 1


def dcg(scores: Scores, labels: Scores, present: Present) -> Float[Tensor, "row"]:
    """The discounted cumulative gain of ranking by `scores`: sum of G_i / D(tau_i)."""
    check_lists(scores, labels, present)
    worth = (2**labels - 1) / (1 + ranks(scores, present).to(scores.dtype)).log2()
    return worth.masked_fill(~present, 0).sum(1)


# ---- labels ------------------------------------------------------------------------------------------


def labels_from_pairwise(
    wins: Float[Tensor, "*row outcome outcome"], *, tolerance: float = 1e-3
) -> Float[Tensor, "*row outcome"]:
    """The mean chance of each outcome against all, itself (one half) included.

    `wins[i, j]` is the probability that i is better than j. Raises `DataError` naming i and j where one is no
    probability, or the two orders do not sum to 1.
    """
    if wins.shape[-1] != wins.shape[-2]:
        raise ShapeError(f"wins of shape {list(wins.shape)}", expected="[outcome, outcome]")
    off = (wins + wins.transpose(-1, -2) - 1).abs()
    # Asked for what is right, since what is not a number is never found to be wrong.
    wrong = ~((off <= tolerance) & (wins >= 0) & (wins <= 1))
    if bool(wrong.any()):
        *row, i, j = wrong.nonzero()[0].tolist()
        place = (*row, i, j)
        raise DataError(
            f"P({i} better than {j}) is {float(wins[place]):.3f} and P({j} better than {i}) "
            f"is {float(wins[(*row, j, i)]):.3f}",
            where=f"list {row[0]}" if row else "",
            expected="two probabilities that sum to 1, and one half on the diagonal",
        )
    return wins.mean(-1)


def labels_from_ranks(rank: Int[Tensor, "*row outcome"]) -> Float[Tensor, "*row outcome"]:
    """Labels of outcomes of which only the order is known, rank 1 best: 1 for a win, one half for a tie."""
    ahead = (rank[..., :, None] < rank[..., None, :]).float()
    tied = (rank[..., :, None] == rank[..., None, :]).float()
    return labels_from_pairwise(ahead + 0.5 * tied)


# ---- parts -------------------------------------------------------------------------------------------


def better(labels: Scores, present: Present) -> Bool[Tensor, "row outcome outcome"]:
    """Whether i is labelled above j; equal labels make no pair."""
    return (labels[:, :, None] > labels[:, None]) & present[:, :, None] & present[:, None]


def pair_terms(labels: Scores, present: Present) -> Int[Tensor, "row"]:
    """How many pairs a list has."""
    return better(labels, present).sum((1, 2))


def check_lists(scores: Scores, labels: Scores, present: Present) -> None:
    """Raise `ShapeError` where shapes differ, `DataError` naming the list with a label outside [0, 1]."""
    if not scores.shape == labels.shape == present.shape or scores.dim() != 2:
        raise ShapeError(
            f"scores {list(scores.shape)}, labels {list(labels.shape)}, present {list(present.shape)}",
            expected="[row, outcome] each",
        )
    outside = ~((labels >= 0) & (labels <= 1)) & present
    if bool(outside.any()):
        row, place = outside.nonzero()[0].tolist()
        raise DataError(
            f"a label of {float(labels[row, place]):g} for outcome {place}",
            where=f"list {row}",
            expected="labels from 0 to 1",
            cure="bring them there by hand, such as (label - lowest) / (highest - lowest)",
        )


def _over_pairs(
    loss: Callable[[Pairs], Pairs], scores: Scores, labels: Scores, present: Present
) -> Float[Tensor, "row"]:
    check_lists(scores, labels, present)
    # Filled before anything is computed: what is absent may be NaN, and 0 times NaN would reach the gradient.
    scores = scores.masked_fill(~present, 0)
    gap = scores[:, :, None] - scores[:, None]
    return loss(gap).masked_fill(~better(labels, present), 0).sum((1, 2))

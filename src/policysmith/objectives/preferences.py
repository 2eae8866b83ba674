"""Losses on pairs of outcomes of which one is preferred.

A policy that is best for a reward under a divergence penalty is the reference tilted by it, so that a policy
implies a reward, known up to a constant per prompt, and a pair is a trial of which outcome has more of it.
All losses here are functions of one number per pair, the margin

    h = [log pi(chosen) - log pi_ref(chosen)] - [log pi(rejected) - log pi_ref(rejected)],

and of `beta`, the weight of the divergence, which is not inside h:

    logistic (DPO)  -log sigmoid(beta h)        hinge (SLiC)  max(0, 1 - beta h)
    squared (IPO)   (h - 1 / (2 beta))^2

Where a share of the labels is flipped at random, a combination of the loss of the pair as labelled and of the
pair swapped either hedges (`smoothed_loss`) or undoes the flips on average (`robust_loss`).

Log-probabilities are sums over the tokens of an outcome, its end included and the prompt left out. Everything
is per pair; gradient flows through the policy's log-probabilities alone. A reward model learns from pairs by
the same losses, with the difference of its two rewards for h and 1 for `beta`.

Sources: Rafailov et al. 2023 (DPO), equations 5 and 7; Zhao et al. 2023 (SLiC-HF), here with the reference
in the margin; Azar et al. 2023 (IPO); Chowdhury et al. 2024 (rDPO); Mitchell 2023, A note on DPO with noisy
preferences (cDPO); Rosset et al. 2024 (DNO).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Margin = Float[Tensor, "*pair"]
"""How much further the policy has moved towards the chosen outcome than towards the rejected one, in nats."""


class PairLoss(Protocol):
    """What is minimised for one pair, as a function of its margin."""

    def __call__(self, margin: Margin, *, beta: float) -> Margin:
        """The loss of each pair."""
        ...


# ---- from log-probabilities to margins ---------------------------------------------------------------


def log_ratio(
    log_prob: Float[Tensor, "row *shape"], reference_log_prob: Float[Tensor, "row *shape"]
) -> Float[Tensor, "row *shape"]:
    """log pi - log pi_ref, in nats; the reference is a constant.

    Raises `ShapeError` where the two differ in shape, `DataError` naming the first rows with a value that is
    not finite.
    """
    if log_prob.shape != reference_log_prob.shape:
        raise ShapeError(
            f"log-probabilities of shape {list(log_prob.shape)} under the policy and "
            f"{list(reference_log_prob.shape)} under the reference",
            expected="the same shape: one sum over its tokens for each outcome under either",
        )
    ratio = log_prob - reference_log_prob.detach()
    _check_finite(ratio, "a log-ratio", cure="look for outcomes of which masking or cutting left no token")
    return ratio


def pair_margin(
    chosen: Float[Tensor, "pair"],
    rejected: Float[Tensor, "pair"],
    reference_chosen: Float[Tensor, "pair"],
    reference_rejected: Float[Tensor, "pair"],
) -> Float[Tensor, "pair"]:
    """The margin h of each pair from the log-probabilities of its outcomes (sums over tokens, in nats).

    Raises what `log_ratio` raises.
    """
    return log_ratio(chosen, reference_chosen) - log_ratio(rejected, reference_rejected)


def implicit_reward(
    log_prob: Float[Tensor, "*shape"], reference_log_prob: Float[Tensor, "*shape"], *, beta: float
) -> Float[Tensor, "*shape"]:
    """The reward a policy implies: `beta` times how much likelier an outcome is than under the reference.

    Raises `SettingError` where `beta` is not above 0.
    """
    check_beta(beta)
    return beta * (log_prob - reference_log_prob.detach())


# ---- losses of a margin ------------------------------------------------------------------------------


def dpo_loss(margin: Margin, *, beta: float) -> Margin:
    """-log sigmoid(beta h): the pair's chance, by Bradley and Terry, of being preferred as it was.

    Its gradient in h is -beta sigmoid(-beta h): it fades as the pair comes to stand the right way round.
    """
    check_beta(beta)
    return -F.logsigmoid(beta * margin)


def slic_loss(margin: Margin, *, beta: float) -> Margin:
    """max(0, 1 - beta h): no pull once the margin is 1 / beta."""
    check_beta(beta)
    return (1 - beta * margin).clamp(min=0)


def ipo_loss(margin: Margin, *, beta: float) -> Margin:
    """(h - 1 / (2 beta))^2: a margin to be reached and not to be passed, however sure the labels are."""
    check_beta(beta)
    return (margin - 1 / (2 * beta)).square()


def soft_preference_loss(margin: Margin, target: Float[Tensor, "*pair"], *, beta: float) -> Margin:
    """-p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h), with p the `target`, a constant.

    `target` is the probability that the first outcome of the pair is the better one. A target of 1 gives
    `dpo_loss`, and the loss is least where sigmoid(beta h) is the target. Raises `DataError` naming the first
    pair whose target is not a probability. Source: Rosset et al. 2024 (DNO), algorithm 1.
    """
    check_beta(beta)
    inside = (target >= 0) & (target <= 1)
    if not bool(inside.all()):
        pair = (~inside).nonzero()[0].tolist()
        raise DataError(
            f"a target of {float(target[tuple(pair)]):g}",
            where=f"pair {', '.join(map(str, pair))}",
            expected="the probability that the first outcome is better, from 0 to 1",
        )
    return F.binary_cross_entropy_with_logits(beta * margin, target.detach(), reduction="none")


# ---- labels of which a share is flipped --------------------------------------------------------------


def smoothed_loss(base: PairLoss, margin: Margin, *, beta: float, rate: float) -> Margin:
    """(1 - rate) l(h) + rate l(-h): the expected loss if the label were flipped with probability `rate`.

    Conservative: with `dpo_loss` it pulls back where sigmoid(beta h) is above 1 - `rate`. Raises
    `SettingError` for a rate outside of [0, 0.5). Source: Mitchell 2023 (cDPO).
    """
    check_rate(rate)
    return (1 - rate) * base(margin, beta=beta) + rate * base(-margin, beta=beta)


def robust_loss(base: PairLoss, margin: Margin, *, beta: float, rate: float) -> Margin:
    """[(1 - rate) l(h) - rate l(-h)] / (1 - 2 rate), whose mean over the flips is the loss of clean labels.

    `rate` is the share of pairs whose label was flipped, whatever the pair. With `dpo_loss` this is
    l(h) - rate / (1 - 2 rate) beta h: it falls without end as h grows, so that negative values are normal,
    and the policy has to be held by other means (few steps, weight decay, stopping by held-out pairs). The
    division also lengthens the steps: compare methods at step sizes tuned for each. Raises `SettingError` for
    a rate outside of [0, 0.5).
    Source: Chowdhury et al. 2024.
    """
    check_rate(rate)
    kept, swapped = base(margin, beta=beta), base(-margin, beta=beta)
    return ((1 - rate) * kept - rate * swapped) / (1 - 2 * rate)


# ---- which pairs -------------------------------------------------------------------------------------


def split_by_gap(
    chosen_score: Float[Tensor, "pair"],
    rejected_score: Float[Tensor, "pair"],
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    drop_contradicted: bool = False,
) -> tuple[Int[Tensor, "easy"], Int[Tensor, "difficult"]]:
    """Pairs a reward tells apart by more than `threshold`, and the others, as their indices in order.

    The gap is |score of the chosen - score of the rejected|, in the reward's own units, so that a threshold
    fits one reward model only; `quantile` (from 0 to 1) takes that quantile of the gaps instead. An easy pair
    may contradict its label; with `drop_contradicted` such pairs are in neither part.

    Raises `SettingError` where not exactly one of threshold and quantile is given or it is out of range,
    `DataError` for a score that is not finite, and where one part would be empty (naming the quantiles of the
    gaps). Source: Wang et al. 2024, Mixed Preference Optimization.
    """
    if chosen_score.shape != rejected_score.shape or chosen_score.dim() != 1:
        raise ShapeError(
            f"scores of shape {list(chosen_score.shape)} and {list(rejected_score.shape)}",
            expected="[pair] for the chosen as for the rejected outcomes",
        )
    signed = chosen_score.double() - rejected_score.double()
    _check_finite(signed, "a difference of scores")
    gap = signed.abs()
    easy = gap > _gap_threshold(gap, threshold, quantile)
    contradicted = easy & (signed < 0) if drop_contradicted else torch.zeros_like(easy)
    parts = (easy & ~contradicted).nonzero()[:, 0], (~easy).nonzero()[:, 0]
    if not all(map(len, parts)):
        marks = (0.0, 0.25, 0.5, 0.75, 1.0)
        found = gap.quantile(gap.new_tensor(marks)).tolist()
        raise DataError(
            f"a split by gap leaves {len(parts[0])} easy and {len(parts[1])} difficult pairs",
            where="gaps by quantile: "
            + ", ".join(f"{mark:g}: {value:.4g}" for mark, value in zip(marks, found, strict=True)),
            cure="choose a threshold between them, or give a quantile",
        )
    return parts


# ---- checks ------------------------------------------------------------------------------------------


def check_beta(beta: float) -> None:
    """Raise `SettingError` where `beta`, the weight of the divergence, is not above 0."""
    if not beta > 0:
        raise SettingError(f"beta is {beta}", expected="above 0: it is the weight of the divergence")


def check_rate(rate: float) -> None:
    """Raise `SettingError` for a share of flipped labels outside of [0, 0.5)."""
    if not 0 <= rate < 0.5:
        raise SettingError(
            f"flip rate must be in [0, 0.5); got {rate}",
            expected="the share of flipped labels: at one half they say nothing, above it the opposite",
        )


def _gap_threshold(gap: Float[Tensor, "pair"], threshold: float | None, quantile: float | None) -> float:
    if len(gap) == 0:
        raise DataError("no pairs to split", expected="at least 2")
    if threshold is not None and quantile is None:
        if not threshold > 0:
            raise SettingError(f"a gap of {threshold:g}", expected="above 0, in the reward's units")
        return threshold
    if quantile is not None and threshold is None:
        if not 0 <= quantile <= 1:
            raise SettingError(f"a quantile of {quantile:g}", expected="from 0 to 1")
        return float(gap.quantile(quantile))
    raise SettingError("a split by gap needs a threshold or a quantile", expected="exactly one of them")


def _check_finite(values: Float[Tensor, "row *shape"], what: str, *, cure: str = "") -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        rows = (~finite.flatten(1).all(1) if finite.dim() > 1 else ~finite).nonzero()[:, 0].tolist()
        raise DataError(
            f"{what} is not finite",
            where=f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:10]))}"
            + (f" and {len(rows) - 10} more" if len(rows) > 10 else ""),
            cure=cure,
        )
